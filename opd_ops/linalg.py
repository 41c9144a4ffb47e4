"""Formulas that geometry and training share: leading singular vectors, stable rank, similarity of subspaces.

    stable rank     ||E||_F^2 / ||E||_2^2, in [1, min(m, n)]
    Sim_k(Q0, Q1)   ||Q0' Q1||_F^2 / k of orthonormal Q0, Q1 [n, k]: the mean squared cosine of their principal angles

Source: arXiv 2606.07082, sections 4.1 and 4.2.
"""

import torch
from torch import Tensor


def gram_factors(a: Tensor, vectors: int) -> tuple[Tensor, Tensor, Tensor]:
    """U [m, q], all singular values s [r] descending and V [n, q] of A [m, n]; r = min(m, n), q = min(vectors, r).

    By eigh of the smaller Gram matrix, in A's dtype; the other side is the thin QR of A'U, which spans what A'U / sigma
    spans but stays orthonormal and finite where sigma is 0. |d sigma_k| <= c eps sigma_1^2 / sigma_k, c = max(m, n).
    """
    if a.shape[0] > a.shape[1]:
        v, s, u = gram_factors(a.T, vectors)
        return u, s, v
    energy, near = torch.linalg.eigh(a @ a.T)
    near = near.flip(1)[:, :vectors].clone()  # so that the dropped vectors can be freed
    far, triangle = torch.linalg.qr(a.T @ near)
    far = far * torch.where(triangle.diagonal() < 0, -1.0, 1.0)
    return near, energy.flip(0).clamp(min=0.0).sqrt(), far


def stable_rank(frobenius: float, spectral: float) -> float:
    """From the two norms of a matrix that is not zero."""
    return (frobenius / spectral) ** 2


def similarity(cosines: Tensor) -> Tensor:
    """Sim_k [...] from products Q0' Q1 [..., k, k] of orthonormal bases; at most 1, which rounding may pass."""
    return (cosines.square().sum((-2, -1)) / cosines.shape[-1]).clamp(max=1.0)
