"""Deep linear networks that learn a hierarchy, remade in the quick form; and what their figures claim."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr

from effdyn import derive, gallery, validate
from effdyn.gallery import saxe, saxe_figures, saxe_networks

ALIGNED = ("balanced layers", "unbalanced layers", "unbalanced the other way", "three layers", "four layers")


@pytest.fixture(scope="module")
def made(once):
    """What ``reproduce`` returns, and its folder."""
    return once("saxe", lambda out: gallery.reproduce("saxe", out, quick=True, progress=False))


@pytest.fixture(scope="module")
def table():
    return saxe_networks.hierarchy()


def test_every_verdict_passes_and_sees_what_is_small(made):
    passed, out = made
    verdicts = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert passed, (out / "verdict.txt").read_text(encoding="utf-8")
    exact = {f"{name}, {how}" for name in ALIGNED for how in ("integrated", "closed form")}
    assert verdicts.keys() == exact | {"random layers, integrated"}
    for verdict in verdicts.values():
        assert verdict["status"] == "PASS" and verdict["n_comparisons"] > 100
        for row in verdict["observables"]:
            assert row["relative"] < 2e-3, "an error of 0.2 % would have been seen"


def test_figures_are_drawn(made):
    import matplotlib.image

    paths = sorted(made[1].glob("*.png"))
    assert {path.stem for path in paths} == {"modes", "stages", "depth", "random"}
    for path in paths:
        image = matplotlib.image.imread(path)[..., :3]
        assert image.shape[0] >= 400 and image.shape[1] >= 600
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50, f"{path.name} is empty"


def test_equations_are_exported(made):
    text = (made[1] / "saxe.tex").read_text(encoding="utf-8")
    assert "<" not in text.split(r"\begin{document}")[1].replace(" <", ""), "a place for equations was left"
    for stem, network, reduction in (
        ("two_layer_modes", 2, "modes"),
        ("two_layer_strengths", 2, "strengths"),
        ("three_layer_strengths", 3, "strengths"),
        ("two_layer_gram", 2, "gram"),
    ):
        dynamics = derive.LinearNetwork(network, inputs="whitened").dynamics(reduction)
        read = derive.dynamics_from_json((made[1] / f"{stem}.json").read_text(encoding="utf-8"))
        assert read == dynamics
        assert dynamics.latex() in text
        assert r"\documentclass" in (made[1] / f"{stem}.tex").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_the_article_is_typeset(made):
    pdf = made[1] / "saxe.pdf"
    assert pdf.read_bytes()[:5] == b"%PDF-" and pdf.stat().st_size > 50_000
    assert "Overfull" not in pdf.with_suffix(".log").read_text(encoding="utf-8", errors="replace")


# ── What the figures claim ──


def test_stages_follow_the_order_of_the_modes(made, table):
    c = np.linalg.svd(table, compute_uv=False)
    assert (c[:-1] - c[1:] > 0.4).all(), "no two modes are equally strong"
    with xr.open_dataset(made[1] / "balanced_layers.nc") as run:
        finest = run.sel(eta=run.eta.min()).isel(run=0).load()
    when = saxe_figures.half_times(finest, c)
    expected = [saxe_networks.half_learning_time(2, strength, saxe_networks.START) for strength in c]
    assert (np.diff(when) > 0.4).all()
    # A step multiplies a small mode by (1 + ηc)², not e^(2ηc): times are longer by a part ηc/2; and a chord of the
    # sigmoid over the 0.1 between times is off by less than 0.1²·c/4.
    assert (abs(when / expected - 1) < 2 * 0.0025 * c / 2 + 0.0025 * c / when).all()


@pytest.mark.parametrize("depth", [3, 4])
def test_times_to_escape_are_those_of_the_implicit_form_and_of_the_power(depth):
    exact = [saxe_networks.half_learning_time(depth, 1.3, start) for start in (1e-3, 1e-6, 1e-9)]
    ratio = np.array(exact) / [saxe_networks.escape_time(depth, 1.3, start) for start in (1e-3, 1e-6, 1e-9)]
    gap = abs(1 - ratio)
    assert (gap[1:] < gap[:-1]).all() and gap[-1] < 2e-3
    found = saxe_figures.measured_escape(depth, 1e-3)
    assert found == pytest.approx(saxe_networks.half_learning_time(depth, 1.0, 1e-3), rel=2 * saxe_figures.STEP)


@pytest.mark.parametrize("lam", [0.8, -0.8, 0.0])
def test_amplitudes_have_the_product_and_the_imbalance(lam):
    first, second = saxe_networks.imbalanced(0.01, np.array([lam]))
    assert first * second == pytest.approx(0.01, rel=1e-12)
    assert second**2 - first**2 == pytest.approx(lam, rel=1e-12)


def test_layers_are_aligned_and_random_ones_are_not(table):
    for case in saxe_networks.aligned_cases(table).values():
        assert case.inputs[0]["s"].shape == (4,), "reduced_inputs tests alignment and raises"
    network = saxe_networks.random_case(table, 0.1, 1)
    with pytest.raises(derive.ModelError, match="aligned"):
        saxe_networks.Case(network.network, "strengths", network.weights, table).integrate([0, 1])


def test_alignment_error_falls_with_the_initial_scale_as_a_power(table):
    """The powers are those of the modes that are closest: animals–plants and bird–fish, c_3/c_2 = 0.763."""
    found = saxe.alignment_errors(table, (1e-3, 1e-5), 12)
    assert float(found.own.mean()) > 0.05, "from the start of each mode by itself delays remain"
    c = np.linalg.svd(table, compute_uv=False)
    power = 1 - c[2] / c[1]
    per_draw = np.log(found.sel(scale=1e-3) / found.sel(scale=1e-5)) / np.log(100)
    for name, expected, allowed in (("misalignment", power, 0.08), ("orthogonal", 2 * power, 0.1)):
        mean = float(per_draw[name].mean())
        error = float(per_draw[name].std(ddof=1) / np.sqrt(12))
        # Corrections to the leading power are themselves powers of the scale: up to a third of it at 1e-3.
        assert abs(mean - expected) < 5 * error + allowed, (name, mean, error)
        assert mean > 5 * error, "it falls"
    assert abs(float(per_draw.own.mean())) < 0.02, "and those from own starts do not"


def test_a_wrong_theory_does_not_pass(table):
    case = saxe_networks.aligned_cases(table)["balanced layers"]
    simulation = case.descend(list(saxe.QUICK.steps), np.linspace(0, 4, 21))
    right = saxe.judged(case, simulation)["closed form"]
    theory = case.closed(simulation.t)[["s"]]
    assert right.passed
    assert validate.compare(theory * 1.002, simulation).status == "FAIL"
    # The closed form of unbalanced layers for balanced ones: λ = 0.01 instead of 0.
    y0, params = case.inputs
    states = saxe_networks.strengths(2, simulation.t.values, y0, params | {"lam": np.full(4, 0.01)})
    assert validate.compare(theory.assign(s=theory.s.copy(data=states["s"])), simulation).status == "FAIL"


def test_ctrl_c_ends_it_and_nothing_half_done_is_judged(tmp_path, monkeypatch):
    whole = validate.simulate

    def interrupted(*args, **kwargs):
        result = whole(*args, **kwargs)
        result.attrs["status"] = "interrupted"
        return result

    monkeypatch.setattr(validate, "simulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gallery.reproduce("saxe", tmp_path, quick=True, progress=False)
    assert not (tmp_path / "verdict.json").exists()
