"""Planted matrices: W0 = U diag(s) V' with known factors, and updates whose diagnostics have closed forms."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from opd_ops.geometry.bitset import Packer
from opd_ops.geometry.suite import Measurement, Settings, measure_matrix


@dataclass(frozen=True)
class Planted:
    u: Tensor
    s: Tensor
    v: Tensor

    @property
    def weight(self) -> Tensor:
        return (self.u * self.s) @ self.v.T

    def turned(self, side: str, inside: int, outside: int, degrees: float) -> Tensor:
        """R(theta) W0 or W0 R(theta)': one singular vector turned towards another of the same side."""
        basis = {"output": self.u, "input": self.v}[side].clone()
        theta = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        a, b = basis[:, inside].clone(), basis[:, outside].clone()
        basis[:, inside] = theta.cos() * a + theta.sin() * b
        basis[:, outside] = theta.cos() * b - theta.sin() * a
        return (basis * self.s) @ self.v.T if side == "output" else (self.u * self.s) @ basis.T


def _orthonormal(n: int, k: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q


@pytest.fixture
def orthonormal() -> Callable[..., Tensor]:
    """orthonormal(n, k, seed) -> [n, k] float64 with Q'Q = I."""
    return _orthonormal


@pytest.fixture
def planted() -> Callable[..., Planted]:
    """planted(m, n, seed, s=None): W0 with the given spectrum, or one falling linearly from 2 to 1."""

    def make(m: int, n: int, seed: int = 0, s: Tensor | None = None) -> Planted:
        r = min(m, n)
        spectrum = torch.linspace(2.0, 1.0, r, dtype=torch.float64) if s is None else s
        return Planted(_orthonormal(m, r, seed), spectrum, _orthonormal(n, r, seed + 1))

    return make


@pytest.fixture
def pair() -> Callable[..., Measurement]:
    """pair(w0, w, **settings): one snapshot at step 1 of a projection."""

    def run(w0: Tensor, w: Tensor, **settings: tuple) -> Measurement:
        return measure_matrix(w0, [(1, w)], settings=Settings(**settings), projection=True)

    return run


@pytest.fixture
def trajectory() -> Callable[..., tuple[Tensor, list[tuple[int, Tensor]]]]:
    """trajectory(m, n, steps): bf16-representable W0 and fp32 snapshots with a drifting and a noisy part."""

    def make(m: int, n: int, steps: int) -> tuple[Tensor, list[tuple[int, Tensor]]]:
        generator = torch.Generator().manual_seed(m * n)
        draw = lambda: torch.randn(m, n, generator=generator)
        w0, drift = (0.02 * draw()).bfloat16().float(), 1e-3 * draw()
        return w0, [(t, w0 + drift * t / steps + 1e-4 * draw()) for t in range(1, steps + 1)]

    return make


def _weight(spectrum: str, m: int, n: int, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W0 [m, n] float64 and its u, s, v. degenerate: sigma_k = sigma_{k+1}."""
    generator = torch.Generator().manual_seed(seed)
    r = min(m, n)
    index = torch.arange(1, r + 1, dtype=torch.float64)
    noise = torch.rand(r, generator=generator, dtype=torch.float64)
    s = {
        "heavy": index**-0.45,
        "flat": 1.0 + 0.1 * noise,
        "clustered": 1.0 + torch.floor(4 * noise) + 1e-4 * torch.rand(r, generator=generator, dtype=torch.float64),
        "geometric": torch.logspace(0, -3 * float(noise[0]), r, dtype=torch.float64),
        "degenerate": torch.ones(r, dtype=torch.float64),
        "low_rank": torch.where(index <= k + 3, 1 / index, 1e-12),
    }[spectrum]
    s = s.sort(descending=True).values
    if spectrum == "degenerate":
        s[:k], s[k - 1 : k + 1] = 2.0, 1.5
    u, v = (torch.linalg.qr(torch.randn(x, r, generator=generator, dtype=torch.float64)).Q for x in (m, n))
    return 0.02 * (u * s) @ v.T, u, 0.02 * s, v


def _updated(w0: Tensor, u: Tensor, v: Tensor, kind: str, k: int, relative: float, seed: int) -> Tensor:
    """W0 + E with ||E||_F = relative ||W0||_F, in f32."""
    generator = torch.Generator().manual_seed(seed)
    m, n = w0.shape
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    kinds = {"sft": (16, 0.6), "rl": (8, 0.3), "low_rank": (2, 1.0), "dense": (1, 0.0), "in_space": (1, 1.0)}
    rank, share = kinds[kind]
    low = u[:, : k + 1] @ draw(k + 1, k + 1) @ v[:, : k + 1].T if kind == "in_space" else draw(m, rank) @ draw(rank, n)
    dense = draw(m, n)
    e = low * (share**0.5 / low.norm()) + dense * ((1 - share) ** 0.5 / dense.norm())
    return (w0 + e * (relative * w0.norm())).float()


@pytest.fixture(scope="session")
def weight() -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    """weight(spectrum, m, n, k, seed) -> W0, u, s, v; spectra in which bounds are hard to keep."""
    return _weight


@pytest.fixture(scope="session")
def updated() -> Callable[..., Tensor]:
    """updated(w0, u, v, kind, k, relative, seed) -> W_t f32."""
    return _updated


def pack_bits(*chunks):
    """The set of consecutive bool tensors."""
    packer = Packer()
    for chunk in chunks:
        packer.add(chunk.numpy())
    return packer.bits()
