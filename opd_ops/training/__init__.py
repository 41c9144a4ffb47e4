"""One loop for every objective: batches, steps, evaluation, gates, resume state."""
