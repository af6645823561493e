"""From equations to machine code: a Dynamics lowered to Python source, what it calls, and the cache that keeps it."""
