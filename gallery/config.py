"""Configuration files of ``effdyn sweep`` and ``effdyn simulate``: TOML, every key checked, each mistake by its name.

The keys are one table, :data:`KEYS`. What the values mean is checked where they are used: by the model, the solver and
the simulator.
"""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from effdyn.derive import Dynamics, LinearNetwork, LinearRegression, ModelError, TeacherStudent
from effdyn.derive.errors import Described, nearest

SWEEP, SIMULATE = "sweep", "simulate"

MODELS: dict[str, type] = {kind.__name__: kind for kind in (TeacherStudent, LinearNetwork, LinearRegression)}
"""By the name in the file: models whose arguments are the keys of its table ``model``."""

GENERATORS: dict[str, Callable[..., np.ndarray]] = {
    "linspace": np.linspace,
    "geomspace": np.geomspace,
    "identity": np.eye,
    "diag": lambda *entries: np.diag(entries),
}
"""By name: what a table with one key, such as ``{linspace = [0.1, 3, 30]}``, stands for."""

_ACCEPTED = {
    "linspace": "[first, last, count]",
    "geomspace": "[first, last, count], of one sign and not 0",
    "identity": "a size",
    "diag": "[entry, entry, …]",
}

Reader = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Config:
    """A file that was read.

    Attributes
    ----------
    model : object
        The model.
    derivation : dict
        Arguments of its ``dynamics``.
    sde : bool
        Whether these are taken with the noise of training at finite d, as stochastic equations.
    arguments : dict
        Arguments of ``solve.sweep`` or of ``validate.simulate``.
    store, out : Path or None
        Where results go.
    """

    model: Any
    derivation: Mapping[str, Any]
    arguments: Mapping[str, Any]
    store: Path | None
    out: Path | None
    sde: bool = False

    def dynamics(self) -> Dynamics:
        dynamics = self.model.dynamics(**self.derivation)
        assert isinstance(dynamics, Dynamics)
        return dynamics.sde() if self.sde else dynamics


@dataclass(frozen=True, slots=True)
class Key:
    """A key: how its value is read, which commands have it, and what it is."""

    read: Reader
    commands: tuple[str, ...]
    meaning: str
    required: bool = False


# ── Values ──


def _text(key: str, given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise ModelError(key, given, "text")
    return given


def _path(key: str, given: Any) -> Path:
    return Path(_text(key, given))


def _number(key: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise ModelError(key, given, "a number")
    return given


def _whole(key: str, given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise ModelError(key, given, "a whole number")
    return given


def _switch(key: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise ModelError(key, given, "true or false")
    return given


def _whole_or_list(key: str, given: Any) -> int | list[int]:
    return [_whole(key, entry) for entry in given] if isinstance(given, list) else _whole(key, given)


def _number_or_list(key: str, given: Any) -> float | list[float]:
    return [_number(key, entry) for entry in given] if isinstance(given, list) else _number(key, given)


def _switch_or_text(key: str, given: Any) -> bool | str:
    return given if isinstance(given, bool) else _text(key, given)


def _pair(key: str, given: Any) -> tuple[float, float]:
    if not isinstance(given, list) or len(given) != 2:
        raise ModelError(key, given, "two times, [from, to]")
    return _number(key, given[0]), _number(key, given[1])


def _array(key: str, given: Any) -> np.ndarray:
    """Return a number, a list, a list of lists, or what a table with the name of a generator stands for."""
    if isinstance(given, dict):
        return _generated(key, given)
    if isinstance(given, list):
        rows = [_array(f"{key}[{n}]", entry) for n, entry in enumerate(given)]
        if len({row.shape for row in rows}) > 1:
            raise ModelError(key, given, "rows of equal length")
        return np.array(rows, dtype=float)
    return np.asarray(_number(key, given), dtype=float)


def _generated(key: str, given: Mapping[str, Any]) -> np.ndarray:
    if len(given) != 1 or next(iter(given)) not in GENERATORS:
        name = next(iter(given), "")
        known = ", ".join(f"{{{n} = {form}}}" for n, form in _ACCEPTED.items())
        raise ModelError(key, given, f"numbers, or one of {known}{nearest(name, GENERATORS)}")
    ((name, arguments),) = given.items()
    arguments = arguments if isinstance(arguments, list) else [arguments]
    place, accepted = f"{key}.{name}", _ACCEPTED[name]
    for entry in arguments:
        _number(place, entry)
    counted = name in ("linspace", "geomspace", "identity")
    if counted and (len(arguments) != (1 if name == "identity" else 3) or not _is_count(arguments[-1])):
        raise ModelError(place, given[name], accepted)
    if not arguments or (name == "geomspace" and not arguments[0] * arguments[1] > 0):
        raise ModelError(place, given[name], accepted)
    return GENERATORS[name](*arguments)


def _is_count(given: Any) -> bool:
    return isinstance(given, int) and given > 0


def _arrays(key: str, given: Any) -> dict[str, np.ndarray]:
    if not isinstance(given, dict):
        raise ModelError(key, given, f"a table, [{key}]")
    return {name: _array(f"{key}.{name}", value) for name, value in given.items()}


def _model(key: str, given: Any) -> Any:
    """Return the model: its name, or a table with its name and its arguments."""
    table = {"name": given} if isinstance(given, str) else given
    if not isinstance(table, dict) or "name" not in table:
        raise ModelError(key, given, f"the name of a model, or a table with a name, of {', '.join(MODELS)}")
    name = table["name"]
    if name not in MODELS:
        raise ModelError(f"{key}.name", name, f"one of {', '.join(MODELS)}{nearest(str(name), MODELS)}")
    kind = MODELS[name]
    known = [f.name for f in fields(kind)]
    arguments = {argument: value for argument, value in table.items() if argument != "name"}
    for argument, value in arguments.items():
        if argument not in known:
            raise ModelError(f"{key}.{argument}", value, f"one of {', '.join(known)}{nearest(argument, known)}")
    return kind(**arguments)


# ── Keys ──

BOTH = (SWEEP, SIMULATE)

KEYS: dict[str, Key] = {
    "model": Key(_model, BOTH, "name of the model, or a table: `name` and its arguments", required=True),
    "limit": Key(_text, (SWEEP,), "scaling regime"),
    "moments": Key(_text, (SWEEP,), "how Gaussian expectations are computed"),
    "reduction": Key(_text, BOTH, "what the flow of a linear network is reduced to"),
    "sde": Key(_switch, (SWEEP,), "whether the noise of training at finite d is in the equations, `dynamics.sde()`"),
    "t_span": Key(_pair, BOTH, "`[from, to]`", required=True),
    "t_eval": Key(_array, BOTH, "times to save; 101 by default"),
    "y0": Key(_arrays, BOTH, "table of initial values"),
    "params": Key(_arrays, BOTH, "table of parameters"),
    "over": Key(_arrays, (SWEEP,), "table of what varies: for each name its values", required=True),
    "rtol": Key(_number, (SWEEP,), "relative tolerance"),
    "atol": Key(_number, (SWEEP,), "absolute tolerance"),
    "method": Key(_text, (SWEEP,), "integrator"),
    "max_steps": Key(_whole, (SWEEP,), "most steps of a cell"),
    "dt": Key(_number, (SWEEP,), "length of a step of stochastic equations"),
    "brownian_dt": Key(_number, (SWEEP,), "time over which their Brownian motions are drawn; `dt` by default"),
    "average": Key(_switch, (SWEEP,), "whether means and standard deviations over runs are kept, instead of runs"),
    "same_noise": Key(_switch, (SWEEP,), "whether run r has the same random numbers in all cells"),
    "store": Key(_path, (SWEEP,), "folder of the zarr store; the name of the file with `.zarr` by default"),
    "d": Key(_whole_or_list, (SIMULATE,), "input dimension, or a list of them"),
    "eta": Key(_number_or_list, (SIMULATE,), "step of a linear network's descent, or a list of them"),
    "runs": Key(_whole, BOTH, "independent replicas; of stochastic equations, paths of each cell"),
    "engine": Key(_text, (SIMULATE,), "`gram` or `network`"),
    "init": Key(_text, (SIMULATE,), "`exact` or `random` initial weights"),
    "inputs": Key(_text, (SIMULATE,), "law of the inputs: `gaussian`, `rademacher` or `uniform`"),
    "orientation": Key(_text, (SIMULATE,), "`random` or `axes`: directions of the initial weights"),
    "align": Key(_switch_or_text, (SIMULATE,), "whether replicas' students are matched"),
    "clock": Key(_text, (SIMULATE,), "what t is"),
    "rng": Key(_whole, BOTH, "seed"),
    "checkpoint": Key(_path, (SIMULATE,), "folder where finished replicas are kept, to go on from"),
    "threads": Key(_whole, BOTH, "how many threads; all processors by default"),
    "out": Key(_path, BOTH, "netCDF file for the result; `simulate`: the name of the file with `.nc` by default"),
}
"""Every key, by name."""

_DERIVATION = {SWEEP: ("limit", "moments", "reduction"), SIMULATE: ()}


def read_config(path: Path, command: str) -> Config:
    """Read and check a configuration file.

    Parameters
    ----------
    path : Path
        The file.
    command : {"sweep", "simulate"}
        What it is for.

    Raises
    ------
    ModelError
        For a mistake, naming the key.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> text = 'model = "TeacherStudent"\\nt_span = [0, 9]\\n[over]\\neta = {linspace = [0.5, 1.5, 3]}\\n'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "eta.toml")
    ...     _ = path.write_text(text)
    ...     config = read_config(path, "sweep")
    >>> config.model, config.arguments["over"]["eta"].tolist(), str(config.store)
    (TeacherStudent(activation='erf'), [0.5, 1.0, 1.5], 'eta.zarr')
    """
    given = _parsed(path)
    own = [name for name, key in KEYS.items() if command in key.commands]
    for name, value in given.items():
        if name not in KEYS:
            raise ModelError(name, value, f"a key of effdyn {command}: {', '.join(own)}{nearest(name, own)}")
        if name not in own:
            raise ModelError(name, value, f"nothing: it is a key of effdyn {KEYS[name].commands[0]}")
    for name in own:
        if KEYS[name].required and name not in given:
            raise ModelError(name, Described("nothing"), f"it is required: {KEYS[name].meaning}")
    read = {name: KEYS[name].read(name, value) for name, value in given.items()}
    model, store, out = read.pop("model"), read.pop("store", None), read.pop("out", None)
    sde = read.pop("sde", False)
    derivation = {name: read.pop(name) for name in _DERIVATION[command] if name in read}
    arguments = {"y0": {}, "params": {}, **read}
    if command == SWEEP:
        _check_derivation(model, derivation)
        store = store or Path(path.stem + ".zarr")
    else:
        _check_simulation(model, arguments)
        out = out or Path(path.stem + ".nc")
    return Config(model, derivation, arguments, store, out, sde)


def _parsed(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ModelError(str(path), Described("this text"), f"TOML is expected: {error}") from None


def _check_derivation(model: Any, derivation: Mapping[str, Any]) -> None:
    known = inspect.signature(model.dynamics).parameters
    for name, value in derivation.items():
        if name not in known:
            raise ModelError(name, value, f"nothing for a {type(model).__name__}, which has {', '.join(known)}")


def _check_simulation(model: Any, arguments: Mapping[str, Any]) -> None:
    from effdyn.validate.simulators import simulator_of

    known = [name for name in inspect.signature(simulator_of(model)).parameters if name in KEYS and name != "model"]
    for name, value in arguments.items():
        if name not in known:
            raise ModelError(name, value, f"nothing for a {type(model).__name__}, which has {', '.join(known)}")
