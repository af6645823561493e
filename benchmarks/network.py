"""One step of network training (engine "network"): against the same model written plainly elsewhere, and the limit.

A step at dimension d draws d normals, forms K + M fields and updates K vectors: (2K + M)·d multiply-adds. The limit is
the time in which this machine draws d normals, by a published ziggurat compiled from C++, and
multiplies a (2K + M, d) matrix by a vector, as in training: weights stay, inputs are new. The time of the call itself
(as at d = 1) is not counted. Without a compiler the normals are NumPy's.

The rivals are the loop over steps as one writes it in NumPy, in PyTorch, in C++ with the standard library's normal
numbers, and in C++ with that ziggurat. Each is first seen to learn what ours learns.
"""

from collections.abc import Callable

import numpy as np
from chain import replica
from network_rivals import Trainer, cpp, numpy, pytorch
from problems import start
from scipy.special import erf
from timing import Row, interleaved

from effdyn.validate.network import Network, compile_network

D = 1000
ETA = 0.1  # of chain.replica
TARGET = 2.0
EQUAL = 0.9
"""What counts as no slower than the C++ that draws normal numbers like ours: timings scatter by some per cent."""
STEPS = 200
"""Of a rival in one turn."""
LEARNT, SAME = 30_000, 0.1
"""Steps after which errors of test are compared, and how much they may differ: at d = 1000 runs scatter by 2 %."""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    rows = []
    standard, ziggurat = cpp("standard"), cpp("ziggurat")
    rivals: dict[str, Trainer | None] = {
        "a plain loop in NumPy": numpy(),
        "a plain loop in PyTorch": pytorch(),
        "C++, std::normal_distribution": standard[0] if standard else None,
        "C++, ziggurat and xoshiro256++": ziggurat[0] if ziggurat else None,
    }
    present = {name: train for name, train in rivals.items() if train is not None}
    for name, train in present.items():
        check(name, train)
    for K in (2, 4):
        network = replica(Network, compile_network, D, K)
        steps = network.block
        draw = ziggurat[1] if ziggurat else draw_by_numpy
        work = {"train": training(network), **limit(draw, steps, K)}
        work |= {name: plain(train, K) for name, train in present.items()}
        seconds = interleaved(work, 10 if quick else 60)
        us = {name: 1e6 * s / (STEPS if name in present else steps) for name, s in seconds.items()}
        arithmetic = max(us["multiply"] - us["call"], 0.0)
        title = f"network, d = {D}, K = M = {K}"
        for name in present:
            ratio, least = us[name] / us["train"], EQUAL if "ziggurat" in name else 1
            target = f">= {least:g}"
            rows.append(
                Row(title, us["train"], "us/step", ratio, f"{name}, {us[name]:.3g} us/step", target, ratio >= least)
            )
        ratio = us["train"] / (us["draw"] + arithmetic)
        against = f"the limit: normals {us['draw']:.3g} us, multiply-adds {arithmetic:.2g} us"
        rows.append(Row(title, us["train"], "us/step", ratio, against, f"<= {TARGET:g}", ratio <= TARGET))
    return rows


def training(network: Network) -> Callable[[], object]:
    """Return our own steps."""

    def train() -> None:
        assert network.advance(network.block) == network.block, "a replica that has diverged is no measurement"

    return train


def limit(draw: Callable[[np.ndarray], None], steps: int, K: int) -> dict[str, Callable[[], object]]:
    """Return the work that nobody can do without: normals, and products of matrix and vector (and their bare calls)."""
    rng = np.random.default_rng(0)
    weights, x, fields = rng.standard_normal((3 * K, D)), np.empty((steps, D)), np.empty(3 * K)
    tiny, point = rng.standard_normal((3 * K, 1)), np.empty((steps, 1))
    draw(x)

    def multiply(weights: np.ndarray, x: np.ndarray) -> Callable[[], None]:
        def run() -> None:
            for row in x:
                np.dot(weights, row, out=fields)

        return run

    return {"draw": lambda: draw(x), "multiply": multiply(weights, x), "call": multiply(tiny, point)}


def draw_by_numpy(out: np.ndarray, rng: np.random.Generator = np.random.default_rng(0)) -> None:  # noqa: B008
    """Fill an array with NumPy's normal numbers."""
    rng.standard_normal(out=out)


def plain(train: Trainer, K: int) -> Callable[[], object]:
    """Return a rival's steps."""
    rng = np.random.default_rng(0)
    lengths = np.sqrt(np.diag(start(K)["Q"]))[:, None]
    teacher, student = rng.standard_normal((K, D)) / D**0.5, lengths * rng.standard_normal((K, D)) / D**0.5
    return lambda: train(student, teacher, ETA, STEPS)


def check(name: str, train: Trainer, K: int = 2) -> None:
    """Refuse a rival that does not learn what ours learns from the same weights."""
    network = replica(Network, compile_network, D, K)
    student, teacher = network.student.copy(), network.teacher.copy()
    train(student, teacher, ETA, LEARNT)
    for _ in range(LEARNT // network.block):
        network.advance(network.block)
    x = np.random.default_rng(2).standard_normal((D, 4000))
    ours, theirs = error(network.student, teacher, x), error(student, teacher, x)
    assert abs(theirs / ours - 1) < SAME, f"{name} learns something else: error {theirs:.3g}, ours {ours:.3g}"


def error(student: np.ndarray, teacher: np.ndarray, x: np.ndarray) -> float:
    """Return the mean of ½(y* − φ)² over inputs, (d, n)."""
    wrong = (erf(teacher @ x / 2**0.5) - erf(student @ x / 2**0.5)).sum(0)
    return float((wrong**2).mean() / 2)
