"""The command line: it prints what the library gives; a mistake is one message and exit status 2, never a traceback."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from typer.testing import CliRunner

from effdyn import derive, gallery
from effdyn.gallery import cli

GENERAL = derive.TeacherStudent(
    activation="erf", teacher_activation="He3", second_layer="trained", output_scale="1/sqrt(K)", weight_decay=True
)
GENERAL_OPTIONS = (
    "--activation erf --teacher-activation He3 --second-layer trained --output-scale 1/sqrt(K) --weight-decay"
)
MODELS = {
    "": (derive.TeacherStudent(), "high-dimensional"),
    "--activation x**3/3+x": (derive.TeacherStudent(activation="x**3/3+x"), "high-dimensional"),
    GENERAL_OPTIONS: (GENERAL, "high-dimensional"),
    f"{GENERAL_OPTIONS} --limit gradient-flow": (GENERAL, "gradient-flow"),
    "--activation linear --loss logistic --labels sign": (
        derive.TeacherStudent(activation="linear", loss="logistic", labels="sign"),
        "high-dimensional",
    ),
    "--activation He3 --target h1*h2*h3": (
        derive.TeacherStudent(activation="He3", target="h1*h2*h3"),
        "high-dimensional",
    ),
    "--activation relu --biases": (derive.TeacherStudent(activation="relu", biases=True), "high-dimensional"),
}
each_model = pytest.mark.parametrize("options", MODELS)


def output(arguments):
    """What a command that succeeds prints."""
    run = CliRunner().invoke(cli.app, arguments.split(), catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return run.stdout


def refusal(arguments, monkeypatch, capsys):
    """What a command that is refused prints, through the entry point itself."""
    monkeypatch.setenv("COLUMNS", "200")  # so that nothing is broken across lines
    monkeypatch.setattr(sys, "argv", ["effdyn", *arguments.split()])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert not printed.out and "Traceback" not in printed.err
    return printed.err


# ── derive ──


@each_model
def test_text_is_how_the_dynamics_print(options):
    model, limit = MODELS[options]
    assert output(f"derive teacher-student {options}").strip() == str(model.dynamics(limit=limit))


@each_model
def test_latex_is_the_dynamics_in_latex(options):
    model, limit = MODELS[options]
    text = output(f"derive teacher-student {options} --format latex")
    assert text.strip() == model.dynamics(limit=limit).latex().strip()


@each_model
def test_python_runs_and_is_the_file_that_write_gives(options, tmp_path):
    model, limit = MODELS[options]
    text = output(f"derive teacher-student {options} --format python")
    assert text.strip() == model.dynamics(limit=limit).write(tmp_path / "m.py").read_text(encoding="utf-8").strip()
    namespace = {"__name__": "printed"}
    exec(compile(text, "printed.py", "exec"), namespace)
    assert any(callable(value) for value in namespace.values())


@each_model
def test_json_is_read_back_as_the_same_dynamics(options):
    model, limit = MODELS[options]
    text = output(f"derive teacher-student {options} --format json")
    assert derive.dynamics_from_json(text) == model.dynamics(limit=limit)


def test_moments_are_computed_as_asked():
    model = derive.TeacherStudent(activation="erf")
    printed = output("derive teacher-student --moments numeric")
    assert printed.strip() == str(model.dynamics(moments="numeric")) != str(model.dynamics())


@pytest.mark.parametrize("form", ["text", "latex"])
def test_expand_writes_out_for_sizes(form):
    expanded = derive.TeacherStudent().dynamics().expand(K=2, M=1)
    expected = expanded.latex() if form == "latex" else str(expanded)
    assert output(f"derive teacher-student --expand K=2,M=1 --format {form}").strip() == expected.strip()


def test_output_goes_to_a_file_and_nowhere_else(tmp_path):
    path = tmp_path / "equations.tex"
    assert output(f"derive teacher-student --format latex --output {path}") == ""
    assert path.read_text(encoding="utf-8").strip() == derive.TeacherStudent().dynamics().latex().strip()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--activation tanh --moments closed", ["tanh", "no closed form", "erf(h/√2)"]),
        ("--loss hinje --labels sign", ["loss", "'hinje'", "did you mean 'hinge'"]),
        ("--loss hinge", ["loss", "labels='sign'"]),
        ("--labels sing", ["sing", "sign", "logistic"]),
        ("--target h1*g2", ["target", "g2"]),
        ("--activation x+y", ["activation", "x + y", "one variable"]),
        ("--activation efr", ["activation", "'efr'", "did you mean 'erf'"]),
        ("--teacher-activation nonsense(", ["teacher_activation"]),
        ("--output-scale 1/M", ["output_scale"]),
        ("--second-layer frozen", ["frozen", "fixed"]),
        ("--limit mean-feild", ["mean-feild", "high-dimensional"]),
        ("--expand K=2", ["M is missing"]),
        ("--expand two", ["--expand", "K=2,M=1"]),
        ("--expand K=0,M=1", ["K", "0", "positive whole number"]),
        ("--expand K=2,M=1 --format json", ["--expand"]),
        ("--format markdown", ["markdown"]),
    ],
)
def test_mistakes_are_one_message(arguments, named, monkeypatch, capsys):
    message = refusal(f"derive teacher-student {arguments}", monkeypatch, capsys)
    for part in named:
        assert part in message


def test_an_unknown_model_is_refused(monkeypatch, capsys):
    assert "perceptron" in refusal("derive perceptron", monkeypatch, capsys)


def test_a_file_that_cannot_be_written_is_one_message(tmp_path, monkeypatch, capsys):
    path = tmp_path / "missing" / "equations.tex"
    assert str(path) in refusal(f"derive teacher-student --output {path}", monkeypatch, capsys)


# ── reproduce ──


@pytest.mark.parametrize("arguments", ["reproduce --list", "reproduce"])
def test_entries_are_listed(arguments):
    printed = output(arguments)
    for entry in gallery.ENTRIES.values():
        assert entry.name in printed and entry.source in printed


def test_an_unknown_entry_is_refused_and_leaves_no_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = refusal("reproduce saad-sola", monkeypatch, capsys)
    assert "did you mean 'saad-solla'" in message
    assert not list(tmp_path.iterdir())


# ── help, and the command as it is installed ──


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--help", ["reproduce", "derive", "sweep", "simulate"]),
        (
            "derive teacher-student --help",
            [
                "--activation",
                "--format",
                "--limit",
                "--expand",
                "--output",
                "high-dimensional",
                "He<n>",
                "--loss",
                "--labels",
                "--target",
                "--biases",
                "--moments",
            ],
        ),
        ("reproduce --help", ["--quick", "--out", "--list", "NAME"]),
    ],
)
def test_help_names_every_option(arguments, expected, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    printed = output(arguments)
    for part in expected:
        assert part in printed


@pytest.mark.parametrize(
    ("arguments", "status"), [("derive teacher-student", 0), ("derive teacher-student --activation y", 2)]
)
def test_the_installed_command(arguments, status):
    command = Path(sysconfig.get_path("scripts")) / ("effdyn.exe" if sys.platform == "win32" else "effdyn")
    environment = {**os.environ, "PYTHONUTF8": "1"}
    run = subprocess.run(
        [command, *arguments.split()], env=environment, capture_output=True, encoding="utf-8", timeout=120
    )
    assert run.returncode == status, run.stderr
    assert (run.stdout == "") == (status != 0)
    assert (run.stderr == "") == (status == 0)
    assert "Traceback" not in run.stderr
