"""How a Dynamics is read and kept: LaTeX, plain text, articles, NumPy modules, JSON. Nothing here derives anything."""
