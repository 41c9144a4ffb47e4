"""The recipe in use, and the single factorizations it is measured against: what the engine replaces.

The published recipe, per matrix and snapshot, all in f32: a full SVD of W0 and one of W_t, principal angles as
arccos(clamp(sigma(Q0' Qt))), nss from the two spectra, ranks from the singular values of W_t - W0, and the share of
equal weights. It keeps nothing between snapshots. Its angles are wrong where they are small: in f32 a cosine cannot
tell angles below about 0.02 degrees apart.
Source: arXiv 2606.07082, section 3.1 and appendix C.3, and its public reimplementations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_ops.geometry.exact import principal_angles


@dataclass(frozen=True)
class Plain:
    """output_deg, input_deg: [k] ascending, f32."""

    unchanged: float
    output_deg: Tensor
    input_deg: Tensor
    nss: float
    stable_rank: float
    effective_rank: float


def plain(w0: Tensor, w_t: Tensor, k: int) -> Plain:
    """The published recipe for one matrix [m, n] and one snapshot."""
    before, after = w0.float(), w_t.float()
    u0, s0, v0 = torch.linalg.svd(before, full_matrices=False)
    u1, s1, v1 = torch.linalg.svd(after, full_matrices=False)
    s = torch.linalg.svdvals(after - before)
    p = s / s.sum()
    return Plain(
        unchanged=float((w0 == w_t).float().mean()),
        output_deg=arccos_angles(u0[:, :k], u1[:, :k]),
        input_deg=arccos_angles(v0[:k].T, v1[:k].T),
        nss=float((s1 - s0).norm() / s0.norm()),
        stable_rank=float(s.square().sum() / s[0] ** 2),
        effective_rank=float((-p * torch.log(p.clamp(min=1e-30))).sum().exp()),
    )


def arccos_angles(q0: Tensor, q1: Tensor) -> Tensor:
    """Principal angles in degrees between orthonormal q0, q1 [n, k], ascending, by cosines alone."""
    return torch.rad2deg(torch.arccos(torch.linalg.svdvals(q0.T @ q1).clamp(-1.0, 1.0)))


@dataclass(frozen=True)
class Leading:
    """Leading k singular vectors, float64: u [m, k], v [n, k]."""

    u: Tensor
    v: Tensor

    def angles(self, other: "Leading") -> dict[str, Tensor]:
        """Principal angles in degrees by side, ascending, by sines where they are small."""
        return {"output": principal_angles(self.u, other.u), "input": principal_angles(self.v, other.v)}


def gram(w: Tensor, k: int) -> Leading:
    """Leading k singular vectors of w [m, n] by the float64 Gram matrix of its shorter side: eigh, then projection."""
    a = w.double()
    if a.shape[0] > a.shape[1]:
        turned = gram(a.T, k)
        return Leading(turned.v, turned.u)
    energy, near = torch.linalg.eigh(a @ a.T)
    near = near[:, -k:].flip(1)
    far = a.T @ near / energy[-k:].flip(0).sqrt()
    return Leading(near, far)
