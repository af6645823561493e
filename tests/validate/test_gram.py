"""The exact chain of the overlaps: the same law as the real network, and no care needed where Ω is singular."""

import json

import numpy as np
import pytest
from scipy.stats import ks_2samp

from effdyn.derive import TeacherStudent
from effdyn.validate.gram import turn
from effdyn.validate.simulate import simulate

GOLDT = TeacherStudent(activation="erf", second_layer="trained", weight_decay=True)
START = dict(Q=[[0.5, 0.1], [0.1, 0.6]], R=[[0.2, 0.1], [0.0, 0.3]], a=[0.5, 0.7])
PARAMS = dict(eta=1.0, eta_a=0.5, sigma=0.2, kappa=0.1, T=[[1.2, 0.2], [0.2, 1.2]], b=1.0)


def assert_same_law(first, second, detectable):
    """Means and variances agree within 5 standard errors, and 5 of a mean are at most ``detectable`` spreads."""
    for name in set(first) - {"d"}:
        x, y = first[name].values, second[name].values
        n = len(x)
        spread = np.sqrt((x.var(0, ddof=1) + y.var(0, ddof=1)) / 2)
        error = spread * np.sqrt(2 / n)
        rounding = 1e-12  # quantities that do not fluctuate, such as Q at t = 0 with init="exact"
        assert (5 * error <= detectable * spread + rounding).all(), "too coarse"
        assert (abs(x.mean(0) - y.mean(0)) <= 5 * error + rounding).all(), name
        squares = [(v - v.mean(0)) ** 2 for v in (x, y)]
        error = np.sqrt((squares[0].var(0) + squares[1].var(0)) / n)
        assert (abs(squares[0].mean(0) - squares[1].mean(0)) <= 5 * error + rounding).all(), f"variance of {name}"


# 5 √(2/4000) = 0.11: a mean that is off by 11 % of the run-to-run spread fails, a variance by some 16 %.
@pytest.mark.parametrize(("d", "init"), [(4, "exact"), (5, "random"), (20, "exact"), (20, "random"), (100, "exact")])
def test_chain_and_network_have_one_law(d, init):
    gram, network = (
        simulate(
            GOLDT,
            d=d,
            runs=4000,
            t_span=(0, 2),
            t_eval=[0, 0.5, 2],
            y0=START,
            params=PARAMS,
            rng=seed,
            engine=engine,
            init=init,
            align=False,
        )
        for seed, engine in enumerate(("gram", "network"))
    )
    assert_same_law(gram, network, detectable=0.12)


@pytest.mark.slow
def test_chain_and_network_have_one_law_at_large_d():
    gram, network = (
        simulate(
            GOLDT,
            d=400,
            runs=8000,
            t_span=(0, 3),
            t_eval=[0, 1, 3],
            y0=START,
            params=PARAMS,
            rng=seed,
            engine=engine,
            align=False,
        )
        for seed, engine in enumerate(("gram", "network"))
    )
    assert_same_law(gram, network, detectable=0.08)


@pytest.mark.parametrize(
    ("model", "eta"),
    [
        (TeacherStudent(activation="He3", teacher_activation="tanh", output_scale="1/K"), 0.05),
        (TeacherStudent(activation="relu", teacher_activation="erf", output_scale="1/sqrt(K)"), 0.5),
    ],
)
def test_one_law_for_other_activations(model, eta):
    y0 = dict(Q=np.eye(3) * 0.3 + 0.1, R=[[0.2], [0.0], [-0.1]])
    params = dict(eta=eta, sigma=0.1, T=[[1.0]], a=[1.0, -0.5, 0.8], b=1.5)
    gram, network = (
        simulate(
            model,
            d=50,
            runs=2000,
            t_span=(0, 1),
            t_eval=[0, 1],
            y0=y0,
            params=params,
            rng=seed,
            engine=engine,
            align=False,
        )
        for seed, engine in enumerate(("gram", "network"))
    )
    assert_same_law(gram, network, detectable=0.16)


@pytest.mark.parametrize("K", [1, 2, 3, 7])
def test_turning_the_frame_keeps_the_overlaps(K, rng):
    C = np.tril(rng.standard_normal((K, K)))
    C[:, K // 2 + 1 :] = 0.0  # rank-deficient for K > 1
    across, push, w = np.vstack([C.T, np.full(K, 7.0)]), rng.standard_normal(K), rng.standard_normal(K + 1)
    across[K] = 0.0
    w[K] = abs(w[K])  # a length
    V = 0.9 * np.column_stack([C, np.zeros(K)]) + np.outer(push, w)
    turn(across, push, w, 0.9)
    assert np.allclose(across.T @ across, V @ V.T, rtol=0, atol=1e-14 * K * abs(V).max() ** 2)
    assert (np.triu(across[:K].T, 1) == 0).all() and (across[K] == 0).all()


def test_a_student_that_is_its_teacher_stays_so():
    T = np.array([[1.0, 0.3], [0.3, 2.0]])
    result = simulate(
        TeacherStudent(),
        d=50,
        runs=4,
        t_span=(0, 20),
        y0=dict(Q=T, R=T),
        params=dict(eta=1.0, sigma=0.0, T=T, a=1, b=1),
    )
    # Fields of student and teacher differ by rounding, 1e-16; eg is quadratic in that, and a difference of numbers of
    # order 1.
    assert abs(result.eg).max() < 1e-14
    assert abs(result.Q - T).max() < 1e-13 and abs(result.R.values - T).max() < 1e-13


def test_convergence_does_not_stall_at_the_square_root_of_rounding():
    """The factor is updated without subtractions: the student's rest outside the teacher's span vanishes."""
    result = simulate(
        TeacherStudent(),
        d=20,
        runs=4,
        t_span=(0, 320),
        y0=dict(Q=[[0.5]], R=[[0.3]]),
        params=dict(eta=1.0, sigma=0.0, T=[[1.0]], a=1, b=1),
    )
    end = result.isel(t=-1, student=0, student_2=0, teacher=0)
    assert abs(end.Q - 1).max() < 1e-13 and abs(end.R - 1).max() < 1e-13 and abs(end.eg).max() < 1e-14


@pytest.mark.parametrize("engine", ["gram", "network"])
def test_as_many_dimensions_as_vectors_and_no_more(engine):
    """K + M = 4 vectors, two teachers equal: rank 3, and d = 3 is enough for them."""
    Q, R, T = np.eye(2) * 0.5, np.full((2, 2), 0.2), np.ones((2, 2))
    params = dict(eta=0.5, sigma=0.1, T=T, a=1.0, b=1.0)
    result = simulate(TeacherStudent(), d=3, runs=50, t_span=(0, 3), y0=dict(Q=Q, R=R), params=params, engine=engine)
    start = result.isel(t=0)
    assert abs(start.Q - Q).max() < 1e-14 and abs(start.R - R).max() < 1e-14
    assert np.allclose(result.R.isel(teacher=0), result.R.isel(teacher=1), rtol=0, atol=1e-13), (
        "equal teachers, equal overlaps"
    )
    gram = np.concatenate(
        [
            np.concatenate([np.broadcast_to(T, (*result.R.shape[:2], 2, 2)), result.R.values.swapaxes(2, 3)], -1),
            np.concatenate([result.R.values, result.Q.values], -1),
        ],
        -2,
    )
    assert np.linalg.eigvalsh(gram).min() > -1e-13
    assert json.loads(result.attrs["parameters"])["T"] == T.tolist()


def test_the_length_of_the_input_has_its_law():
    """One step of a linear unit on labels 0: Q' = Q + Q z²/d (−2η + η²|x|²/d), |x|² = z² + χ²_{d−1}, known in full.

    The distributions are compared, not only moments; the same chain with |x|² of the right mean but without its
    fluctuations would be seen.
    """
    d, eta, runs = 3, 2.0, 4000
    options = {"t_span": (0, 1 / d), "t_eval": [0, 1 / d], "progress": False}
    params = {"eta": eta, "sigma": 0.0, "T": [[1.0]], "a": 1.0, "b": 0.0}
    start = {"Q": [[0.7]], "R": [[0.0]]}
    chain = simulate(TeacherStudent(activation="linear"), d=d, runs=runs, y0=start, params=params, **options)
    rng = np.random.default_rng(1)
    z = rng.standard_normal(400_000)

    def after(rest):
        return 0.7 * (1 + z**2 / d * (-2 * eta + eta**2 * (z**2 + rest) / d))

    sample = chain.Q.isel(t=-1).values.ravel()
    # one comparison, at the level of 5 sigma
    assert ks_2samp(sample, after(rng.chisquare(d - 1, z.size))).pvalue > 6e-7
    assert ks_2samp(sample, after(np.full(z.size, d - 1.0))).pvalue < 6e-7, "too few runs to see a fixed length"
