"""Closed forms are checked beside the work: certificates are kept, and a refuted form is an error."""

import json
import time

import numpy as np
import pytest
import sympy

from effdyn.derive import Dynamics, Equation, Moment, Quantity, TeacherStudent
from effdyn.derive.activation import activation
from effdyn.derive.errors import CertificateError
from effdyn.derive.moments import Univariate
from effdyn.solve import certification, integrate, kernel
from effdyn.solve.kernels.kernel import _made


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache of its own, and another process of its own."""
    monkeypatch.setenv("EFFDYN_CACHE_DIR", str(tmp_path))
    certification._stem.cache_clear()
    certification._worker.cache_clear()
    monkeypatch.setattr(certification, "_waiting", {})
    yield tmp_path
    worker = certification._worker()
    worker.kill()
    worker.wait()
    certification._stem.cache_clear()
    certification._worker.cache_clear()


def wait_for(folder, ending, seconds=300):
    until = time.monotonic() + seconds
    while not list(folder.glob(f"moments_*.{ending}")):
        assert time.monotonic() < until, [f.name for f in folder.iterdir()]
        time.sleep(0.05)


def test_certificates_are_made_beside_the_work_and_kept(fresh):
    dynamics = TeacherStudent(activation="square").dynamics(limit="gradient-flow")
    certification.start(dynamics)
    wait_for(fresh, "certified")
    certification.start(dynamics)
    time.sleep(0.2)
    assert not list(fresh.glob("*.job")), "what is certified is not checked again"


def test_a_refuted_form_is_an_error_in_this_process_and_the_next(fresh, monkeypatch):
    monkeypatch.setattr(certification, "_WORKER", "import sys; sys.stdin.read()")  # the answer comes from below
    dynamics = TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    params = dict(sigma=0.0, T=np.eye(1), a=1.0, b=1.0)
    start = dict(Q=[[0.5]], R=[[0.1]])
    _made.cache_clear()
    integrate(dynamics, (0, 1), start, params)
    facts = ["E[h1 h2]", [[1.0, 0.5], [0.5, 1.0]], [0.0, 0.0], 0.7, 0.5, 1e-12]
    certification._stem(dynamics).with_suffix(".refuted").write_text(json.dumps(facts))
    with pytest.raises(CertificateError, match=r"0\.7, while numerical integration gives 0\.5"):
        integrate(dynamics, (0, 1), start, params)
    _made.cache_clear()
    with pytest.raises(CertificateError, match=r"E\[h1 h2\] is wrong"):
        kernel(dynamics)


def test_a_form_that_cannot_be_checked_is_warned_of(fresh):
    dynamics = TeacherStudent(activation="linear").dynamics(limit="gradient-flow")
    certification._stem(dynamics).with_suffix(".unchecked").write_text("ValueError: why")
    with pytest.warns(RuntimeWarning, match="could not be checked: ValueError: why"):
        certification.start(dynamics)


def test_the_other_process_finds_a_wrong_form(fresh, monkeypatch):
    """With a rule that is off by one part in a thousand."""
    wrong = """
import effdyn.derive.gaussian.certificate as c
right = c.closed_form
def closed_form(signature, shifted=False):
    form, entries = right(signature, shifted)
    return form * c.sympy.Float("1.001"), entries
c.closed_form = closed_form
"""
    monkeypatch.setattr(certification, "_WORKER", wrong + certification._WORKER)
    size = sympy.Symbol("K", integer=True, positive=True)
    i, k = sympy.symbols("i k", integer=True, positive=True)
    h, g = sympy.IndexedBase("h", real=True), Univariate.of("g", activation("erf(x/3)"))
    Q = Quantity("Q", (i, k), (size, size), symmetric=True)
    law = ((("h", "h"), sympy.Lambda((i, k), Q.symbol)),)
    dynamics = Dynamics("wrong", "ode", "t", (Equation(Q, Moment(g(h[i]), g(h[k]))),), covariance=law)
    certification.start(dynamics)
    wait_for(fresh, "refuted")
    with pytest.raises(CertificateError):
        certification.check()
