"""Configuration files: what they say is what is called, and each mistake is named by its key."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from effdyn import derive, validate
from effdyn.gallery import cli, config
from effdyn.gallery.config import KEYS, SIMULATE, SWEEP, read_config
from effdyn.solve.sweeps.sweep import sweep

SWEEP_TOML = """
t_span = [0, 4]
t_eval = {linspace = [0, 4, 5]}
rtol = 1e-9
store = "eta.zarr"
threads = 2
model = {name = "TeacherStudent", activation = "linear"}

[over]
eta = {geomspace = [0.25, 1.0, 3]}
sigma = [0.0, 0.1]

[y0]
Q = {diag = [0.5, 0.25]}
R = [[0.1], [0.2]]

[params]
T = {identity = 1}
a = 1
b = 0.5
"""
SIMULATE_TOML = """
model = "TeacherStudent"
t_span = [0, 2]
t_eval = [0, 1, 2]
d = 50
runs = 3
rng = 7
engine = "gram"
out = "runs.nc"
[y0]
Q = [[0.3]]
R = [[0.1]]
[params]
eta = 0.5
sigma = 0
T = [[1]]
a = 1
b = 1
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A function that writes a file into an empty folder, where commands are run."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = Path("asked.toml")
        path.write_text(text, encoding="utf-8")
        return path

    return write


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)


def refusal(monkeypatch, capsys, *arguments):
    """What a refused command prints, through the entry point itself."""
    monkeypatch.setattr(sys, "argv", ["effdyn", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    assert stopped.value.code == 2 and not printed.out and "Traceback" not in printed.err
    return printed.err


# ── What is read ──


def test_a_sweep_is_read_as_it_would_be_called(file):
    read = read_config(file(SWEEP_TOML), SWEEP)
    assert read.model == derive.TeacherStudent(activation="linear")
    assert read.dynamics() == read.model.dynamics()
    assert read.store == Path("eta.zarr") and read.out is None
    given = read.arguments
    assert given["t_span"] == (0, 4) and given["rtol"] == 1e-9 and given["threads"] == 2
    np.testing.assert_allclose(given["over"]["eta"], [0.25, 0.5, 1.0], rtol=1e-15)
    np.testing.assert_array_equal(given["y0"]["Q"], [[0.5, 0.0], [0.0, 0.25]])
    np.testing.assert_array_equal(given["params"]["T"], [[1.0]])
    assert given["params"]["b"] == 0.5 and given["params"]["b"].shape == ()


def test_a_simulation_is_read_as_it_would_be_called(file):
    read = read_config(file(SIMULATE_TOML), SIMULATE)
    assert read.model == derive.TeacherStudent() and read.out == Path("runs.nc")
    assert {"d": 50, "runs": 3, "rng": 7, "engine": "gram"}.items() <= read.arguments.items()


def test_every_argument_of_sweep_and_simulate_has_a_key():
    import inspect

    own = {name for name, key in KEYS.items() if SWEEP in key.commands}
    assert set(inspect.signature(sweep).parameters) - {"dynamics", "executor", "progress"} <= own
    own = {name for name, key in KEYS.items() if SIMULATE in key.commands}
    # `store` of simulate is about runs or moments: a file holds the runs
    assert set(inspect.signature(validate.simulate).parameters) - {"executor", "progress", "store"} <= own


def test_every_key_is_documented():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "sweeps.md"
    if not page.exists():
        pytest.skip("the documentation is not here")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == {name: ", ".join(key.commands) for name, key in KEYS.items()}


def test_the_files_in_the_documentation_are_read(file):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "sweeps.md"
    if not page.exists():
        pytest.skip("the documentation is not here")
    sweep_text, simulate_text = re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    read = read_config(file(sweep_text), SWEEP)
    found = sweep(read.dynamics(), **read.arguments | {"t_span": (0, 1), "t_eval": [0, 1]}, progress=False)
    assert found.sizes["eta"] == 21 and (found.status == "success").all()
    read = read_config(file(simulate_text), SIMULATE)
    found = validate.simulate(read.model, **read.arguments | {"t_span": (0, 1), "runs": 1}, progress=False)
    assert found.sizes["d"] == 2


def test_stochastic_equations_are_swept(file):
    text = changed(SWEEP_TOML.replace("linear", "erf"), "rtol = 1e-9", "sde = true\ndt = 0.05\nruns = 3\nrng = 7")
    read = read_config(file(text.replace("[params]\n", "[params]\nd = 1000\n")), SWEEP)
    assert read.dynamics() == read.model.dynamics().sde()
    found = sweep(read.dynamics(), **read.arguments, progress=False)
    assert dict(found.sizes) == {"eta": 3, "sigma": 2, "run": 3, "t": 5, "student": 2, "student_2": 2, "teacher": 1}
    assert (found.status == "success").all() and (found.eg.isel(t=-1).std("run") > 0).all()


def test_models_without_limit_or_engine(file):
    text = 'model = {name = "LinearNetwork", depth = 2}\nreduction = "full"\nt_span = [0, 1]\n[over]\neta = [1.0]\n'
    read = read_config(file(text), SWEEP)
    assert read.dynamics() == derive.LinearNetwork(depth=2).dynamics("full")
    text = (
        'model = "LinearRegression"\nt_span = [0, 1]\nd = 40\nruns = 2\n[y0]\nc = 1.0\n[params]\neta = 0.5\nsigma = 0\n'
    )
    assert invoke("simulate", str(file(text)), "--quiet").exit_code == 0
    with xr.open_dataset("asked.nc") as found:  # its name by default
        assert found.sizes["run"] == 2


# ── What is refused ──


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("rtol = 1e-9", "rtoll = 1e-9", ["rtoll", "did you mean 'rtol'"]),
        ("rtol = 1e-9", 'rtol = "small"', ["rtol = 'small'", "a number"]),
        ("rtol = 1e-9", "rtol = true", ["rtol", "a number"]),
        ("rtol = 1e-9", "rtol = 1e-30", ["rtol", "at least"]),
        ("rtol = 1e-9", 'engine = "gram"', ["engine", "effdyn simulate"]),
        ("rtol = 1e-9", "runs = 3", ["runs", "'ode'", "no noise"]),
        ("rtol = 1e-9", "sde = 1", ["sde", "true or false"]),
        ("rtol = 1e-9", "limit = 'mean-feild'", ["limit", "high-dimensional"]),
        ("rtol = 1e-9", "reduction = 'full'", ["reduction", "TeacherStudent"]),
        ("rtol = 1e-9", "method = 'DOP835'", ["method", "DOP853"]),
        ("rtol = 1e-9", "rtol = ", ["asked.toml", "line 4"]),
        ("threads = 2", "threads = 2.5", ["threads", "whole number"]),
        ("threads = 2", "threads = 0", ["threads", "at least 1"]),
        ("t_span = [0, 4]", "", ["t_span", "required"]),
        ("t_span = [0, 4]", "t_span = [0, 1, 2]", ["t_span", "[from, to]"]),
        ("t_span = [0, 4]", "t_span = [0, 2]", ["t_eval", "t_span"]),
        ("store = ", "store = 3 #", ["store", "text"]),
        ("TeacherStudent", "TeacherStudant", ["model.name", "did you mean 'TeacherStudent'"]),
        ("activation =", "activations =", ["model.activations", "did you mean 'activation'"]),
        ('"linear"', '"linaer"', ["activation", "did you mean 'linear'"]),
        ('{name = "TeacherStudent", activation = "linear"}', "3", ["model", "TeacherStudent"]),
        ("geomspace", "geomspce", ["over.eta", "did you mean 'geomspace'"]),
        ("[0.25, 1.0, 3]", "[0.25, 1.0]", ["over.eta.geomspace", "[first, last, count]"]),
        ("[0.25, 1.0, 3]", "[0.0, 1.0, 3]", ["over.eta.geomspace", "not 0"]),
        ("[0.25, 1.0, 3]", "[0.25, 1.0, 2.5]", ["over.eta.geomspace", "count"]),
        ("{geomspace = [0.25, 1.0, 3]}", "[1.0, -1.0]", ["over['eta'][1]", "at least 0"]),
        ("sigma = [0.0, 0.1]", "sigma = 0.1", ["over['sigma']", "list of numbers"]),
        ("sigma = [0.0, 0.1]", 'sigma = ["a"]', ["over.sigma[0]", "a number"]),
        ("sigma = [0.0, 0.1]", "", ["params", "sigma"]),
        ("sigma = [0.0, 0.1]", "sigmas = [0.1]", ["over['sigmas']", "did you mean 'sigma'"]),
        ("R = [[0.1], [0.2]]", "R = [[0.1], [0.2, 0.3]]", ["y0.R", "equal length"]),
        ("R = [[0.1], [0.2]]", "R = [[0.1]]", ["y0['", "K"]),
        ("R = [[0.1], [0.2]]", "R = [[9.0], [9.0]]", ["y0", "eigenvalue"]),
        ("identity = 1", "identity = 0", ["params.T.identity", "size"]),
        ("b = 0.5", "", ["params", "missing 'b'"]),
        ("b = 0.5", "b = 0.5\nkappa = 1", ["params['kappa']"]),
        ("[params]", "[parms]", ["parms", "did you mean 'params'"]),
    ],
)
def test_mistakes_in_a_sweep_are_named(old, new, named, file, monkeypatch, capsys):
    message = refusal(monkeypatch, capsys, "sweep", str(file(changed(SWEEP_TOML, old, new))), "--quiet")
    for part in named:
        assert part in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("d = 50", "d = 5.5", ["d = 5.5", "whole number"]),
        ("d = 50", "d = 0", ["d = 0"]),
        ("engine =", "engin =", ["engin ", "did you mean 'engine'"]),
        ('"gram"', '"grem"', ["engine", "did you mean 'gram'"]),
        ("runs = 3", "rtol = 1e-3", ["rtol", "effdyn sweep"]),
        ("runs = 3", "eta = 1e-3", ["eta", "TeacherStudent"]),
        ('"runs.nc"', '"nowhere/runs.nc"', ["out", "nowhere"]),
        ("sigma = 0\n", "", ["params", "missing 'sigma'"]),
    ],
)
def test_mistakes_in_a_simulation_are_named(old, new, named, file, monkeypatch, capsys):
    message = refusal(monkeypatch, capsys, "simulate", str(file(changed(SIMULATE_TOML, old, new))), "--quiet")
    for part in named:
        assert part in message


def test_a_file_that_is_not_there_is_one_message(file, monkeypatch, capsys):
    assert "missing.toml" in refusal(monkeypatch, capsys, "sweep", "missing.toml")


# ── The commands ──


def test_effdyn_sweep_computes_resumes_and_writes(file, monkeypatch, capsys):
    path = str(file(SWEEP_TOML))
    first = invoke("sweep", path, "--quiet")
    assert first.exit_code == 0 and first.stdout == "6 cells in eta.zarr: 6 success\n"
    assert "--resume" in refusal(monkeypatch, capsys, "sweep", path, "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["effdyn.solve.sweeps.sweep"], "solve_cell", None)  # nothing is computed again
        second = invoke("sweep", path, "--resume", "--out", "all.nc", "--quiet")
    assert second.exit_code == 0
    read = read_config(Path(path), SWEEP)
    alone = sweep(read.dynamics(), **read.arguments, progress=False)
    with xr.open_dataset("all.nc") as written:
        xr.testing.assert_identical(written.load(), alone)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("sigma = [0.0, 0.1]", "sigma = [-1.0]", "over['sigma'][0]"),
        ("rtol = 1e-9", "method = 'DOP835'", "did you mean 'DOP853'"),
        ("threads = 2", "threads = 0", "threads = 0"),
    ],
)
def test_a_mistake_in_the_file_is_said_before_a_store_that_exists(old, new, named, file, monkeypatch, capsys):
    Path("eta.zarr").mkdir()
    message = refusal(monkeypatch, capsys, "sweep", str(file(changed(SWEEP_TOML, old, new))), "--quiet")
    assert named in message and "--resume" not in message


def test_effdyn_sweep_says_which_cells_failed(file):
    text = changed(SWEEP_TOML, "{geomspace = [0.25, 1.0, 3]}", "[0.5, 9.0]")
    text = changed(changed(text, "t_span = [0, 4]", "t_span = [0, 40]"), "[0, 4, 5]", "[0, 40, 5]")
    text = changed(text, "[0.0, 0.1]", "[0.1, 0.2]")  # with noise eg stays far from 0
    run = invoke("sweep", str(file(text)), "--quiet")
    assert run.exit_code == 0 and run.stdout == "4 cells in eta.zarr: 2 success, 2 diverged\n"


def test_effdyn_sweep_refuses_the_store_of_another_one(file, monkeypatch, capsys):
    assert invoke("sweep", str(file(SWEEP_TOML)), "--quiet").exit_code == 0
    other = str(file(changed(SWEEP_TOML, "b = 0.5", "b = 0.6")))
    message = refusal(monkeypatch, capsys, "sweep", other, "--resume", "--quiet")
    assert "params['b']: 0.5 in the store, 0.6 here" in message


def test_effdyn_sweep_is_interrupted_and_resumed(file, monkeypatch):
    path = str(file(SWEEP_TOML))
    storing, sweeping = sys.modules["effdyn.solve.sweeps.store"], sys.modules["effdyn.solve.sweeps.sweep"]
    add = storing.ZarrStore.add

    def interrupt(self, index, outcome):
        add(self, index, outcome)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storing.ZarrStore, "add", interrupt)
        patch.setattr(sweeping, "WINDOW", 1)
        run = invoke("sweep", path, "--quiet", "--out", "all.nc")
    assert run.exit_code == 130 and "5 pending, 1 success" in run.stdout and "--resume" in run.stderr
    assert not Path("all.nc").exists(), "a part is not written as if it were all"
    run = invoke("sweep", path, "--quiet", "--resume")
    assert run.exit_code == 0 and "6 success" in run.stdout


def test_effdyn_simulate_writes_what_simulate_gives(file):
    run = invoke("simulate", str(file(SIMULATE_TOML)), "--quiet")
    assert run.exit_code == 0 and "runs.nc" in run.stdout
    alone = validate.simulate(
        derive.TeacherStudent(), 50, 3, (0, 2), y0=dict(Q=[[0.3]], R=[[0.1]]), t_eval=[0, 1, 2], rng=7,
        params=dict(eta=0.5, sigma=0.0, T=[[1.0]], a=1.0, b=1.0), progress=False,
    )  # fmt: skip
    with xr.open_dataset("runs.nc") as written:
        xr.testing.assert_identical(written.load(), alone)


def test_effdyn_simulate_takes_its_inputs_and_keeps_its_replicas(file):
    text = 'engine = "network"\ninputs = "rademacher"\norientation = "axes"\ncheckpoint = "runs"\n'
    text = changed(SIMULATE_TOML, 'engine = "gram"\n', text)
    assert invoke("simulate", str(file(text)), "--quiet").exit_code == 0 and Path("runs").is_dir()
    read = read_config(file(text), SIMULATE)
    alone = validate.simulate(read.model, **{**read.arguments, "checkpoint": None}, progress=False)
    with xr.open_dataset("runs.nc") as written:
        np.testing.assert_array_equal(written.Q, alone.Q)


def test_effdyn_simulate_that_diverges_ends_with_1(file):
    text = changed(SIMULATE_TOML, '"TeacherStudent"', '{name = "TeacherStudent", activation = "linear"}')
    text = changed(changed(text, "t_span = [0, 2]", "t_span = [0, 400]"), "[0, 1, 2]", "[0, 400]")
    text = changed(text, "eta = 0.5", "eta = 50")
    run = invoke("simulate", str(file(text)), "--quiet")
    assert run.exit_code == 1 and "diverged" in run.stderr
    assert not Path("runs.nc").exists()


@pytest.mark.parametrize("command", ["sweep", "simulate"])
def test_help_names_the_options(command):
    printed = invoke(command, "--help").stdout
    for part in ("--out", "--quiet", *(["--resume"] if command == "sweep" else [])):
        assert part in printed


def test_generators_have_their_form_in_messages():
    assert config._ACCEPTED.keys() == config.GENERATORS.keys()
