"""Stochastic differential equations: paths of a Dynamics of kind ``"sde"``, by schemes with a fixed step."""
