"""The two views of a stored weight: bf16(w) = RN_8(w), what is served, and master(w) = w, what is trained.

A view is returned in float64, where both are exact, so every later difference W_t - W0 is free of storage rounding.
Not measured here: the error that made the stored value (optimizer rounding, or a cast done before it was saved).
Rounding is torch's own cast, to nearest even; from fp64 it passes through fp32.
"""

import torch
from torch import Tensor

CHUNK = 1 << 19  # weights rounded at once, so that they stay in the cache
INFINITY = 0x7F80  # its bf16 pattern
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64"}


def dtype_name(stored: torch.dtype) -> str:
    """bf16, fp16, fp32 or fp64. ValueError for any other dtype."""
    if stored not in NAMES:
        raise ValueError(f"weights are stored as {stored}; geometry reads {', '.join(NAMES.values())}")
    return NAMES[stored]


def views_of_dtype(stored: torch.dtype) -> tuple[str, ...]:
    """The views a stored dtype supports: master exists only where the significand is longer than bf16's 8 bits."""
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
    found = 0
    for chunk in w.detach().reshape(-1).split(CHUNK):
        patterns = chunk.to(torch.bfloat16).view(torch.int16).numpy()
        # Without the sign, finite weights are below infinity; with it, negative ones come last as unsigned integers.
        if patterns.max(initial=0) >= INFINITY or patterns.view("u2").max(initial=0) >= INFINITY + 0x8000:
            found += int(((patterns & 0x7FFF) >= INFINITY).sum())
    return found
