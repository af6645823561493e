"""What tests of entries share: each entry is remade once, when a test first asks for it."""

import matplotlib.image
import numpy as np
import pytest

from effdyn import gallery


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By name, whether ``reproduce`` passed and where it wrote, in the quick form."""
    found = {}

    def make(name):
        if name not in found:
            out = tmp_path_factory.mktemp(name)
            found[name] = gallery.reproduce(name, out, quick=True, progress=False), out
        return found[name]

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
