"""Symbolic room: models, Gaussian expectations, limits, and the equations of motion that follow from them."""

if __name__ != "effdyn.derive":
    raise ImportError("this folder is the package effdyn.derive: pip install -e . and import that")

from typing import TYPE_CHECKING

from .activation import Activation, activation
from .convention import Convention
from .diffusion import Amplitude, Covariation
from .dynamics import Dynamics, Equation, FieldFamily, Quantity, Step, close_moments
from .errors import CertificateError, ModelError, NoClosedForm, NotYet
from .fluctuations import Fluctuations
from .gaussian.closed_forms import closed_form
from .known_conventions import CONVENTIONS, convention
from .limits import LIMITS, Dropped, Limit
from .linear.network import LinearNetwork
from .loading import on_demand, set_aside
from .loss import Loss, loss
from .moments import Joint, Moment, Univariate
from .named_moments import NamedMoment
from .regression.model import LinearRegression
from .teacher_student import TeacherStudent

if TYPE_CHECKING:
    from .closed_flows import ClosedForm, NotFound, find_closed_form
    from .conservation.conserved import conserved
    from .conservation.first_integrals import FirstIntegrals, first_integrals
    from .conservation.laws import ConservationLaws, conservation_laws
    from .conservation.networks import linear_network_parametrisation, relu_network_parametrisation
    from .conservation.parametrisation import Parametrisation
    from .expanded import ExpandedDynamics
    from .export.serialize import dynamics_from_json, model_from_json
    from .gaussian.certificate import Certificate, certify
    from .gaussian.expectations import Expectation, expectation
else:  # what a first figure does not need loads when it is asked for
    __getattr__ = on_demand(
        __name__,
        {
            "closed_flows": ["ClosedForm", "NotFound", "find_closed_form"],
            "conservation.conserved": ["conserved"],
            "conservation.first_integrals": ["FirstIntegrals", "first_integrals"],
            "conservation.laws": ["ConservationLaws", "conservation_laws"],
            "conservation.networks": ["linear_network_parametrisation", "relu_network_parametrisation"],
            "conservation.parametrisation": ["Parametrisation"],
            "expanded": ["ExpandedDynamics"],
            "export.serialize": ["dynamics_from_json", "model_from_json"],
            "gaussian.certificate": ["Certificate", "certify"],
            "gaussian.expectations": ["Expectation", "expectation"],
        },
    )

__all__ = [
    "CONVENTIONS",
    "LIMITS",
    "Activation",
    "Amplitude",
    "Certificate",
    "CertificateError",
    "ClosedForm",
    "ConservationLaws",
    "Convention",
    "Covariation",
    "Dropped",
    "Dynamics",
    "Equation",
    "ExpandedDynamics",
    "Expectation",
    "FieldFamily",
    "FirstIntegrals",
    "Fluctuations",
    "Joint",
    "Limit",
    "LinearNetwork",
    "LinearRegression",
    "Loss",
    "ModelError",
    "Moment",
    "NamedMoment",
    "NoClosedForm",
    "NotFound",
    "NotYet",
    "Parametrisation",
    "Quantity",
    "Step",
    "TeacherStudent",
    "Univariate",
    "activation",
    "certify",
    "close_moments",
    "closed_form",
    "conservation_laws",
    "conserved",
    "convention",
    "dynamics_from_json",
    "expectation",
    "find_closed_form",
    "first_integrals",
    "linear_network_parametrisation",
    "loss",
    "model_from_json",
    "relu_network_parametrisation",
]

set_aside()
