"""Chooses the f32 matrix product of the engine by probing its accuracy and speed.

    error  = max_j ||fl(A b_j) - A b_j||_2 / ||A b_j||_2      over Gaussian A [512, 2048], b [2048, 64], against float64

"highest" is torch's name for plain f32. A faster path ("high", "medium": TF32 on GPUs, oneDNN or AMX on CPUs) may be
f32 on one machine and bfloat16 on another, so it is used only if its error is below LIMIT. Not measured: products whose
columns cancel, which lose more digits in any arithmetic.
torch's setting applies to the whole process and would change the bytes of training and sampling, so it is set only
around the engine's own products.
Source: torch.set_float32_matmul_precision; error model: Higham and Mary, SIAM J. Sci. Comput. 41 (2019).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

LIMIT = 2e-6  # plain f32 shows 3e-7 to 6e-7, TF32 3e-4, bfloat16 2e-3
FASTER = 1.3  # speed-up that a path other than "highest" must show
PATHS = ("highest", "high", "medium")

Product = Callable[[Tensor, Tensor], Tensor]


class ReducedPrecision(ValueError):
    """A matrix product in f32 that has less than f32 accuracy."""


@dataclass(frozen=True)
class Probe:
    """path: torch's name of the product. error: relative, see the module. gflops: 1e9 floating operations a second."""

    path: str
    error: float
    gflops: float

    @property
    def noise(self) -> float:
        """The error that certificates assume: four times the probed error, since other data round differently."""
        return 4.0 * self.error


def probe_path(path: str = "highest", device: str = "cpu", product: Product = torch.mm) -> Probe:
    """Accuracy and speed of one path. Errors: ReducedPrecision above LIMIT."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(512, 2048, generator=generator).to(device)
    b = torch.randn(2048, 64, generator=generator).to(device)
    with use_path(path):
        result, seconds = product(a, b), []
        for _ in range(5):
            begun = time.perf_counter()
            result = product(a, b)
            if result.is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
    exact = a.double() @ b.double()
    error = float(((result.double() - exact).norm(dim=0) / exact.norm(dim=0)).max())
    if not error < LIMIT:
        raise ReducedPrecision(
            f"f32 matrix products on {device} have a relative error of {error:.1e} (path {path!r}), f32 has below "
            f"{LIMIT:.0e}: reduced precision is active; unset TF32 and bf16 settings for this process"
        )
    return Probe(path, error, 2 * a.numel() * b.shape[1] / min(seconds) / 1e9)


@cache
def choose_path(device: str = "cpu") -> Probe:
    """The path to use on a device: "highest", or the fastest accurate path whose speed-up exceeds FASTER."""
    best = probe_path("highest", device)
    for path in PATHS[1:]:
        try:
            probe = probe_path(path, device)
        except ReducedPrecision:
            continue
        # The same error to the last bit is the same kernel, and its speed is noise.
        if probe.error != best.error and probe.gflops > FASTER * best.gflops:
            best = probe
    return best


@cache
def check_path(path: str, device: str = "cpu") -> Probe:
    """The probe, on this machine, of a path that was chosen on another one. Errors: ReducedPrecision."""
    return probe_path(path, device)


@contextmanager
def use_path(path: str) -> Iterator[None]:
    """A block whose f32 products use this path."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(path)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
