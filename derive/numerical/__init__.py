"""Numerical Gaussian expectations: conditioning, rules over one field and over all of them, and their errors."""
