"""Where a run executes, and what it stores besides snapshots. Not part of its identity."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Actors of one kind; 0 is the trainer's own process."""

    actors: int = 0
    gpus: float = 0.0  # of each, fractions too


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where a run executes.

    gpus: of each of the trainer's processes. workers: data parallel ranks of the trainer, which split weights, masters,
    moments and gradients (FSDP2) and each step's sequences; a GPU each where gpus is 1, else a CPU each. Another number
    adds up fp32 in another order, and may continue a run from any resume state. sleep: rollout and teacher actors free
    their memory while the trainer works, where all share one GPU.
    Errors: ValueError for no workers, and for what several cannot have.
    """

    gpus: float = 0.0
    workers: int = 1
    threads: int = 1
    rollout: Workers = field(default_factory=Workers)
    teacher: Workers = field(default_factory=Workers)
    sleep: bool = False
    checkpoint_activations: bool = False  # recompute activations in the backward pass: less memory, the same gradient
    verifier_seconds: float = 10.0  # for one response
    keep_moments: tuple[int, ...] = ()  # steps whose optimizer state outlives the run, for `SnapshotOf(moments="kept")`

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"resources.workers is at least 1, got {self.workers}")
        if self.workers > 1 and self.gpus not in (0, 1):
            raise ValueError(
                f"resources.gpus is of each of the {self.workers} workers, and one works on one GPU or on none: got "
                f"{self.gpus:g}, set 1 or 0"
            )
        if self.workers > 1 and self.sleep:
            raise ValueError(
                f"resources.sleep is for a trainer that shares its one GPU, and there are {self.workers} workers with "
                "one each: leave it out, or set workers=1"
            )
