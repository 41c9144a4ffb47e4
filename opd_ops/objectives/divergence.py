"""The divergence that a recipe names, as a function of two distributions: see `reverse_kl`, `forward_kl`, `jsd`."""

from torch import Tensor

from opd_ops.objectives import forward_kl, jsd, reverse_kl
from opd_ops.recipe.opd import Divergence


def per_token(log_s: Tensor, log_t: Tensor, divergence: Divergence, beta: float | None = None) -> Tensor:
    """[B, R] in nats from normalised log-probabilities [B, R, V]; beta is jsd's.

    Errors: ValueError for `none`, which no distribution-level divergence is.
    """
    if divergence == "reverse-kl":
        return reverse_kl.per_token(log_s, log_t)
    if divergence == "forward-kl":
        return forward_kl.per_token(log_s, log_t)
    if divergence == "jsd" and beta is not None:
        return jsd.per_token(log_s, log_t, beta)
    raise ValueError(f"no divergence of two distributions: {divergence!r} with beta {beta}")
