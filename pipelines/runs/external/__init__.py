"""Checkpoints trained elsewhere: named, planned, measured, watched while they appear."""
