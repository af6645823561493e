"""Sweeps: what a cell costs beyond its integration, in memory and in a store, and when it is there already.

Cells are K = M = 1 with 101 times. For the overhead, ``integrate`` is replaced by a function that returns a solution
made before, so that what is left is the sweep: checks, threads, labels, journal, checksums, arrays. CPU time of all
threads, taking turns with the integrations in a plain loop.
"""

import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
from timing import Row, interleaved

from effdyn import derive, solve
from effdyn.solve.sweeps.sweep import sweep

DYN = derive.TeacherStudent(activation="erf").dynamics()
START, PARAMS = dict(Q=[[0.5]], R=[[0.1]]), dict(sigma=0.0, T=[[1.0]], a=1.0, b=1.0)
TIMES = np.linspace(0, 100, 101)
TARGET = 1e-3  # seconds a cell


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    n = 200 if quick else 2000
    eta = np.linspace(0.1, 2.0, n)
    numbers = iter(range(1_000_000))
    made = solve.integrate(DYN, (0, 100), START, {**PARAMS, "eta": 1.0}, t_eval=TIMES)

    def loop() -> None:
        for value in eta[:50]:
            solve.integrate(DYN, (0, 100), START, {**PARAMS, "eta": value}, t_eval=TIMES)

    def swept(store: Path | None) -> None:
        sweep(DYN, {"eta": eta}, (0, 100), START, PARAMS, t_eval=TIMES, store=store, threads=1, progress=False)

    with tempfile.TemporaryDirectory() as place, patch("effdyn.solve.sweeps.cell.integrate", lambda *a, **k: made):
        finished = Path(place, "finished.zarr")
        swept(finished)
        work = {
            "in memory": lambda: swept(None),
            "in a store": lambda: swept(Path(place, f"{next(numbers)}.zarr")),
            "in the store already": lambda: swept(finished),
        }
        over = interleaved(work, 3, clock=time.process_time)
    cell = interleaved({"loop": loop}, 3, clock=time.process_time)["loop"] / 50
    return [
        Row(
            f"overhead of a cell, {name}",
            1e3 * seconds / n,
            "ms",
            seconds / n / cell,
            "its integration",
            f"≤ {1e3 * TARGET:g} ms",
            bool(seconds / n <= TARGET),
        )
        for name, seconds in over.items()
    ]
