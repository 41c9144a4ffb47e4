"""The checkpoints that a command names: a base and its snapshots, listed or found under one training run."""

from dataclasses import dataclass

from pipelines.store.checkpoint_series import open_trajectory


@dataclass(frozen=True)
class Given:
    """snapshots: (step, ref) from 1 up. notes: on snapshots that are left out."""

    base: str
    snapshots: list[tuple[int, str]]
    notes: tuple[str, ...] = ()


def list_checkpoints(prefix: str, base: str | None = None) -> Given:
    """The complete checkpoints of a training run; its step 0 is the base if none is named.

    Errors: ValueError without a base or a snapshot; as for `open_trajectory`.
    """
    series = open_trajectory(prefix)
    steps = dict(series.complete)
    notes = [f"{why}; left out" for _, why in series.incomplete]
    start = steps.pop(0, None)
    if base is None and start is None:
        raise ValueError(f"{prefix} holds no complete checkpoint of step 0; name the weights it began with as --base")
    if base is not None and start is not None:
        notes.append(f"step 0 under {prefix} is left out, since a base is given")
    if not steps:
        why = f" ({series.incomplete[0][1]})" if series.incomplete else ""
        raise ValueError(f"{prefix} holds no complete checkpoint from step 1 up{why}; let its training go on")
    return Given(base or start or "", sorted(steps.items()), tuple(notes))
