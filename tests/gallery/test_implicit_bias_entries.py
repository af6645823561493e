"""The entries on two-layer linear networks, remade in the quick form; and the wide networks that they train."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

from effdyn import gallery
from effdyn.gallery import lazy_rich, min_implicit_bias, wide_networks
from effdyn.solve.implicit_bias import BOUNDS

FIGURES = {"min-implicit-bias": {"rates", "width"}, "lazy-rich": {"lazy_rich"}}

each_entry = pytest.mark.parametrize("name", FIGURES)


@each_entry
def test_every_verdict_passes(name, made):
    passed, out = made(name)
    verdicts = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert passed, (out / "verdict.txt").read_text(encoding="utf-8")
    assert len(verdicts) == 2 and {v["status"] for v in verdicts.values()} == {"PASS"}
    for verdict in verdicts.values():
        for row in verdict["observables"]:  # a verdict is worth what it could have seen
            assert row["relative"] <= 0.2, row


@each_entry
def test_figures_are_drawn(name, check_figures):
    check_figures(name, FIGURES[name])


@each_entry
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_the_article_is_typeset(name, made):
    pdf = made(name)[1] / f"{name.replace('-', '_')}.pdf"
    assert pdf.read_bytes()[:5] == b"%PDF-" and pdf.stat().st_size > 50_000
    assert "Overfull" not in pdf.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


# ── What the figures claim ──


def test_bounds_hold_and_each_is_of_use_somewhere(made):
    rows = json.loads((made("min-implicit-bias")[1] / "bounds.json").read_text(encoding="utf-8"))
    assert len(rows) == 3 * len(BOUNDS) and all(row["holds"] for row in rows)
    rates = {(row["start"], row["bound"]): row["rate"] for row in rows}
    for start in {row["start"] for row in rows}:
        assert rates[start, "v2"] > 0.5 and rates[start, "v2"] >= rates[start, "v1"]
    assert rates["balanced, near the solution", "v1"] < 1e-9, "only the margin promises anything there"


def test_gradient_descent_follows_the_flow(made):
    for path in sorted(made("min-implicit-bias")[1].glob("loss_*.nc")):
        with xr.open_dataset(path) as loss:
            apart = abs(np.log(loss.descent / loss.flow))
            # A step of η multiplies E by 1 − ηλ, not e^(−ηλ): ln L is off by (ηλ)² a step at most, ηλ ≤ 0.01 for the
            # fastest mode; and of the slowest, which is all that is left in the end, by much less.
            steps = loss.t / loss.attrs["eta"]
            assert (apart <= 1e-4 * steps + 1e-3).all()
            assert float(loss.flow[-1]) < 1.1e-10 * float(loss.flow[0])


def test_a_rate_that_is_too_fast_is_reported(tmp_path):
    on = wide_networks.task(8, (1.2, 1.0, 0.9), (2.0, 1.0), seed=1)
    start = min_implicit_bias.near_the_solution(on, 0.05, np.random.default_rng(0))
    loss = min_implicit_bias.followed(start)
    slowed = loss.assign(flow=loss.flow**0.1 * loss.flow[0] ** 0.9)
    said = []
    assert min_implicit_bias.report_bounds({"as it is": start}, {"as it is": loss}, tmp_path, said.append)
    assert not min_implicit_bias.report_bounds({"slow": start}, {"slow": slowed}, tmp_path, said.append)
    assert any("VIOLATED" in line for line in said)


# ── The networks ──


@pytest.fixture
def on():
    return wide_networks.task(9, (1.2, 1.0, 0.9), (2.0, 0.8), seed=3)


def test_a_task_is_as_stated(on):
    np.testing.assert_allclose(np.linalg.svd(on.X, compute_uv=False), (1.2, 1.0, 0.9), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.svd(np.linalg.pinv(on.X) @ on.Y, compute_uv=False), (2.0, 0.8), rtol=1e-12)
    assert on.data.floor < 1e-25


def test_turning_hidden_units_changes_nothing(on):
    """All weights of a network, as drawn, trained on the data as given, end at the distance that is reported."""
    h, alpha, seed = 20, 0.45, 5
    measured = wide_networks.train_many(on, (h,), (alpha,), 2, seed, progress=False)
    stream = np.random.SeedSequence([seed, h, round(1e6 * alpha)]).spawn(2)[1]
    rng = np.random.default_rng(stream)
    Z, U2 = h**-alpha * rng.standard_normal((5, h)), h**-alpha * rng.standard_normal((6, h))
    U, V = on.data.seen @ Z[:3] + on.data.unseen @ U2, Z[3:]

    def rate(t, y):
        U, V = y[: 9 * h].reshape(9, h), y[9 * h :].reshape(2, h)
        pull = on.X.T @ (on.Y - on.X @ U @ V.T)
        return np.concatenate([(pull @ V).ravel(), (pull.T @ U).ravel()])

    end = solve_ivp(rate, (0, 40), np.concatenate([U.ravel(), V.ravel()]), method="DOP853", rtol=1e-10, atol=1e-12)
    U, V = end.y[: 9 * h, -1].reshape(9, h), end.y[9 * h :, -1].reshape(2, h)
    distance = np.linalg.norm(U @ V.T - np.linalg.pinv(on.X) @ on.Y)
    assert float(measured.squared_distance[1, 0, 0]) == pytest.approx(distance**2, rel=1e-6)
    assert float(measured.trace[1, 0, 0]) == pytest.approx(np.trace(V @ V.T), rel=1e-6)


def test_exact_means_are_those_of_the_networks_trained(on):
    widths, alphas = (12,), (0.3, 0.7)
    measured = wide_networks.train_many(on, widths, alphas, 4, 5, progress=False).isel(width=0)
    exact = wide_networks.exact_means(on, 12, alphas, 4, 5)
    # Trained down to ‖E‖ = 1e-8 ‖Ỹ‖.
    expected = (6 * 12 ** (-2 * measured.alpha) * measured.trace).transpose("run", "alpha")
    np.testing.assert_allclose(exact, expected, rtol=1e-6)


def test_runs_do_not_depend_on_what_else_is_run(on):
    one = wide_networks.train_many(on, (16,), (0.5,), 3, 5, progress=False)
    more = wide_networks.train_many(on, (8, 16), (0.4, 0.5), 5, 5, progress=False)
    same = more.sel(width=[16], alpha=[0.5]).isel(run=slice(3))
    np.testing.assert_allclose(same.squared_distance, one.squared_distance, rtol=1e-6)


def test_a_wrong_formula_does_not_pass(on):
    measured = wide_networks.train_many(on, (64, 512), (0.4, 0.6), 64, 5, progress=False)
    right = np.hypot(lazy_rich.scale(measured), measured.sigma)
    assert wide_networks.judged(measured.end, right, "kernel").passed
    assert wide_networks.judged(measured.end, 1.1 * right, "kernel").status == "FAIL"
    lazy = 0 * measured.sigma + lazy_rich.scale(measured)
    assert wide_networks.judged(measured.end, lazy, "kernel").status == "FAIL"


def test_networks_that_do_not_converge_are_said(on, monkeypatch):
    monkeypatch.setattr(wide_networks, "PATIENCE", 0.1)
    with pytest.raises(RuntimeError, match="not converged"):
        wide_networks.train_many(on, (16,), (0.5,), 2, 5, progress=False)


def test_ctrl_c_is_not_swallowed(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(min_implicit_bias, "train_many", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gallery.reproduce("min-implicit-bias", tmp_path, quick=True, progress=False)
    assert not (tmp_path / "verdict.json").exists()
