"""What is installed is what is in the folders, and layers keep to themselves."""

import ast
import configparser
import importlib
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("derive", "solve", "validate", "gallery")
README_COMMAND = 'pip install -e ".[test]" && pytest'

each_room = pytest.mark.parametrize("room", ROOMS)


def _setup_cfg():
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def _sources():
    """Every Python file of the rooms, relative to the checkout's root."""
    return [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def _python(code, **options):
    """Run `code` in a fresh interpreter that, like one started by hand, has its working directory on sys.path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, **options)


def test_setup_cfg_lists_every_package():
    listed = set(_setup_cfg()["options"]["packages"].split())
    folders = {".".join(("effdyn", *source.parent.parts)) for source in _sources()}
    assert listed == folders, "a package that setup.cfg does not list is silently absent from the wheel"


def test_every_folder_of_modules_is_a_package():
    without = {str(source.parent) for source in _sources() if not (ROOT / source.parent / "__init__.py").exists()}
    assert not without, "without __init__.py a folder is a namespace of its own and is not installed"


def test_setup_cfg_maps_each_room_to_its_folder():
    lines = _setup_cfg()["options"]["package_dir"].strip().splitlines()
    mapping = dict(map(str.strip, line.split("=")) for line in lines)
    assert mapping == {f"effdyn.{room}": room for room in ROOMS}


@pytest.mark.parametrize("source", _sources(), ids=str)
def test_every_module_is_installed(source):
    parts = source.parent.parts if source.name == "__init__.py" else source.with_suffix("").parts
    name = ".".join(("effdyn", *parts))
    found = importlib.util.find_spec(name)
    assert found is not None, f"{source} is not installed as {name}"
    assert Path(found.origin).read_bytes() == (ROOT / source).read_bytes(), f"{found.origin} is not this {source}"
    if source.stem != "__main__":
        importlib.import_module(name)


def test_nothing_shadows_the_namespace():
    assert not (ROOT / "effdyn").exists(), "a folder effdyn/ at the root hides the installed package from those in it"
    assert importlib.import_module("effdyn").__file__ is None, "effdyn must stay a namespace: no __init__.py of its own"


@each_room
def test_room_is_typed(room):
    package = importlib.import_module(f"effdyn.{room}")
    assert any((Path(folder) / "py.typed").is_file() for folder in package.__path__)


@each_room
def test_room_refuses_to_be_imported_as_a_folder(room):
    run = _python(f"import {room}", cwd=ROOT)
    assert run.returncode != 0
    assert "ImportError" in run.stderr and f"this folder is the package effdyn.{room}" in run.stderr


@each_room
def test_room_is_an_index_of_its_public_names(room):
    package = importlib.import_module(f"effdyn.{room}")
    names = package.__all__
    assert len(names) == len(set(names)), "a name is listed twice"
    for name in names:
        assert hasattr(package, name), f"effdyn.{room}.__all__ promises {name}, which is not there"


@pytest.mark.parametrize(
    ("room", "absent"),
    [
        (
            "derive",
            [
                "numpy",
                "tqdm",
                "numba",
                "llvmlite",
                "scipy",
                "matplotlib",
                "effdyn.solve",
                "effdyn.validate",
                "effdyn.gallery",
            ],
        ),
        ("solve", ["matplotlib", "xarray", "pandas", "scipy.linalg", "tqdm", "effdyn.validate", "effdyn.gallery"]),
        ("validate", ["effdyn.gallery"]),
    ],
)
def test_importing_a_room_does_not_load(room, absent):
    run = _python(f"import sys, effdyn.{room}; print(*(name for name in {absent} if name in sys.modules))")
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


@pytest.mark.skipif(os.name == "nt", reason="git on Windows may check symlinks out as text")
@each_room
def test_type_checkers_find_the_room(room):
    link = ROOT / ".links" / "effdyn" / room
    assert link.is_symlink() and link.resolve() == ROOT / room
    assert not Path(os.readlink(link)).is_absolute(), "an absolute link points into someone else's disk"


def test_version_and_console_script():
    assert version("effdyn") == _setup_cfg()["metadata"]["version"]
    (script,) = entry_points(group="console_scripts", name="effdyn")
    assert callable(script.load())


@pytest.mark.parametrize("file", ["README.md", ".ci/run"])
def test_readme_and_ci_test_with_the_same_command(file):
    assert README_COMMAND in (ROOT / file).read_text(encoding="utf-8")


@each_room
def test_names_that_load_on_demand_are_those_that_type_checkers_see(room):
    """A room lists them twice: for type checkers as imports, for Python in a table."""
    tree = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for block in blocks:
        imported = {node.module: [name.name for name in node.names] for node in block.body}
        (assignment,) = block.orelse
        assert ast.literal_eval(assignment.value.args[1]) == imported
        modules = {path.stem for path in (ROOT / room).iterdir()}
        assert not modules & {name for names in imported.values() for name in names}, "the module would hide the name"
    assert blocks or room not in ("derive", "solve")
