"""What tests of entries share: each entry is remade once, when a test first asks for it."""

import json
import os
import time
from contextlib import ExitStack

import matplotlib.image
import numpy as np
import pytest

from effdyn import gallery
from effdyn.solve.sweeps.errors import StoreInUse
from effdyn.solve.sweeps.lock import only_writer


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """``once(name, make)``: what ``make(folder)`` returned, a truth value, and the folder.

    It is called by the first of the processes of this run that asks; others wait for it instead of doing it again.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    def ask(name, make):
        folder = shared / f"once-{name}"
        out, answer = folder / "out", folder / "answer"
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            while not _holds(held, folder):
                time.sleep(0.1)
            if not answer.exists():
                answer.write_text(json.dumps(bool(make(out))), encoding="utf-8")
            return json.loads(answer.read_text(encoding="utf-8")), out

    return ask


def _holds(held, folder):
    try:
        held.enter_context(only_writer(folder))
    except StoreInUse:
        return False
    return True


@pytest.fixture(scope="module")
def made(once):
    """By name, whether ``reproduce`` passed and where it wrote, in the quick form."""

    def make(name):
        return once(name, lambda out: gallery.reproduce(name, out, quick=True, progress=False))

    return make


@pytest.fixture
def check_figures(made):
    """Check that an entry drew these figures, by the stems of their files, and that none is empty."""

    def check(name, stems):
        paths = sorted(made(name)[1].glob("*.png"))
        assert {path.stem for path in paths} == set(stems)
        for path in paths:
            image = matplotlib.image.imread(path)[..., :3]
            assert image.shape[0] >= 400 and image.shape[1] >= 600
            assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50, f"{path.name} is empty"

    return check
