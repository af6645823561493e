"""The documentation is true: its examples run, its commands work, its links lead somewhere, no public name is missing.

A page's ```python blocks run in order, in one namespace, in an empty folder. A block ```output after one is what it
prints, all of it. `effdyn` commands in ```console blocks must succeed. Other languages are not run.
"""

import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOMS = ("derive", "solve", "validate", "gallery")
ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
if not PAGES:  # the installed distribution, tested without its checkout
    pytest.skip("the documentation is not here", allow_module_level=True)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))


def blocks(page, *languages):
    """Return (language, text, first line in the file) of each fenced block in one of these languages."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2], text[: m.start(2)].count("\n")) for m in FENCE.finditer(text) if m[1] in languages]


@each_page
def test_python_blocks_run_and_print_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    printed = None
    for language, text, line in blocks(page, "python", "output"):
        if language == "output":
            assert printed == text, f"{page.name}, line {line + 1}"
            continue
        code = compile("\n" * line + text, str(page), "exec")  # so that a traceback names the page's own line
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, namespace)
        printed = out.getvalue()


@each_page
def test_commands_succeed(page, tmp_path, monkeypatch):
    from effdyn.gallery.cli import app

    monkeypatch.chdir(tmp_path)
    for _, text, line in blocks(page, "console"):
        for command in re.findall(r"^\$ effdyn (.*)$", text, re.MULTILINE):
            result = CliRunner().invoke(app, shlex.split(command))
            assert result.exit_code == 0, f"{page.name}, after line {line}: effdyn {command}\n{result.output}"


@each_page
def test_internal_links_resolve(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for target in LINK.findall(prose) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("room", ROOMS)
def test_reference_has_every_public_name(room):
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.split(f"## effdyn.{room}\n")[1].split("\n## ")[0]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert listed == set(importlib.import_module(f"effdyn.{room}").__all__)


def test_files_that_the_map_names_exist():
    """A path stands as it is from the root; a name alone, for a file somewhere in the four rooms."""
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    assert len(named) > 100, "the search finds them"
    files = {path.name for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert not [path for path in named if not (ROOT / path).exists() and path not in files]
