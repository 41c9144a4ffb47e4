"""The failures of a run, and which exceptions are its own."""

from pipelines.runs.cluster.worker_failures import WorkerFailed


class LearningFailed(ValueError):
    """A gate never opened, or was passed, or an update never reached the norm that ends its run."""


class StepFailed(ValueError):
    """A step or an evaluation failed; the state before it is saved."""


def explain(error: Exception) -> str | None:
    """A failure of the run in one line; None for a bug."""
    import torch

    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if memory:
        return (
            "out of memory: set resources.checkpoint_activations, or give the arm a new name with a smaller "
            "precision.micro_batch or rollout.batch"
        )
    if isinstance(error, FloatingPointError | ValueError | OSError | WorkerFailed):
        return str(error).splitlines()[0]
    return None
