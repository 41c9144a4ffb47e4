"""Training runs, measuring runs, imported checkpoints, and the cluster they are spread over."""
