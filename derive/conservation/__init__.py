"""Conservation laws of gradient flow, found by exact linear algebra, counted by Lie brackets, and what breaks them."""
