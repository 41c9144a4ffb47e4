"""Where a run executes, and what it keeps beside its snapshots. Not part of what the run is."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Actors of one kind; 0 is the trainer's own process."""

    actors: int = 0
    gpus: float = 0.0  # of each, fractions too


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where a run executes.

    sleep: rollout and teacher actors give their memory back while the trainer works, for one GPU that all share.
    """

    gpus: float = 0.0
    threads: int = 1
    rollout: Workers = field(default_factory=Workers)
    teacher: Workers = field(default_factory=Workers)
    sleep: bool = False
    checkpoint_activations: bool = False  # recompute activations in the backward pass: less memory, the same gradient
    verifier_seconds: float = 10.0  # for one response
    keep_scores: bool = True  # teacher scores, which another objective on the same rollouts reads instead of scoring
    keep_moments: tuple[int, ...] = ()  # steps whose optimizer state outlives the run, for `SnapshotOf(moments="kept")`
