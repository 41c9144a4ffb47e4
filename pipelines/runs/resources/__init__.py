"""What a run needs of memory, GPUs and time, said before any work, and where its processes stand."""
