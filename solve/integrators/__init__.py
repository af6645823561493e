"""Step loops that Numba compiles: explicit and implicit Runge-Kutta methods, events, and the methods' referees."""
