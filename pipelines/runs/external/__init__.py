"""Checkpoints trained elsewhere: find, plan, measure and watch them."""
