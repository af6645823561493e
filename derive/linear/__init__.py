"""Linear networks: a noncommutative algebra of matrix words, gradient flows in it, and what they reduce to."""
