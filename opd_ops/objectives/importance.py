"""Token-level importance weights w = min(s(y) / q(y), cap), for tokens y that another policy q drew; no gradient.

Uncut, E_q[w f(y)] = E_s[f(y)] on a fixed prefix, so every sampled estimator follows its divergence again. A cap bounds
the variance and biases towards tokens that q draws more often. Prefixes stay q's: not measured, and not corrected, is
how often the student would have reached them (the product of earlier ratios, whose variance is unbounded in length).

    effective sample size, normalised: (sum w)^2 / (N sum w^2) over the N tokens under the mask, 1 when all are equal
"""

import torch
from torch import Tensor

from opd_ops.batch import Batch

LIMIT = 20.0  # nats, of a log ratio before it is exponentiated: e^20 and its square are finite in fp32


def ratio(log_s_y: Tensor, behaviour: Tensor) -> Tensor:
    """s(y) / q(y), [B, R], from two log-probabilities [B, R]; with the student's gradient, none beyond e^+-20."""
    return (log_s_y - behaviour.detach()).clamp(-LIMIT, LIMIT).exp()


def weights(log_s_y: Tensor, behaviour: Tensor, cap: float | None) -> Tensor:
    """Weights [B, R] fp32 without gradient; cap None leaves them uncut."""
    uncut = ratio(log_s_y.detach(), behaviour)
    return uncut if cap is None else uncut.clamp(max=cap)


def effective(weights: Tensor, mask: Tensor) -> float:
    """Normalised effective sample size in (0, 1] over the tokens under the mask; 0 where there are none."""
    w = weights[mask > 0].double()
    return float(w.sum().square() / (len(w) * w.square().sum())) if len(w) else 0.0


def cut(weights: Tensor, mask: Tensor, cap: float | None) -> float:
    """Share of the tokens under the mask whose weight is at the cap."""
    w = weights[mask > 0]
    return float((w >= torch.tensor(cap, dtype=w.dtype)).double().mean()) if cap is not None and len(w) else 0.0


class StepWeights:
    """The importance weights of a step's micro-batches, and what the training table says of them.

    cap: as in `weights`.
    """

    def __init__(self, cap: float | None) -> None:
        self.cap = cap
        self.parts: list[tuple[Tensor, Tensor]] = []  # weights and mask of a micro-batch

    def add(self, log_s_y: Tensor, part: Batch) -> Tensor:
        """The weights [B, R] of a micro-batch."""
        assert part.behaviour is not None
        ratios = weights(log_s_y, part.behaviour, self.cap)
        self.parts.append((ratios, part.mask))
        return ratios

    def summary(self) -> dict[str, float | None]:
        """Columns ess and clipped; nothing before the first micro-batch."""
        if not self.parts:
            return {}
        ratios, mask = (torch.cat([part[i] for part in self.parts]) for i in range(2))
        return {"ess": effective(ratios, mask), "clipped": cut(ratios, mask, self.cap)}

    def measurements(self) -> list[tuple[Tensor, Tensor]]:
        """For `merge`, on the CPU."""
        return [(ratios.cpu(), mask.cpu()) for ratios, mask in self.parts]

    def merge(self, measurements: list[tuple[Tensor, Tensor]], device: torch.device) -> None:
        """Add another process' `measurements`."""
        self.parts += [(ratios.to(device), mask.to(device)) for ratios, mask in measurements]
