"""Many trajectories at once: sixteen to a register where the system is small, one to a thread where it is large."""
