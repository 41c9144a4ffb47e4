"""Memory, GPUs and time that a run needs, estimated before any work, and the placement of its processes."""
