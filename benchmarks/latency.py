"""From a shell prompt to the first solution: a fresh process that derives, compiles, integrates, plots and ends.

Caches empty; then for another model, so that the integrator is compiled and the equations are new; then all warm. The
last two also without dask, which xarray imports with the first variable where it is installed: effdyn does not need it,
and installs it for tests only, so that a plain installation is the one without.
"Empty" are effdyn's cache of generated source and Numba's of machine code, as on the first run on a machine; Python's
bytecode is there, as after ``pip install``. Wall time, since that is what a user waits, so on an idle machine; the
alternative is a process that only imports the libraries. The processes' own time, user and system, stands beside it: it
hardly depends on what else the machine does, and tells one version from another where wall time does not.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from timing import Row

COLD, NEW, WARM, DERIVE = 6.0, 3.5, 2.0, 0.6  # seconds

IMPORTS = "import numpy, scipy.integrate, sympy, numba, xarray, matplotlib.pyplot"

FIRST_SOLUTION = """
from effdyn import derive, solve
dyn = derive.TeacherStudent(activation="erf").dynamics()
sol = solve.integrate(dyn, (0, 100), y0=dict(Q=[[0.5, 0.0], [0.0, 0.6]], R=[[1e-3, 0.0], [0.0, 2e-3]]),
                      params=dict(eta=1.0, sigma=0.0, T=[[1.0, 0.0], [0.0, 1.0]], a=1.0, b=1.0))
print(sol)
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
sol.eg.plot()
plt.savefig(__import__("io").BytesIO())
"""

WITHOUT_DASK = "import sys; sys.modules['dask'] = None" + FIRST_SOLUTION
ANOTHER = FIRST_SOLUTION.replace('"erf"', '"He3"').replace("eta=1.0", "eta=0.01")
ANOTHER_WITHOUT_DASK = WITHOUT_DASK.replace('"erf"', '"He3"').replace("eta=1.0", "eta=0.01")

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


AGAINST = "importing the libraries"
TEXTS = {
    "cold": ("first plot, empty caches", COLD),
    "new": ("first plot, a new model, no dask", NEW),
    "new with dask": ("first plot, a new model, with dask", None),
    "warm": ("first plot, warm caches", WARM),
    "dask": ("first plot, warm caches, no dask", None),
    "derive": ("import effdyn.derive", DERIVE),
    "bare": ("bare import of the libraries", None),
    "alone": ("a process that compiles the integrator", None),
}


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    once = {"cold": FIRST_SOLUTION, "bare": IMPORTS, "derive": "import effdyn.derive", "new": ANOTHER_WITHOUT_DASK}
    again = {"warm": FIRST_SOLUTION, "dask": WITHOUT_DASK, "bare": IMPORTS}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in TEXTS}
    stages: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as cache:
            for name, code in once.items():  # in this order: the first process leaves the integrator to the last
                found[name].append(_seconds(code, cache)[0])
            for name, code in list(again.items()) * (2 if quick else 3):
                found[name].append(_seconds(code, cache)[0])
        with tempfile.TemporaryDirectory() as cache:
            found["cold"].append(_seconds(FIRST_SOLUTION, cache)[0])
            found["new with dask"].append(_seconds(ANOTHER, cache)[0])
        with tempfile.TemporaryDirectory() as cache:
            found["alone"].append(_seconds(INTEGRATOR, cache)[0])
        with tempfile.TemporaryDirectory() as cache:
            for name in stages:
                (seconds, _), printed = _seconds(STAGES, cache)
                spent = dict(json.loads(printed))
                stages[name].append(spent | {"start and end of the process": seconds - sum(spent.values())})
    wall, own = ({name: min(run[n] for run in runs) for name, runs in found.items()} for n in range(2))
    rows = []
    for name, (text, limit) in TEXTS.items():
        met = () if limit is None else (f"<= {limit:g} s", wall[name] <= limit)
        rows.append(Row(text, wall[name], "s", wall[name] / wall["bare"], AGAINST, *met))
        rows.append(Row("  its own time, on all processors", own[name], "s", own[name] / own["bare"], AGAINST))
    for name, runs in stages.items():
        for stage in runs[0]:
            shortest = min(run[stage] for run in runs)
            rows.append(Row(f"  {name}: {stage}", shortest, "s", shortest / wall["bare"], AGAINST))
    return rows


def _seconds(code: str, cache: str) -> tuple[tuple[float, float], str]:
    """Return the wall time of a fresh process, its own time and that of its children, and its output."""
    environment = {
        **os.environ,
        "EFFDYN_CACHE_DIR": os.path.join(cache, "effdyn"),
        "NUMBA_CACHE_DIR": os.path.join(cache, "numba"),
    }
    before, begin = os.times(), time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, text=True, stdout=subprocess.PIPE)
    seconds, after = time.perf_counter() - begin, os.times()
    own = after.children_user + after.children_system - before.children_user - before.children_system
    return (seconds, own), run.stdout
