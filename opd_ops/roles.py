"""Which role each weight plays, from its Hugging Face name alone. Loads nothing heavy."""

import re

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
_DECODER = re.compile(
    r"(?:^|\.)layers\.(\d+)\.(?:self_attn|(?:mlp|feed_forward)(?:\.experts\.\d+|\.shared_experts?)?)"
    r"\.(q|k|v|o|gate|up|down)_proj\.weight$"
)
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def role(name: str) -> tuple[int | None, str]:
    """Layer index and role of a parameter by its Hugging Face name.

    Roles: q k v o gate up down (decoder projections), embed, head, norm, bias, other.
    """
    if match := _DECODER.search(name):
        return int(match[1]), match[2]
    layer = int(match[1]) if (match := _LAYER.search(name)) else None
    if name.endswith(".bias"):
        return layer, "bias"
    if name.endswith("embed_out.weight"):
        return layer, "head"
    if "embed" in name or name.endswith("wte.weight"):
        return layer, "embed"
    if "lm_head" in name:
        return layer, "head"
    return layer, "norm" if "norm" in name or ".ln_" in name else "other"
