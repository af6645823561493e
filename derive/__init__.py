"""Symbolic room: models, Gaussian expectations, limits, and the equations of motion that follow from them."""

if __name__ != "effdyn.derive":
    raise ImportError("this folder is the package effdyn.derive: pip install -e . and import that")

from .activation import Activation, activation
from .dynamics import Dynamics, Equation, FieldFamily, Quantity, Step, close_moments
from .errors import CertificateError, ModelError, NoClosedForm, NotYet
from .expanded import ExpandedDynamics
from .export.serialize import dynamics_from_json, model_from_json
from .gaussian.certificate import Certificate, certify
from .gaussian.closed_forms import closed_form
from .gaussian.expectations import Expectation, expectation
from .limits import LIMITS, Dropped, Limit
from .loss import Loss, loss
from .moments import Joint, Moment, Univariate
from .named_moments import NamedMoment
from .teacher_student import TeacherStudent

__all__ = [
    "LIMITS",
    "Activation",
    "Certificate",
    "CertificateError",
    "Dropped",
    "Dynamics",
    "Equation",
    "ExpandedDynamics",
    "Expectation",
    "FieldFamily",
    "Joint",
    "Limit",
    "Loss",
    "ModelError",
    "Moment",
    "NamedMoment",
    "NoClosedForm",
    "NotYet",
    "Quantity",
    "Step",
    "TeacherStudent",
    "Univariate",
    "activation",
    "certify",
    "close_moments",
    "closed_form",
    "dynamics_from_json",
    "expectation",
    "loss",
    "model_from_json",
]
