"""The ziggurat's numbers: the words that feed it are xoshiro256++'s, and their law is the normal one, tail included."""

import math

import numpy as np
import pytest
from scipy.special import ndtr

from effdyn.validate.normals import AREA, DENSITY, LAST, LAYERS, WIDTH, Normals, fill_bits

COUNT, FEWER = 20_000_000, 2_000_000


def test_words_are_those_of_xoshiro256plusplus():
    """From the state 1, 2, 3, 4: what the reference implementation gives (Blackman and Vigna)."""
    out = np.empty(10, np.uint64)
    fill_bits(np.array([1, 2, 3, 4], np.uint64), out)
    assert out.tolist() == [
        41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205, 9973669472204895162,
        14011001112246962877, 12406186145184390807, 15849039046786891736, 10450023813501588000,
    ]  # fmt: skip


def test_layers_have_equal_areas_and_reach_the_top():
    areas = WIDTH[1:LAYERS] * np.diff(DENSITY[1:])
    np.testing.assert_allclose(areas[:-1], AREA, rtol=1e-13)  # of logarithms and exponentials, a few ulp each
    # The top layer takes up what 254 recursions have left over: that LAST has 17 digits shows in its area.
    assert areas[-1] == pytest.approx(AREA, rel=1e-11)
    tail = math.sqrt(math.pi / 2) * math.erfc(LAST / math.sqrt(2))
    assert WIDTH[0] * DENSITY[1] == pytest.approx(LAST * DENSITY[1] + tail, rel=1e-14)


@pytest.fixture(scope="module")
def numbers():
    return Normals(np.random.SeedSequence(3)).fill(np.empty(COUNT))


def test_moments_are_normal(numbers):
    # The error of the mean of x^k is √(E x^2k − (E x^k)²) / √n; five of them over six moments: p = 4e-6.
    for k, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (5, 0, 945), (6, 15, 10170)):
        assert abs((numbers[:FEWER] ** k).mean() - mean) < 5 * math.sqrt(variance / FEWER), k


def test_frequencies_are_normal(numbers):
    """At each layer's edges and between them: a wedge or a tail that is misplaced shows in its own bin.

    Of both tails together 7 % too few would show: they have 5160 ± 72 numbers.
    """
    middles = (WIDTH[1:-1] + WIDTH[2:]) / 2
    half = np.sort(np.concatenate([WIDTH[1:-1], middles, [3.8, 4.0, 4.2, 4.5]]))
    edges = np.concatenate([[-np.inf], -half[::-1], half, [np.inf]])
    some = numbers[: 2 * FEWER]
    expected = some.size * np.diff(ndtr(edges))
    found = np.bincount(np.searchsorted(edges, some, side="right") - 1, minlength=expected.size)
    chi2, freedom = ((found - expected) ** 2 / expected).sum(), expected.size - 1
    assert expected.min() > 10 and abs(chi2 - freedom) < 5 * math.sqrt(2 * freedom)
    tail = COUNT * ndtr(-LAST)
    right, left = int((numbers > LAST).sum()), int((numbers < -LAST).sum())
    for found_there, expected_there in ((right, tail), (left, tail), (right + left, 2 * tail)):
        assert abs(found_there - expected_there) < 5 * math.sqrt(expected_there)
    assert 5 / math.sqrt(2 * tail) < 0.07


def test_neighbours_are_independent(numbers):
    # 5/√n = 0.0035; the squares would show a common layer, |x| of neighbours a common scale.
    for lag in (1, 2, 3, 7):
        for f in (np.asarray, np.abs, np.sign):
            y = f(numbers[:FEWER])
            correlation = np.corrcoef(y[:-lag], y[lag:])[0, 1]
            assert abs(correlation) < 5 / math.sqrt(FEWER), (lag, f)


def test_a_stream_does_not_depend_on_how_it_is_asked_for():
    whole = Normals(np.random.SeedSequence(5)).fill(np.empty(1000))
    stream = Normals(np.random.SeedSequence(5))
    first = stream.fill(np.empty((3, 100)))
    other = Normals(np.random.SeedSequence(6))
    assert not np.isin(other.fill(np.empty(1000)), whole).any()
    other.go_on(stream.kept())
    rest = other.fill(np.empty(700))
    assert np.concatenate([first.ravel(), rest]).tolist() == whole.tolist()
    with pytest.raises(AssertionError):
        stream.fill(np.empty((4, 4))[:, :2])
