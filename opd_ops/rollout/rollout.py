"""The rollout contract: ragged token lists in and out, with a log-probability for every generated token.

Each sample draws its uniforms from a generator of its own, keyed by (seed, step, prompt index, sample index), and
sampling calls have a fixed number of rows, so a result does not depend on how many actors share the calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

Tokens = list[int]
Address = tuple[int, int, int, int]  # seed, step, prompt index, sample index


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn: softmax(logits / temperature), nothing cut; temperature 0 is greedy. batch: rows a call.

    stops: tokens that end a response as EOS does.
    """

    max_new_tokens: int
    temperature: float
    eos: int
    pad: int
    batch: int = 64
    stops: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, ...]:
        """EOS and the other tokens that end a response."""
        return self.eos, *self.stops


@dataclass(frozen=True, kw_only=True)
class Request:
    """One response that is wanted: the prompt's tokens and the address of its uniforms."""

    prompt: Tokens
    address: Address


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One generated response: tokens, with EOS where it was drawn, and their log-probabilities.

    Those are of the sampling temperature; a greedy response has those of temperature 1. version: of the weights.
    """

    tokens: Tokens
    logprobs: list[float]
    truncated: bool  # the length limit came before EOS
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Synced:
    """Proof of a weight push. digest: SHA-256 over the tensors the engine now serves, as bf16, sorted by name."""

    version: int
    tensors: int
    bytes: int
    digest: str


class Engine(Protocol):
    """Draws responses from a model whose weights are pushed into it.

    Errors of `generate`: ValueError when `version` is not that of the weights it holds.
    """

    name: str  # hf or vllm
    release: str  # the package's version

    @property
    def version(self) -> int:
        """Optimizer steps behind the weights it holds; -1 before the first push."""
        ...

    def sync(self, weights: Mapping[str, Tensor], version: int) -> Synced:
        """Take over weights by parameter name, and label them. Whatever was cached of older ones is dropped."""
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling, *, version: int) -> list[Sampled]:
        """One response per request, in order."""
        ...

    def score(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> list[list[float]]:
        """Log-probabilities of given responses at temperature 1: the probe that compares engines."""
        ...

    def sleep(self) -> None:
        """Give memory back; weights must be pushed again before the next use."""
        ...

    def wake(self) -> None: ...


def uniforms(address: Address, count: int) -> np.ndarray:
    """`count` float64 uniforms in [0, 1) of one sample: Philox keyed by the sample's address."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(address))).random(count)
