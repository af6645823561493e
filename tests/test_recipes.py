"""The recipes of docs/architecture.md, walked as a stranger would: one entry in one table, and everything else follows.

Each test adds an entry as an edit of the table would, and then uses only what users use. A recipe that needed a second
edit somewhere would fail here.
"""

import itertools
import json
import sys
import types

import numpy as np
import pytest
import sympy
from typer.testing import CliRunner

from effdyn import derive, gallery, solve, validate
from effdyn.derive import limits
from effdyn.derive.activation import NAMED, X
from effdyn.derive.gaussian import cached_forms, closed_forms
from effdyn.derive.gaussian.integrand import Integrand
from effdyn.derive.increments import D
from effdyn.gallery.cli import app

teacher_student = sys.modules["effdyn.derive.teacher_student"]
ONE = dict(Q=[[0.5]], R=[[0.3]])


@pytest.fixture(autouse=True)
def derived_afresh(monkeypatch):
    """What was derived before an entry was there, or with it, must not be remembered, on disk neither."""
    monkeypatch.setattr(cached_forms, "_folder", lambda: None)

    def forget():
        for cached in (closed_forms._reduce, closed_forms.closed_form, teacher_student._derive):
            cached.cache_clear()

    forget()
    yield
    forget()


def compared(model, y0, params, t_end=3.0):
    """Derive, solve, simulate, compare."""
    times = np.linspace(0, t_end, 7)
    simulation = validate.simulate(
        model, 10_000, 32, (0, t_end), y0=y0, params=params, t_eval=times, rng=1, progress=False
    )
    theory = solve.integrate(model.dynamics(), (0, t_end), y0, params, t_eval=simulation.t.values)
    return validate.compare(theory, simulation)


# ── An activation: a line in derive.activation.NAMED ──


# "steep" is of a class the rules know (erf), added to one they know (polynomials).
@pytest.mark.parametrize(
    ("name", "formula", "start", "eta"),
    [
        ("cubic", X**3 / 3, dict(Q=[[0.5]], R=[[0.6]]), 0.05),
        ("steep", sympy.erf(X) + X / 2, ONE, 0.3),
    ],
)
def test_an_activation_is_one_entry(name, formula, start, eta, monkeypatch, tmp_path):
    monkeypatch.setitem(NAMED, name, formula)

    model = derive.TeacherStudent(activation=name)
    verdict = compared(model, start, dict(eta=eta, sigma=0.1, T=[[1.0]], a=1.0, b=1.0))
    assert verdict.passed, verdict

    assert repr(model) == f"TeacherStudent(activation={name!r})"
    assert derive.TeacherStudent(activation=formula) == model, "a formula is recognised by its name"
    for ending in (".tex", ".py", ".json"):
        assert model.dynamics().write(tmp_path / f"model{ending}").stat().st_size > 1000
    shown = CliRunner().invoke(app, ["derive", "teacher-student", "--activation", name])
    assert shown.exit_code == 0 and name in shown.output


# ── A class of functions: a rule in derive.closed_forms.RULES, here as if those of waves were not there ──


def fourier(integrand: Integrand) -> sympy.Expr | None:
    """Products of cos(k h) and sin(k h): E[exp(i k·h)] = exp(−½ kᵀ C k), over all signs of the exponentials."""
    waves = [(a, f.func, sympy.expand(f.args[0] / X)) for a, f in integrand.factors if f.func in (sympy.cos, sympy.sin)]
    if len(waves) < len(integrand.factors) or any(k.has(X) for _, _, k in waves):
        return None
    total = sympy.S.Zero
    for signs in itertools.product((1, -1), repeat=len(waves)):
        weight = sympy.Mul(*(1 if f is sympy.cos else -s * sympy.I for s, (_, f, _) in zip(signs, waves, strict=True)))
        k = [(a, s * k) for s, (a, _, k) in zip(signs, waves, strict=True)]
        total += weight * sympy.exp(-sum(p * q * integrand.C[a][b] for a, p in k for b, q in k) / 2)
    return sympy.expand(total) / 2 ** len(waves)


def by_cubature(functions, C):
    """The expectation by a tensor product of Gauss–Hermite rules; 40 points are exact to rounding for these."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    n = len(functions)
    z = np.stack(np.meshgrid(*[nodes] * n, indexing="ij"))
    w = np.prod(np.stack(np.meshgrid(*[weights / weights.sum()] * n, indexing="ij")), axis=0)
    h = np.tensordot(np.linalg.cholesky(C), z, axes=1)
    values = [sympy.lambdify(X, f, "numpy")(field) for f, field in zip(functions, h, strict=True)]
    return float((w * np.prod(np.stack(values), axis=0)).sum())


@pytest.fixture
def without_waves(monkeypatch):
    of_waves = ("product_to_sum", "signed_polynomials")
    monkeypatch.setattr(closed_forms, "RULES", tuple(r for r in closed_forms.RULES if r.__name__ not in of_waves))


@pytest.fixture
def with_fourier(without_waves, monkeypatch):
    monkeypatch.setattr(closed_forms, "RULES", (*closed_forms.RULES, fourier))


def test_without_the_rule_there_is_an_error_that_names_the_moment(without_waves):
    with pytest.raises(derive.NoClosedForm, match=r"E\[cos\(h1\) sin\(h2\)"):
        derive.closed_form((sympy.Lambda(X, sympy.cos(X)), sympy.Lambda(X, sympy.sin(X)), sympy.Lambda(X, X)))


@pytest.mark.parametrize(
    "functions",
    [
        (sympy.cos(X), sympy.cos(2 * X)),
        (sympy.sin(X), sympy.sin(X), sympy.cos(X / 2)),
        (X**2, sympy.cos(X), sympy.cos(X)),  # with rules that were there
        (sympy.sin(X), X, sympy.exp(-(X**2) / 2)),
    ],
    ids=str,
)
def test_a_rule_is_one_entry(functions, with_fourier, rng):
    form, entries = derive.closed_form(tuple(sympy.Lambda(X, f) for f in functions))
    for _ in range(3):
        factor = rng.standard_normal((len(functions), 2 * len(functions))) / np.sqrt(2 * len(functions))
        C = factor @ factor.T
        value = float(form.subs({symbol: C[a, b] for (a, b), symbol in entries.items()}))
        np.testing.assert_allclose(value, by_cubature(functions, C), rtol=0, atol=1e-12)  # rounding, 40³ terms


def test_a_model_may_use_the_new_rule(with_fourier):
    model = derive.TeacherStudent(activation="cos(x)")
    verdict = compared(model, ONE, dict(eta=0.5, sigma=0.1, T=[[1.0]], a=1.0, b=1.0))
    assert verdict.passed, verdict


# ── A limit: an entry in derive.limits.LIMITS ──

FROZEN = limits.Limit(
    name="frozen-second-layer",
    clock="steps/d",
    scaling=(),
    rate=sympy.S.One,
    vanishing=((1 / D, "1/d"), (limits.ETA_A, "eta_a")),
    assumption="d → ∞, then η_a → 0 at fixed time t = steps/d: the second layer stands still",
)
RATIO = sympy.Symbol("eta_over_eta_a", nonnegative=True)
OTHER_CLOCK = limits.Limit(
    name="second-layer-clock",
    clock="eta_a*steps/d",
    scaling=((limits.ETA, limits.ETA_A * RATIO),),
    rate=1 / limits.ETA_A,
    vanishing=((1 / D, "1/d"), (limits.ETA_A, "eta_a")),
    assumption="d → ∞, then η_a → 0 at fixed time t = η_a·steps/d and fixed ratio η/η_a",
)
START = dict(Q=[[0.4, 0.0], [0.0, 0.5]], R=[[0.3, 0.05], [0.05, 0.35]])
SECOND = [0.5, 0.8]
TIMES = np.linspace(0, 3, 7)


def test_a_limit_is_one_entry(monkeypatch, tmp_path):
    monkeypatch.setitem(limits.LIMITS, FROZEN.name, FROZEN)
    frozen = derive.TeacherStudent(second_layer="trained").dynamics(limit=FROZEN.name)
    fixed = derive.TeacherStudent().dynamics()

    params = dict(eta=0.7, sigma=0.1, T=np.eye(2), b=1.0)
    here = solve.integrate(frozen, (0, 3), START | dict(a=SECOND), params, t_eval=TIMES)
    there = solve.integrate(fixed, (0, 3), START, params | dict(a=SECOND), t_eval=TIMES)
    assert (here.a == SECOND).all()
    for name in ("Q", "R", "eg"):  # two integrations at rtol = 1e-10, of which one also carries the constant a
        np.testing.assert_allclose(here[name], there[name], rtol=0, atol=1e-8)
    assert frozen.article(tmp_path / "frozen.tex").stat().st_size > 1000
    assert any("eta_a" in dropped.order for dropped in frozen.dropped), "what was dropped is on record"


def test_a_limit_may_bring_its_own_clock(monkeypatch):
    monkeypatch.setitem(limits.LIMITS, OTHER_CLOCK.name, OTHER_CLOCK)
    trained = derive.TeacherStudent(second_layer="trained")
    slow, flow = trained.dynamics(limit=OTHER_CLOCK.name), trained.dynamics(limit="gradient-flow")
    assert slow.clock == "eta_a*steps/d"
    assert [q.name for q in slow.parameters] == ["eta_over_eta_a", "sigma", "T", "b"]

    # At eta_a = eta/2 its time runs at half the speed of gradient flow's.
    params, y0 = dict(sigma=0.0, T=np.eye(2), b=1.0), START | dict(a=SECOND)
    here = solve.integrate(slow, (0, 1.5), y0, params | dict(eta_over_eta_a=2.0), t_eval=TIMES / 2)
    there = solve.integrate(flow, (0, 3), y0, params | dict(eta_a_over_eta=0.5), t_eval=TIMES)
    for name in ("Q", "R", "a", "eg"):
        np.testing.assert_allclose(here[name], there[name], rtol=0, atol=1e-8)
    assert here.attrs["clock"] == slow.clock


# ── A published result: an entry in gallery.ENTRIES, and its module ──


@pytest.mark.parametrize("passes", [True, False])
def test_a_gallery_entry_is_one_entry(passes, monkeypatch, tmp_path):
    def reproduce(out, quick, progress):
        (out / "verdict.json").write_text(json.dumps({"quick": quick, "progress": progress}))
        return passes

    module = types.ModuleType("effdyn.gallery.someone_2030")
    module.reproduce = reproduce
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = gallery.Entry("someone-2030", "someone_2030", "Someone, J. Results 1, 1 (2030)", "a curve")
    monkeypatch.setitem(gallery.ENTRIES, entry.name, entry)

    assert gallery.reproduce(entry.name, tmp_path / "out", quick=True, progress=False) is passes
    assert json.loads((tmp_path / "out" / "verdict.json").read_text()) == {"quick": True, "progress": False}
    listed = CliRunner().invoke(app, ["reproduce", "--list"])
    assert entry.name in listed.output and entry.source in listed.output
    ran = CliRunner().invoke(app, ["reproduce", entry.name, "--quick", "--out", str(tmp_path / "cli")])
    assert ran.exit_code == (0 if passes else 1)
    assert (tmp_path / "cli" / "verdict.json").exists()
