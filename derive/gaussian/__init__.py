"""Closed forms of Gaussian expectations: the rules, the special functions that they end in, and their certificates."""
