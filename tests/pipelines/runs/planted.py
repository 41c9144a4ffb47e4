"""Runs whose update is known: one projection W_0 + s(t) D, with a direction that stays or turns."""

import torch

from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
M, N = 40, 24
STEPS = (0, 1, 2, 4, 8, 16)


def gaussian(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_spectrum(seed: int, decay: float) -> torch.Tensor:
    """[M, N] with singular values 1, decay, decay^2, ...: stable rank 1 / (1 - decay^2), nearly."""
    left, right = torch.linalg.qr(gaussian(seed, M, N)).Q, torch.linalg.qr(gaussian(seed + 1000, N, N)).Q
    return (left * decay ** torch.arange(N)) @ right.T


def weights(step: int, seed: int, decay: float = 0.8, turns: float = 0.0, shape: tuple[int, int] = (M, N)) -> dict:
    """Straight along a direction of the seed; turns: share of each step that goes a random way of its own."""
    start = 0.2 * gaussian(1, *shape)
    moved = torch.zeros(*shape)
    if shape == (M, N):
        straight = with_spectrum(10 + seed, decay + 0.002 * seed)
        for t in range(1, step + 1):
            moved += (1 - turns) * straight + turns * with_spectrum(7000 + 100 * seed + t, decay)
    elif step:
        moved = step * gaussian(2, *shape)
    return {Q: start + 1e-3 * moved, NORM: torch.ones(shape[1])}


def plant(
    store: Store, name: str, seed: int = 0, *, steps: tuple[int, ...] = STEPS, end: bool = True, **how
) -> Trajectory:
    """A run of a recipe that exists in name alone; end: whether it is complete."""
    trajectory = Trajectory(store, name, seed)
    study, _, arm = name.partition(".")
    facts = {"identity": {"study": study, "arm": arm}, "fingerprint": name, "inputs": {}, "model": {}, "provenance": {}}
    trajectory.register(facts)
    for step in steps:
        trajectory.commit(step, weights(step, seed, **how), None)
    if end:
        last = steps[-1]
        facts = {"step": last, "digest": trajectory.digest(last), "snapshots": list(steps), "evaluation": []}
        trajectory.finish(facts)
    return trajectory
