"""Every example in a docstring runs.

Through the installed packages, by name: `pytest --doctest-modules` from the checkout's root would import the folders
`derive`, `solve`, … themselves, and with them a second copy of every class.
"""

import doctest
import importlib
import pkgutil

import pytest

ROOMS = ("derive", "solve", "validate", "gallery")


def _modules():
    """Names of all modules in the four rooms; a package that cannot be imported is an error, not an omission."""

    def fail(name):
        raise  # walk_packages calls this while it handles the exception

    for room in ROOMS:
        package = importlib.import_module(f"effdyn.{room}")
        yield package.__name__
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=fail):
            if not module.name.endswith(".__main__"):
                yield module.name


@pytest.mark.parametrize("name", list(_modules()))
def test_examples_in_docstrings(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    results = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples in {name} differ, see above"
