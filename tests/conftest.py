"""What every test shares: a seeded generator, reproducible hypotheses, figures without a screen, a cache that stays."""

import os

# A process of its own for each processor: threads of BLAS beside them only wait for each other, at full load. Linear
# regression took five times as long. In the environment before NumPy is imported, which reads it then.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")  # in the environment, so that subprocesses have it too

# `pytest --hypothesis-profile=search` looks further than the gate does, with new examples each time.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    """Keep generated kernels beside pytest's own cache, not in the user's.

    The cache is keyed by content, so it is never stale and is kept between runs: a second run compiles nothing.
    """
    if "EFFDYN_CACHE_DIR" not in os.environ and hasattr(config, "cache"):
        os.environ["EFFDYN_CACHE_DIR"] = str(config.cache.mkdir("effdyn"))


@pytest.fixture
def rng() -> np.random.Generator:
    """The same stream for every test, whatever ran before it."""
    return np.random.default_rng(20260101)
