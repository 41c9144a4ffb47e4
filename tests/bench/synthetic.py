"""Seeded matrices that look like a trained weight and its post-training: what the bench measures, made in seconds.

    heavy   4.5 e sum_{i <= r/4} i^-0.45 u_i v_i' + G / sqrt(n)   a power law on a quarter of the ranks, over a bulk
    flat    e sum_{i <= 8} t_i u_i v_i' + G / sqrt(n)             eight spikes, t from 4 to 2, over the same bulk
    rl      30 % of the update's energy in rank 8, the rest dense Gaussian
    sft     60 % in rank 16, the rest dense Gaussian

with m <= n, r = m, G standard Gaussian, so that G / sqrt(n) has the Marchenko-Pastur edge e = 1 + sqrt(m / n). u and v
are exactly orthonormal, from thin QRs of [m, m/4] and [n, m/4] Gaussians, never of a full matrix; adding the bulk
moves the singular values of the sum off the power law, as noise does. The update is rel ||W0||_F in size, added in
f32 and rounded to bf16, so the stored W_t - W0 also holds rounding noise. Seen at 2048 x 2048, heavy:

    rl,  rel 1e-3   78 % unchanged   nss 1.8e-5   angles at k = 64 up to about 0.3 degrees
    sft, rel 1e-2   18 % unchanged   nss 2.1e-4   angles at k = 64 up to about 4 degrees

which are the regimes of arXiv 2511.08567 and 2606.07082. Not modelled: outlier columns, and updates that avoid or
follow W0's own directions. One seed gives one matrix per device and torch version.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SCALE = 0.02  # standard deviation of the weights
DECAY, SHARE, HEIGHT = 0.45, 4, 4.5  # of the power law: exponent, one rank in SHARE, first value in bulk edges
SPIKES = (4.0, 2.0, 8)  # highest and lowest in bulk edges, number


@dataclass(frozen=True)
class Update:
    """An update: its rank-`rank` part has the share `energy` of ||dW||_F^2; rel is its usual size over ||W0||_F."""

    energy: float
    rank: int
    rel: float


UPDATES = {"rl": Update(0.3, 8, 1e-3), "sft": Update(0.6, 16, 1e-2)}
WEIGHTS = ("heavy", "flat")


def weight(kind: str, m: int, n: int, seed: int, device: str = "cpu") -> Tensor:
    """W0 [m, n] in bf16. kind: heavy or flat. Errors: ValueError for another kind."""
    if kind not in WEIGHTS:
        raise ValueError(f"weight {kind!r} is not one of {', '.join(WEIGHTS)}")
    generator = torch.Generator(device).manual_seed(seed)
    low, high = sorted((m, n))
    if kind == "heavy":
        sigma = HEIGHT * torch.arange(1, max(1, low // SHARE) + 1, device=device).float() ** -DECAY
    else:
        top, bottom, count = SPIKES
        sigma = torch.linspace(top, bottom, min(count, low), device=device)
    sigma *= 1 + math.sqrt(low / high)
    made = torch.randn(m, n, generator=generator, device=device).div_(math.sqrt(high))
    left, right = (_orthonormal(extent, len(sigma), generator) for extent in (m, n))
    made.addmm_(left * sigma, right.T)
    return made.mul_(SCALE * math.sqrt(m * n) / torch.linalg.vector_norm(made)).bfloat16()


def updated(w0: Tensor, kind: str, rel: float, seed: int) -> Tensor:
    """W_t [m, n] in bf16: w0 plus an update of `kind` and size rel ||W0||_F. kind: rl or sft, else ValueError."""
    return next(trajectory(w0, kind, rel, 1, seed))


def trajectory(w0: Tensor, kind: str, rel: float, count: int, seed: int) -> Iterator[Tensor]:
    """W_1 .. W_count [m, n] in bf16, whose updates grow to rel ||W0||_F. kind: rl or sft, else ValueError.

        W_t = W0 + rel ||W0||_F t / count (sqrt(energy) D / ||D||_F + sqrt(1 - energy) G_t / ||G_t||_F)

    D, of the kind's rank, is one direction for all steps; G_t is Gaussian, drawn anew at each.
    """
    if kind not in UPDATES:
        raise ValueError(f"update {kind!r} is not one of {', '.join(UPDATES)}")
    update, (m, n) = UPDATES[kind], w0.shape
    generator = torch.Generator(w0.device).manual_seed(seed)
    left, right = (
        torch.randn(extent, update.rank, generator=generator, device=w0.device) / math.sqrt(extent) for extent in (m, n)
    )
    # ||left right'||_F from the two small Gram matrices.
    norm = ((left.T @ left) * (right.T @ right)).sum().sqrt()
    before = w0.float()
    whole = rel * float(torch.linalg.vector_norm(before))
    for step in range(1, count + 1):
        size = whole * (step / count)
        made = torch.randn(m, n, generator=generator, device=w0.device)
        made *= math.sqrt(1 - update.energy) * size / torch.linalg.vector_norm(made)
        made.addmm_(left * (math.sqrt(update.energy) * size / norm), right.T)
        yield made.add_(before).bfloat16()


def _orthonormal(extent: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(extent, count, generator=generator, device=generator.device)).Q
