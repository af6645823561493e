"""Certificates: the referee is right, it notices what is wrong, and what it found is kept."""

import math
import pickle

import numpy as np
import pytest
import sympy

from effdyn.derive import closed_form
from effdyn.derive.activation import X
from effdyn.derive.errors import CertificateError
from effdyn.derive.gaussian import certificate, closed_forms, referee
from effdyn.derive.gaussian.cached_forms import cached
from effdyn.derive.gaussian.certificate import certify
from effdyn.derive.gaussian.special import edge

RELU, STEP, ERF = sympy.Max(X, 0), sympy.Heaviside(X), sympy.erf(X / sympy.sqrt(2))
SLOPE = sympy.Symbol("slope", real=True)


def signature(*functions):
    return tuple(sympy.Lambda(X, f) for f in functions)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path / "cache"))
    certify.cache_clear()
    closed_form.cache_clear()
    yield tmp_path / "cache"
    certify.cache_clear()
    closed_form.cache_clear()


# -- the referee -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_referee_integrates_polynomials(n, rng):
    """E[Π h_a²] by Isserlis: its own error must cover the difference."""
    factor = rng.normal(size=(n, n)) / math.sqrt(n) + np.eye(n)
    C = factor @ factor.T / 2
    value, error = referee.integrate([X**2] * n, C, np.zeros(n))
    expected = {
        1: lambda: C[0, 0],
        2: lambda: C[0, 0] * C[1, 1] + 2 * C[0, 1] ** 2,
        3: lambda: (
            C[0, 0] * C[1, 1] * C[2, 2]
            + 2 * (C[0, 0] * C[1, 2] ** 2 + C[1, 1] * C[0, 2] ** 2 + C[2, 2] * C[0, 1] ** 2)
            + 8 * C[0, 1] * C[1, 2] * C[0, 2]
        ),
        4: lambda: permanent_of_squares(C),
    }[n]()
    assert error < 1e-3 * expected
    assert abs(value - expected) <= error + 1e-12


def permanent_of_squares(C):
    """Sum over pairings of two copies of each of the fields."""
    copies = [a for a in range(len(C)) for _ in range(2)]

    def pairings(left):
        if not left:
            return 1.0
        first, *rest = left
        return sum(C[first, other] * pairings(rest[:k] + rest[k + 1 :]) for k, other in enumerate(rest))

    return pairings(copies)


@pytest.mark.parametrize("n", [2, 3])
def test_the_referee_integrates_orthants(n, rng):
    factor = rng.normal(size=(n, n)) / math.sqrt(n) + np.eye(n)
    C = factor @ factor.T
    rho = C / np.sqrt(np.outer(np.diag(C), np.diag(C)))
    angles = np.arcsin(rho[np.triu_indices(n, 1)]).sum()
    expected = {2: 1 / 4 + angles / (2 * math.pi), 3: 1 / 8 + angles / (4 * math.pi)}[n]
    value, error = referee.integrate([STEP] * n, C, np.zeros(n))
    assert error < 1e-6 and abs(value - expected) <= 2 * error


def test_the_referee_scatters_where_fields_nearly_depend(rng):
    """Three fields near a plane: no nested rule resolves the first two, and quasi-Monte-Carlo says how well it did."""
    factor = np.array([[1.0, 0.0, 0.0], [0.999, 0.02, 0.0], [0.998, 0.0, 0.02]])
    C = factor @ factor.T
    rho = C / np.sqrt(np.outer(np.diag(C), np.diag(C)))
    expected = 1 / 8 + np.arcsin(rho[np.triu_indices(3, 1)]).sum() / (4 * math.pi)
    value, error = referee.integrate([STEP] * 3, C, np.zeros(3))
    assert 0 < error < 1e-3 and abs(value - expected) <= 6 * error


def test_the_referee_merges_coincident_and_opposite_fields():
    C = np.array([[1.0, -2.0], [-2.0, 4.0]])
    value, error = referee.integrate([RELU, sympy.exp(X)], C, np.array([0.5, 0.1]))
    # E[h exp(−2h + 1.1); h > 0], h ~ N(½, 1): tilted to mean −3/2
    tail = math.exp(-1.125) / math.sqrt(2 * math.pi) - 1.5 * math.erfc(1.5 / math.sqrt(2)) / 2
    assert value == pytest.approx(math.exp(1.1 - 1 + 2) * tail, abs=1e-13 + error)


# -- certificates ------------------------------------------------------------------------------------------------------

FOUR = [
    (STEP, STEP, RELU, RELU),
    (sympy.Piecewise((X, X > 0), (SLOPE * X, True)),) * 2,
    (ERF, RELU, X**2, sympy.exp(X / 2)),
    (sympy.sin(X), RELU, X),
    (sympy.Max(X - 1, 0), sympy.erf(2 * X + 1)),
    (X**2 * STEP, STEP, X),
]


@pytest.mark.parametrize("functions", FOUR, ids=str)
@pytest.mark.parametrize("shifted", [False, True])
def test_certificates(functions, shifted, directory):
    if shifted and ((len(functions) == 4 and functions[1] == STEP) or sympy.sin(X) in functions):
        pytest.skip("no closed form with means")
    found = certify(signature(*functions), shifted)
    assert len(found.points) >= 4 and found.status.startswith("agrees")
    for point in found.points:
        assert abs(point.form - point.reference) <= 6 * point.error + 1e-7 * max(1, abs(point.reference))
        assert point.error < 1e-3 * max(1, abs(point.reference)), "a reference too coarse to notice"
        assert any(point.mean) == shifted


def test_where_the_form_is_not_defined_the_certificate_says_so(directory):
    delta = 2 * sympy.DiracDelta(X)
    assert "not defined where fields coincide" in certify(signature(delta, STEP, delta)).status


@pytest.mark.parametrize("wrong", [1.01, -1])
def test_a_wrong_form_is_noticed(wrong, directory, monkeypatch):
    """One coefficient of E[relu relu] one per cent off."""

    def spoiled(given, shifted=False):
        form, entries = closed_form(given, shifted)
        return form.replace(edge, lambda *args: wrong * edge(*args)), entries

    monkeypatch.setattr(certificate, "closed_form", spoiled)
    with pytest.raises(CertificateError) as caught:
        certify(signature(RELU, RELU))
    error = caught.value
    for text in (repr(error.form), repr(error.reference), str(error.covariance), "Max(0, h1)"):
        assert text in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (again.moment, again.covariance, again.form) == (error.moment, error.covariance, error.form)


# -- on disk -----------------------------------------------------------------------------------------------------------


def test_certificates_are_kept_on_disk(directory, monkeypatch):
    first = certify(signature(RELU, RELU, STEP))
    assert len(list(directory.glob("certificate_*.pickle"))) == 1
    certify.cache_clear()
    monkeypatch.setattr(referee, "integrate", None)
    assert certify(signature(RELU, RELU, STEP)) == first
    assert directory.stat().st_mode & 0o077 == 0


def slow():
    import time

    time.sleep(0.06)
    slow.calls += 1
    return {"answer": sympy.sqrt(2)}


slow.calls = 0


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 200], ids=["emptied", "cut", "edited"])
def test_a_damaged_file_is_computed_again(directory, damage):
    calls = slow.calls
    assert cached("test", "key", slow) == cached("test", "key", slow) == {"answer": sympy.sqrt(2)}
    assert slow.calls == calls + 1
    (file,) = directory.glob("test_*.pickle")
    file.write_bytes(damage)
    assert cached("test", "key", slow) == {"answer": sympy.sqrt(2)} and slow.calls == calls + 2
    assert cached("test", "key", slow) == {"answer": sympy.sqrt(2)} and slow.calls == calls + 2
    assert cached("test", "other key", slow) and slow.calls == calls + 3
    assert not list(directory.glob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert cached("test", "key", slow) == {"answer": sympy.sqrt(2)}


@pytest.mark.skipif("os.name != 'posix'", reason="permission bits")
def test_a_folder_that_others_may_write_is_not_read(directory):
    cached("test", "key", slow)
    directory.chmod(0o777)
    calls = slow.calls
    cached("test", "key", slow)
    assert slow.calls == calls + 1


def test_forms_depend_on_the_table_of_rules(directory, monkeypatch):
    """A form that was derived with other rules must not come from disk."""
    monkeypatch.setattr("effdyn.derive.gaussian.cached_forms.WORTH", 0.0)
    closed_form(signature(STEP, STEP))
    before = set(directory.iterdir())
    closed_form.cache_clear()
    monkeypatch.setattr(closed_forms, "RULES", closed_forms.RULES[:-1])
    closed_forms._reduce.cache_clear()
    with pytest.raises(ValueError, match="no closed form"):
        closed_form(signature(STEP, STEP))
    closed_forms._reduce.cache_clear()
    assert set(directory.iterdir()) == before
