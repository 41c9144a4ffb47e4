"""Trajectories measured, one Ray task a matrix: a serial twin gives the same rows."""
