"""Microseconds per step of the exact chain of the overlaps (engine "gram") at any d, and of the network.

And of ``simulate`` as a whole, from which follows the time of 10⁴ replicas of 10⁶ steps.
"""

import time
from collections.abc import Callable

import numpy as np
from problems import model, parameters, start
from timing import Row, interleaved

from effdyn.validate.gram import Gram, compile_gram
from effdyn.validate.initial import coordinates
from effdyn.validate.inputs import read_inputs
from effdyn.validate.network import Network, compile_network
from effdyn.validate.simulate import simulate

K = 4
TARGET = 1.0  # microseconds
FASTER = {1000: None, 10_000: 30.0, 100_000: 300.0}
"""At d, how many times as fast as the network the chain is to be."""
SAME = 1.15
"""The chain does the same work at every d: what remains is the weather of the machine, and other draws of χ²."""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    replicas = {
        "chain, d = 1000": replica(Gram, compile_gram, 1000),
        "chain, d = 100000": replica(Gram, compile_gram, 100_000),
    }
    replicas |= {f"network, d = {d}": replica(Network, compile_network, d) for d in FASTER}

    def job(machine: Gram | Network) -> Callable[[], object]:
        def run() -> None:
            assert machine.advance(machine.block) == machine.block, "a replica that has diverged is no measurement"

        return run

    seconds = interleaved({name: job(r) for name, r in replicas.items()}, 7 if quick else 40)
    us = {name: 1e6 * s / replicas[name].block for name, s in seconds.items()}
    near, far = us["chain, d = 1000"], us["chain, d = 100000"]
    rows = [
        Row(
            f"chain, K = M = {K}, d = 1000",
            near,
            "us/step",
            near / far,
            "the chain at d = 100000",
            f"< {TARGET:g} us",
            near < TARGET,
        ),
        Row(
            f"chain, K = M = {K}, d = 100000",
            far,
            "us/step",
            far / near,
            "the chain at d = 1000",
            f"<= {SAME:g}",
            far / near <= SAME,
        ),
    ]
    for d, target in FASTER.items():
        network = us[f"network, d = {d}"]
        ratio = network / near
        judged = ("", None) if target is None else (f">= {target:g}", ratio >= target)
        against = f"the network, {network:.3g} us/step"
        rows.append(Row(f"chain, K = M = {K}, d = {d}", near, "us/step", ratio, against, *judged))
    return [*rows, campaign(replicas["chain, d = 1000"], job, quick)]


def campaign(chain: Gram, job: Callable[[Gram], Callable[[], object]], quick: bool) -> Row:
    """Return the time of 10⁴ replicas of 10⁶ steps, K = M = 4, from a few of them, in minutes of one core."""
    d, runs, steps = 1000, 2, 200_000 if quick else 1_000_000
    y0, params = start(K) | {"R": np.full((K, K), 1e-3)}, parameters(K, eta=0.1) | {"T": np.eye(K)}
    how = dict(d=d, runs=runs, t_span=(0, steps // d), store="moments", threads=1, progress=False)

    def whole() -> object:
        return simulate(model(), y0=y0, params=params, **how)

    seconds = interleaved({"simulate": whole, "chain": job(chain)}, 3, clock=time.process_time)
    each, bare = seconds["simulate"] / (runs * steps), seconds["chain"] / chain.block
    minutes, target = 1e10 * each / 60, "<= 1.25"
    against = "the bare chain, a step"
    return Row("10^4 replicas of 10^6 steps", minutes, "core min", each / bare, against, target, each <= 1.25 * bare)


def replica(
    engine: type, compile_engine: Callable, d: int, units: int = K, teachers: int | None = None
) -> "Gram | Network":
    """Return one replica, as ``simulate`` makes it."""
    teachers = units if teachers is None else teachers
    erf = model()
    y0 = start(units) | {"R": np.full((units, teachers), 1e-3)}
    params = parameters(units, eta=0.1) | {"T": np.eye(teachers)}
    inputs = read_inputs(erf, y0, params)
    return engine(compile_engine(erf), inputs, coordinates(inputs), d, "exact", np.random.SeedSequence(1))
