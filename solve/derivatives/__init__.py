"""First and second derivatives of compiled equations, operation by operation: exact, whatever the equations are."""
