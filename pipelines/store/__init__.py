"""Objects, tensors, manifests and trajectories, the same on file://, memory:// and s3://."""
