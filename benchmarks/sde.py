"""Nanoseconds per step of Euler and Maruyama: ours, NumPy over all paths at once, and a loop written for one model."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
from numba import njit
from timing import Row, interleaved

from effdyn import solve
from effdyn.derive import Dynamics, Equation, Quantity
from effdyn.derive.diffusion import Amplitude

MU, S, DT, RUNS, STEPS = 0.5, 0.8, 1e-4, 20, 10_000
N = 4
"""States and Brownian motions of the larger problem, a linear equation with noise in proportion to the states."""


def measure(quick: bool) -> list[Row]:
    """Return the rows of this benchmark."""
    rounds = 3 if quick else 15
    return [*geometric(rounds), *linear(rounds)]


def geometric(rounds: int) -> list[Row]:
    """Return the rows of geometric Brownian motion: the least work a step can be."""
    x, mu, s = Quantity("x"), Quantity("mu"), Quantity("s")
    drift = (Equation(x, mu.symbol * x.symbol),)
    noise = (Amplitude(x, Quantity("W"), s.symbol * x.symbol),)
    dynamics = Dynamics("geometric Brownian motion", "sde", "t", drift, (mu, s), diffusion=noise)
    call = dict(y0=dict(x=1.0), params=dict(mu=MU, s=S))

    def vectorised() -> None:
        rng, y = np.random.default_rng(0), np.ones(RUNS * 100)
        for _ in range(STEPS // 100):
            y = y + MU * y * DT + S * y * np.sqrt(DT) * rng.standard_normal(y.size)

    @njit
    def loop(rng):  # type: ignore[no-untyped-def]  # Numba infers them
        for _ in range(RUNS):
            y = 1.0
            for _ in range(STEPS):
                y += MU * y * DT + S * y * np.sqrt(DT) * rng.standard_normal()
        return y

    return rows("1 state, 1 noise", dynamics, call, vectorised, lambda: loop(np.random.default_rng(0)), rounds)


def linear(rounds: int) -> list[Row]:
    """Return the rows of N states and N Brownian motions."""
    i, k, a = sympy.symbols("i k a", integer=True)
    size = sympy.Symbol("N", integer=True, positive=True)
    x, W = Quantity("x", (i,), (size,)), Quantity("W", (a,), (size,))
    A, C = Quantity("A", (i, k), (size, size)), Quantity("C", (i, a), (size, size))
    drift = (Equation(x, -sympy.Sum(A.base[i, k] * x.base[k], (k, 1, size))),)
    noise = (Amplitude(x, W, C.base[i, a] * x.base[i]),)
    dynamics = Dynamics("linear", "sde", "t", drift, (A, C), diffusion=noise)
    rates, gains = np.eye(N) + 0.1, 0.1 * np.arange(N * N).reshape(N, N) / N
    call = dict(y0=dict(x=np.ones(N)), params=dict(A=rates, C=gains))

    def vectorised() -> None:
        rng, y = np.random.default_rng(0), np.ones((RUNS * 100, N))
        for _ in range(STEPS // 100):
            dW = np.sqrt(DT) * rng.standard_normal(y.shape)
            y = y - y @ rates.T * DT + y * (dW @ gains.T)

    @njit
    def loop(rng):  # type: ignore[no-untyped-def]  # Numba has the types
        new, dW = np.empty(N), np.empty(N)
        for _ in range(RUNS):
            y = np.ones(N)
            for _ in range(STEPS):
                for a in range(N):
                    dW[a] = np.sqrt(DT) * rng.standard_normal()
                for i in range(N):
                    change, noise = 0.0, 0.0
                    for k in range(N):
                        change -= rates[i, k] * y[k]
                        noise += gains[i, k] * dW[k]
                    new[i] = y[i] + change * DT + y[i] * noise
                y[:] = new
        return y

    return rows(f"{N} states, {N} noises", dynamics, call, vectorised, lambda: loop(np.random.default_rng(0)), rounds)


def rows(
    name: str,
    dynamics: Dynamics,
    call: dict[str, Any],
    vectorised: Callable[[], object],
    loop: Callable[[], object],
    rounds: int,
) -> list[Row]:
    """Return our nanoseconds per step and path, against NumPy's and the loop's."""

    def ours(method: str) -> Callable[[], object]:
        options: dict[str, Any] = dict(dt=DT, runs=RUNS, t_eval=[STEPS * DT], threads=1, method=method)
        return lambda: solve.integrate(dynamics, (0, STEPS * DT), **call, **options)

    methods = ("euler-maruyama", "milstein", "weak2")
    work = {method: ours(method) for method in methods} | {"NumPy": vectorised, "loop": loop}
    # our paths run in a thread of their own: count the time of the process
    seconds = interleaved(work, rounds, clock=time.process_time)
    ns = {key: 1e9 * value / (RUNS * STEPS) for key, value in seconds.items()}
    against = f"NumPy, vectorised over {RUNS * 100} paths"
    return [
        *(Row(f"{method}, {name}", ns[method], "ns/step", ns["NumPy"] / ns[method], against) for method in methods),
        Row(
            f"euler-maruyama, {name}", ns[methods[0]], "ns/step", ns["loop"] / ns[methods[0]], "a Numba loop of its own"
        ),
    ]
