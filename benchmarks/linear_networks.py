"""A wide two-layer linear network: the Gram closure against the flow of every weight, at equal error."""

import time

import numpy as np
from scipy.integrate import solve_ivp
from timing import Row

from effdyn import derive, solve

WIDTH, RANK, OUTPUTS = 10_000, 12, 8
INPUTS = {"as many inputs as examples": 12, "under-determined, 60 inputs": 60}
"""The Gram matrix does not grow with the inputs, the weights do; the target is for under-determined data."""
T_END = 30
RTOL = 1e-8
TARGET = 1000


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    return [row for name, inputs in INPUTS.items() for row in _rows(name, inputs, quick)]


def _rows(name: str, inputs: int, quick: bool) -> list[Row]:
    width = WIDTH // 10 if quick else WIDTH
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((RANK, inputs)) / RANK**0.5, rng.standard_normal((RANK, OUTPUTS)) / RANK**0.5
    first, second = (rng.standard_normal(shape) / width**0.5 for shape in ((width, inputs), (OUTPUTS, width)))
    data, times = solve.correlations(x, y), np.linspace(0, T_END, 61)
    network = derive.LinearNetwork(depth=2)
    dynamics = network.dynamics("gram")

    def reduce() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return solve.reduced_inputs(network, "gram", {"W1": first, "W2": second}, data)

    y0, params = reduce()

    def gram(rtol: float = RTOL) -> np.ndarray:
        options = {"t_eval": times, "rtol": rtol, "atol": rtol / 100}
        return solve.integrate(dynamics, (0, T_END), y0=y0, params=params, **options).excess_loss.values

    def full() -> np.ndarray:
        def rhs(_: float, state: np.ndarray) -> np.ndarray:
            w1, w2 = state[: first.size].reshape(first.shape), state[first.size :].reshape(second.shape)
            g = data["S_yx"] - (w2 @ w1) @ data["S_xx"]
            return np.concatenate([(w2.T @ g).ravel(), (g @ w1.T).ravel()])

        start = np.concatenate([first.ravel(), second.ravel()])
        states = solve_ivp(rhs, (0, T_END), start, "DOP853", times, rtol=RTOL, atol=RTOL / 100).y.T
        least = 0.5 * ((y - x @ np.linalg.lstsq(x, y)[0]) ** 2).sum()
        maps = (s[first.size :].reshape(second.shape) @ s[: first.size].reshape(first.shape) for s in states)
        return np.array([0.5 * ((y - x @ w.T) ** 2).sum() for w in maps]) - least

    gram()  # compiled before the clock runs
    exact = gram(1e-13)
    seconds, results = {}, {}
    for job_name, job in {"gram": gram, "reduce": reduce, "full": full}.items():
        repeats = 1 if job_name == "full" else 50
        started = time.perf_counter()
        for _ in range(repeats):
            results[job_name] = job()
        seconds[job_name] = (time.perf_counter() - started) / repeats
    error, other = (abs(results[n] - exact).max() / exact[0] for n in ("gram", "full"))
    ratio, whole = seconds["full"] / seconds["gram"], seconds["full"] / (seconds["gram"] + seconds["reduce"])
    against, goal = f"all weights, SciPy DOP853, h = {width}", inputs > RANK
    met, target = ratio >= TARGET if goal and not quick else None, f">= {TARGET}×" if goal else ""
    return [
        Row(
            f"Gram closure, r + m = 20, {name}",
            1e3 * seconds["gram"],
            "ms",
            ratio,
            against,
            target,
            met,
        ),
        Row("the same from the weights", 1e3 * (seconds["gram"] + seconds["reduce"]), "ms", whole, against),
        Row("its error", error, "relative", error / other, against, "<= 1×", bool(error <= other)),
    ]
