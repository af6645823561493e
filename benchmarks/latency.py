"""From a shell prompt to the first solution: a fresh process that derives, compiles, integrates, prints and ends.

Caches empty, then warm. "Empty" are effdyn's cache of generated source and Numba's of machine code, as on the first run
on a machine; Python's bytecode is there, as after ``pip install``. Wall time, since that is what a user waits; the
alternative is a process that only imports the libraries.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from timing import Row

COLD, WARM = 6.0, 2.0  # seconds

IMPORTS = "import numpy, scipy.integrate, sympy, numba, xarray"

FIRST_SOLUTION = """
from effdyn import derive, solve
dyn = derive.TeacherStudent(activation="erf").dynamics()
sol = solve.integrate(dyn, (0, 100), y0=dict(Q=[[0.5, 0.0], [0.0, 0.6]], R=[[1e-3, 0.0], [0.0, 2e-3]]),
                      params=dict(eta=1.0, sigma=0.0, T=[[1.0, 0.0], [0.0, 1.0]], a=1.0, b=1.0))
print(sol)
"""

INTEGRATOR = "from effdyn.solve.integrators.dop853 import compiled_advance; compiled_advance(False)"

STAGES = """
import json, time
marks = [("", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
import numpy, scipy.integrate, sympy, numba, xarray
mark("import of libraries")
from effdyn import derive, solve
mark("import of effdyn")
dyn = derive.TeacherStudent(activation="erf").dynamics()
mark("derivation")
numba.njit("float64(float64)")(lambda x: x)
mark("Numba's first compilation")
from effdyn.solve.integrators import warmup
warmup.start()
solve.kernel(dyn)
mark("right-hand side: generate, compile")
from effdyn.solve.kernels.kernel import observables_kernel
observables_kernel(dyn)
mark("observables: generate, compile")
warmup.wait()
mark("integrator: waiting for its compilation beside")
sol = solve.integrate(dyn, (0, 100), y0=dict(Q=[[0.5, 0.0], [0.0, 0.6]], R=[[1e-3, 0.0], [0.0, 2e-3]]),
                      params=dict(eta=1.0, sigma=0.0, T=[[1.0, 0.0], [0.0, 1.0]], a=1.0, b=1.0))
str(sol)
mark("integrate and print")
print(json.dumps([[name, t - s] for (_, s), (name, t) in zip(marks, marks[1:])]))
"""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    cold, warm, bare = [], [], []
    alone = []
    stages: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(_seconds(FIRST_SOLUTION, cache)[0])
            for _ in range(2 if quick else 3):
                bare.append(_seconds(IMPORTS, cache)[0])
                warm.append(_seconds(FIRST_SOLUTION, cache)[0])
        with tempfile.TemporaryDirectory() as cache:
            alone.append(_seconds(INTEGRATOR, cache)[0])
        with tempfile.TemporaryDirectory() as cache:
            for name in stages:
                seconds, printed = _seconds(STAGES, cache)
                spent = dict(json.loads(printed))
                stages[name].append(spent | {"start and end of the process": seconds - sum(spent.values())})
    imports = min(bare)
    rows = [
        Row(
            "first solution, empty caches",
            min(cold),
            "s",
            min(cold) / imports,
            "importing the libraries",
            f"< {COLD:g} s",
            min(cold) < COLD,
        ),
        Row(
            "first solution, warm caches",
            min(warm),
            "s",
            min(warm) / imports,
            "importing the libraries",
            f"< {WARM:g} s",
            min(warm) < WARM,
        ),
        Row("bare import of the libraries", imports, "s", 1.0, "itself"),
        Row("a process that compiles the integrator", min(alone), "s", min(alone) / imports, "importing the libraries"),
    ]
    for name, found in stages.items():
        for stage in found[0]:
            least = min(run[stage] for run in found)
            rows.append(Row(f"  {name}: {stage}", least, "s", least / imports, "importing the libraries"))
    return rows


def _seconds(code: str, cache: str) -> tuple[float, str]:
    """Return the wall time of a fresh process, and its output."""
    environment = {
        **os.environ,
        "EFFDYN_CACHE_DIR": os.path.join(cache, "effdyn"),
        "NUMBA_CACHE_DIR": os.path.join(cache, "numba"),
    }
    begin = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, text=True, stdout=subprocess.PIPE)
    return time.perf_counter() - begin, run.stdout
