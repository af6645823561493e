"""The ``effdyn`` command: reproduce published results, derive equations, sweep and simulate from files."""

import sys
import warnings
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effdyn.derive import LIMITS, Dynamics, ModelError, NoClosedForm, NotYet
from effdyn.derive.averages import METHODS
from effdyn.derive.linear.reductions import REDUCTIONS
from effdyn.derive.teacher_student import LABELS
from effdyn.solve.sweeps.errors import StoreError

from .catalogue import ENTRIES
from .catalogue import reproduce as reproduce_entry
from .config import SIMULATE, SWEEP, read_config

if TYPE_CHECKING:
    pass

app = typer.Typer(
    help="Derive, solve and validate the effective dynamics of learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


derive = typer.Typer(help="Derive the equations of motion of a model and print them.", no_args_is_help=True)
app.add_typer(derive, name="derive")


class Format(StrEnum):
    """What ``effdyn derive`` prints."""

    text = "text"
    latex = "latex"
    python = "python"
    json = "json"


Limit = StrEnum("Limit", {name.replace("-", "_"): name for name in LIMITS})  # type: ignore[misc]  # names known at run time only
DEFAULT_LIMIT = Limit("high-dimensional")
Labels = StrEnum("Labels", {name: name for name in LABELS})  # type: ignore[misc]  # likewise
Moments = StrEnum("Moments", {name: name for name in METHODS})  # type: ignore[misc]  # likewise
DEFAULT_LABELS, DEFAULT_MOMENTS = Labels("real"), Moments("auto")


class SecondLayer(StrEnum):
    """Whether the second layer is trained."""

    fixed = "fixed"
    trained = "trained"


Reduction = StrEnum("Reduction", {name.replace("-", "_"): name for name in REDUCTIONS})  # type: ignore[misc]  # likewise
DEFAULT_REDUCTION = Reduction("full")


Expand = Annotated[str, typer.Option(help="Write out for given sizes, such as K=2,M=1 (text and latex).")]
As = Annotated[Format, typer.Option("--format", help="What to print.")]
Output = Annotated[Path | None, typer.Option(help="Write to this file instead.")]


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="Which result; see --list.", metavar="NAME")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Smaller simulations, for a first look.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for figures, tables and LaTeX.")] = None,
    list_entries: Annotated[bool, typer.Option("--list", help="List what can be reproduced.")] = False,
) -> None:
    """Remake a published figure end to end: derive, solve, simulate, compare, draw, typeset."""
    if list_entries or not name:
        for entry in ENTRIES.values():
            typer.echo(f"{entry.name:17} {entry.summary}  [{entry.source}]")
        return
    try:
        passed = reproduce_entry(name, out, quick)
    except KeyboardInterrupt:
        typer.echo("effdyn: interrupted; what was finished is kept", err=True)
        raise typer.Exit(130) from None
    if not passed:
        raise typer.Exit(1)


@derive.command("teacher-student")
def teacher_student(
    activation: Annotated[
        str, typer.Option(help="Student's activation: erf, linear, square, relu, tanh, He<n>, …, or a formula in x.")
    ] = "erf",
    teacher_activation: Annotated[
        str | None, typer.Option(help="Teacher's activation; the student's by default.")
    ] = None,
    loss: Annotated[
        str, typer.Option(help="Loss: squared, logistic, hinge, …, or a formula in phi and y.")
    ] = "squared",
    labels: Annotated[Labels, typer.Option(help="Real, or ±1.")] = DEFAULT_LABELS,
    target: Annotated[
        str | None, typer.Option(help="Formula in teacher fields, such as h1*h2*h3, instead of a teacher committee.")
    ] = None,
    second_layer: Annotated[SecondLayer, typer.Option(help="Whether it is trained.")] = SecondLayer.fixed,
    biases: Annotated[bool, typer.Option("--biases", help="Units have biases, trained in the student.")] = False,
    output_scale: Annotated[str, typer.Option(help="Scale of the student's output, an expression of K.")] = "1",
    weight_decay: Annotated[bool, typer.Option("--weight-decay", help="Weights decay by kappa/d a step.")] = False,
    limit: Annotated[Limit, typer.Option(help="Scaling regime.")] = DEFAULT_LIMIT,
    moments: Annotated[Moments, typer.Option(help="How Gaussian expectations are computed.")] = DEFAULT_MOMENTS,
    expand: Expand = "",
    form: As = Format.text,
    output: Output = None,
) -> None:
    """One-pass SGD of a student network on a teacher."""
    from effdyn.derive import TeacherStudent

    dynamics = TeacherStudent(
        activation=activation,
        teacher_activation=teacher_activation,
        loss=loss,
        labels=labels.value,
        target=target,
        second_layer=second_layer.value,
        biases=biases,
        output_scale=output_scale,
        weight_decay=weight_decay,
    ).dynamics(limit=limit.value, moments=moments.value)
    _write(dynamics, expand, form, output)


@derive.command("linear-network")
def linear_network(
    depth: Annotated[int, typer.Option(help="Number of layers.")] = 2,
    reduction: Annotated[Reduction, typer.Option(help="What the flow is reduced to.")] = DEFAULT_REDUCTION,
    whitened: Annotated[bool, typer.Option("--whitened", help="The input correlation is the identity.")] = False,
    layerwise: Annotated[bool, typer.Option("--layerwise", help="A learning rate for each layer.")] = False,
    weight_decay: Annotated[bool, typer.Option("--weight-decay", help="The loss holds mu/2 |weights|^2.")] = False,
    expand: Expand = "",
    form: As = Format.text,
    output: Output = None,
) -> None:
    """Gradient flow of a deep linear network, and its reductions."""
    from effdyn.derive import LinearNetwork

    inputs, rates = "whitened" if whitened else "general", "layerwise" if layerwise else "equal"
    network = LinearNetwork(depth=depth, inputs=inputs, rates=rates, weight_decay=weight_decay)
    _write(network.dynamics(reduction.value), expand, form, output)


ConfigFile = Annotated[Path, typer.Argument(help="A TOML file; its keys are in docs/how-to/sweeps.md.")]
NetCDF = Annotated[Path | None, typer.Option(help="netCDF file for the result.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No bar.")]


@app.command()
def sweep(
    config: ConfigFile,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in the store.")] = False,
    out: NetCDF = None,
    quiet: Quiet = False,
) -> None:
    """Solve the equations of motion for every combination of parameters and initial values in a file."""
    from effdyn.solve.sweeps.sweep import stated
    from effdyn.solve.sweeps.sweep import sweep as run

    asked = read_config(config, SWEEP)
    assert asked.store is not None
    path = _writable(out or asked.out)
    dynamics = asked.dynamics()
    stated(dynamics, **asked.arguments)  # a mistake in the file is said first: it is there whatever the store
    if asked.store.exists() and not resume:
        raise StoreError(asked.store, "exists", "Add --resume to go on with the sweep in it, or give another store.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="interrupted", category=RuntimeWarning)  # said below
        try:
            found = run(dynamics, **asked.arguments, store=asked.store, progress=not quiet)
        except KeyboardInterrupt:
            typer.echo("effdyn: interrupted before a cell was finished", err=True)
            raise typer.Exit(130) from None
    finished = found.attrs["status"] == "success"
    if path is not None and finished:
        found.to_netcdf(path)
    counts = found.status.to_series().value_counts()
    typer.echo(f"{found.status.size} cells in {asked.store}: {', '.join(f'{n} {name}' for name, n in counts.items())}")
    if not finished:
        typer.echo("effdyn: interrupted; the same command with --resume goes on", err=True)
        raise typer.Exit(130)


@app.command()
def simulate(config: ConfigFile, out: NetCDF = None, quiet: Quiet = False) -> None:
    """Train replicas of a finite network as a file says, and write what they did as netCDF."""
    from effdyn.validate import simulate as run
    from effdyn.validate.simulate import SimulationDiverged

    asked = read_config(config, SIMULATE)
    path = _writable(out or asked.out)
    try:
        found = run(asked.model, **asked.arguments, progress=not quiet)
    except SimulationDiverged as error:
        typer.echo(f"effdyn: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("effdyn: interrupted before a run was finished", err=True)
        raise typer.Exit(130) from None
    found.to_netcdf(path)
    typer.echo(f"{dict(found.sizes)} in {path}")


def _writable(path: Path | None) -> Path | None:
    """Return the path of a result that can be written: looked at before the work, not after it."""
    if path is not None and not path.parent.is_dir():
        raise ModelError("out", str(path), "a file in a folder that exists")
    return path


def _write(dynamics: Dynamics, expand: str, form: Format, output: Path | None) -> None:
    """Print a Dynamics, or write it to a file."""
    if form in (Format.python, Format.json):
        if expand:
            raise ModelError("--expand", expand, "left out with --format python or json: those hold for every size")
        from effdyn.derive.export.write import to_text

        text = to_text(dynamics, {"python": ".py", "json": ".json"}[form.value])
    else:
        shown = dynamics.expand(**_sizes(expand)) if expand else dynamics
        text = shown.latex() if form is Format.latex else str(shown)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")


def _sizes(text: str) -> dict[str, int]:
    try:
        return {name.strip(): int(size) for name, size in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise ModelError("--expand", text, "sizes such as K=2,M=1") from None


def main() -> None:
    """Run the command line; mistakes in the arguments are one message and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Σ shows a question mark
    try:
        app()
    except (ModelError, NoClosedForm, NotYet, StoreError, OSError) as error:
        typer.echo(f"effdyn: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
