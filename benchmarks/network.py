"""One step of network training (engine "network"), against NumPy and BLAS on the same normals and multiply-adds.

A step at dimension d draws d normals, forms K + M fields and updates K vectors: (2K + M)·d multiply-adds. The
alternative is the time in which this machine draws d normals and multiplies a (2K + M, d) matrix by a vector, as in
training: weights stay, inputs are new. The time of the call itself (as at d = 1) is not counted.

And the same model as one writes it plainly, a loop over steps in NumPy.
"""

from collections.abc import Callable

import numpy as np
from chain import replica
from plain_simulators import numpy_simulator
from timing import Row, interleaved

from effdyn.validate.network import Network, compile_network

D = 1000
TARGET = 2.0
PLAIN_STEPS = 200


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    rows = []
    for K in (2, 4):
        network = replica(Network, compile_network, D, K)
        steps = network.block
        rng = np.random.default_rng(0)
        weights, x, fields = rng.standard_normal((3 * K, D)), np.empty((steps, D)), np.empty(3 * K)
        tiny, point = rng.standard_normal((3 * K, 1)), np.empty((steps, 1))

        def train(network: Network = network) -> None:
            assert network.advance(network.block) == network.block, "a replica that has diverged is no measurement"

        def draw(rng: np.random.Generator = rng, x: np.ndarray = x) -> None:
            rng.standard_normal(out=x)

        def multiply(weights: np.ndarray, x: np.ndarray, out: np.ndarray = fields) -> Callable[[], None]:
            def run() -> None:
                for row in x:
                    np.dot(weights, row, out=out)

            return run

        draw()
        work: dict[str, Callable[[], object]] = {
            "train": train,
            "draw": draw,
            "multiply": multiply(weights, x),
            "call": multiply(tiny, point),
        }
        work["plain"] = numpy_simulator(D, K, PLAIN_STEPS)
        seconds = interleaved(work, 10 if quick else 60)
        us = {name: 1e6 * s / (PLAIN_STEPS if name == "plain" else steps) for name, s in seconds.items()}
        arithmetic = max(us["multiply"] - us["call"], 0.0)
        ratio = us["train"] / (us["draw"] + arithmetic)
        against = f"NumPy: normals {us['draw']:.3g} us, multiply-adds {arithmetic:.2g} us"
        rows.append(
            Row(
                f"network, d = {D}, K = M = {K}",
                us["train"],
                "us/step",
                ratio,
                against,
                f"<= {TARGET:g}",
                ratio <= TARGET,
            )
        )
        ratio = us["plain"] / us["train"]
        against = f"a plain loop in NumPy, {us['plain']:.3g} us/step"
        title = f"network, d = {D}, K = M = {K}"
        rows.append(Row(title, us["train"], "us/step", ratio, against, ">= 1", ratio >= 1))
    return rows
