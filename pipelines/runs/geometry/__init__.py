"""Measure trajectories, one Ray task per matrix; a serial version gives the same rows."""
