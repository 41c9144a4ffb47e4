"""The recipe in use, and the single factorizations it is measured against: what the engine replaces.

The published recipe, per matrix and snapshot, all in f32: a full SVD of W0 and one of W_t, principal angles as
arccos(clamp(sigma(Q0' Qt))), nss from the two spectra, ranks from the singular values of W_t - W0, and the share of
equal weights. It keeps nothing between snapshots; `prepare` apart from `compare` is the recipe with W0's SVD kept.
Its angles are wrong where they are small: in f32 a cosine cannot tell angles below about 0.02 degrees apart.
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


@dataclass(frozen=True)
class Base:
    """What the recipe computes of W0: its weights, f32 factors W0 = u diag(s) v with u [m, r], s [r], v [r, n]."""

    weight: Tensor
    u: Tensor
    s: Tensor
    v: Tensor


def prepare(w0: Tensor) -> Base:
    """The SVD of W0, which the published recipe computes again for every snapshot."""
    return Base(w0, *torch.linalg.svd(w0.float(), full_matrices=False))


def compare(base: Base, w_t: Tensor, k: int) -> Plain:
    """The rest of the recipe, for one snapshot [m, n]."""
    after = w_t.float()
    u, s, v = torch.linalg.svd(after, full_matrices=False)
    moved = torch.linalg.svdvals(after - base.weight.float())
    p = moved / moved.sum()
    return Plain(
        unchanged=float((base.weight == w_t).float().mean()),
        output_deg=arccos_angles(base.u[:, :k], u[:, :k]),
        input_deg=arccos_angles(base.v[:k].T, v[:k].T),
        nss=float((s - base.s).norm() / base.s.norm()),
        stable_rank=float(moved.square().sum() / moved[0] ** 2),
        effective_rank=float((-p * torch.log(p.clamp(min=1e-30))).sum().exp()),
    )


def plain(w0: Tensor, w_t: Tensor, k: int) -> Plain:
    """The published recipe for one matrix [m, n] and one snapshot."""
    return compare(prepare(w0), w_t, k)


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
