"""The rollout contract: ragged token lists in and out, with a log-probability for every generated token.

Each sample draws its uniforms from a generator of its own, keyed by (seed, step, prompt index, sample index), so a
result depends neither on the batch split nor on how many actors share the work.
"""

from dataclasses import dataclass

import numpy as np

Tokens = list[int]


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One generated response: tokens with EOS where it was drawn, and their log-probabilities at temperature 1."""

    tokens: Tokens
    logprobs: list[float]
    truncated: bool  # the length limit came before EOS


def uniforms(seed: int, step: int, prompt: int, sample: int, count: int) -> np.ndarray:
    """`count` float64 uniforms in [0, 1) of one sample: Philox keyed by the sample's address."""
    address = np.random.SeedSequence((seed, step, prompt, sample))
    return np.random.Generator(np.random.Philox(address)).random(count)
