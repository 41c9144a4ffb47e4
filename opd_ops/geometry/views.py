"""The two views of a stored weight: bf16(w) = RN_8(w), which is served, and master(w) = w, which is trained.

A view is returned in float64, which represents both exactly, so differences W_t - W0 have no storage rounding.
Not measured: rounding before the weight was stored (by the optimizer, or by a cast). bf16 rounding is torch's cast, to
nearest even; from fp64 it goes through fp32.
"""

import torch
from torch import Tensor

CHUNK = 1 << 19  # weights rounded at a time, so that they stay in the cache
INFINITY = 0x7F80  # its bf16 pattern
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64"}


def dtype_name(stored: torch.dtype) -> str:
    """bf16, fp16, fp32 or fp64. ValueError for any other dtype."""
    if stored not in NAMES:
        raise ValueError(f"weights are stored as {stored}; geometry reads {', '.join(NAMES.values())}")
    return NAMES[stored]


def views_of_dtype(stored: torch.dtype) -> tuple[str, ...]:
    """The views of a stored dtype. master exists only if its significand is longer than bf16's 8 bits."""
    return ("bf16",) if dtype_name(stored) == "bf16" else ("bf16", "master")


def as_view(w: Tensor, view: str) -> Tensor:
    """The view's values as float64, in the shape of w. ValueError for an unknown view or dtype."""
    dtype_name(w.dtype)
    if view not in ("bf16", "master"):
        raise ValueError(f"view {view!r} is neither bf16 nor master")
    w = w.detach()
    return (w.to(torch.bfloat16) if view == "bf16" else w).to(torch.float64)


def count_nonfinite(w: Tensor, view: str = "bf16") -> int:
    """Number of NaN and infinite weights of a view; rounding to bf16 may overflow where a wider dtype does not."""
    dtype_name(w.dtype)
    if view == "master":
        return sum(int((~torch.isfinite(chunk)).sum()) for chunk in w.detach().reshape(-1).split(CHUNK))
    count = 0
    for chunk in w.detach().reshape(-1).split(CHUNK):
        patterns = chunk.to(torch.bfloat16).view(torch.int16).numpy()
        # Finite positive patterns are below infinity's; as unsigned integers, negative patterns are offset by 0x8000.
        if patterns.max(initial=0) >= INFINITY or patterns.view("u2").max(initial=0) >= INFINITY + 0x8000:
            count += int(((patterns & 0x7FFF) >= INFINITY).sum())
    return count
