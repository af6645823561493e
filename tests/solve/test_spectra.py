"""Blocks that stand for a spectrum: nothing lost, no block empty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effdyn.derive import ModelError
from effdyn.solve import input_blocks


@given(
    st.lists(st.floats(0, 1e3), min_size=1, max_size=40).filter(any),
    st.integers(1, 40),
    st.sampled_from(["directions", "variance"]),
)
def test_trace_and_shares_are_kept(eigenvalues, count, by):
    count = min(count, len(eigenvalues))
    blocks = input_blocks(eigenvalues, count, by)
    assert blocks["input_share"].shape == (count,) and (blocks["input_share"] > 0).all()
    # sums of 40 numbers: 40 roundings
    assert blocks["input_share"].sum() == pytest.approx(1, rel=1e-14)
    assert blocks["input_share"] @ blocks["input_variance"] == pytest.approx(
        np.mean(eigenvalues), rel=1e-13, abs=1e-300
    )
    assert (np.diff(blocks["input_variance"]) >= 0).all()


def test_groups_are_of_equal_numbers_or_of_equal_variance():
    values = np.array([1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0])
    np.testing.assert_allclose(input_blocks(values, 4)["input_share"], 0.25)
    shares = input_blocks(values, 4, by="variance")["input_share"]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.125, 0.125])


@pytest.mark.parametrize("changed", [dict(eigenvalues=[-1.0, 2.0]), dict(count=0), dict(count=4), dict(by="size")])
def test_mistakes_are_named(changed):
    (name,) = changed
    with pytest.raises(ModelError, match=name):
        input_blocks(**(dict(eigenvalues=[1.0, 2.0, 3.0], count=2) | changed))
