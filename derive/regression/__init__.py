"""Linear regression at high dimension: one-pass SGD, SGD over a finite data set, and gradient flow.

Knows nothing of how its equations will be solved.
"""

from .model import LinearRegression

__all__ = ["LinearRegression"]
