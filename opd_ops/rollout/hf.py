"""The Hugging Face engine: KV-cached batched sampling by inverse CDF, in this process.

Calls have `Sampling.batch` rows each, filled in the order of the requests, so that a response depends on the requests
of its own call alone, and on those by float rounding only. Llama, Qwen2 and Qwen3 models run through `Decoder`, others
through their own forward.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from opd_ops.rollout.decoder import Decoder, is_plain
from opd_ops.rollout.decoding import Decoding
from opd_ops.rollout.draw import draw
from opd_ops.rollout.model_decoding import ModelDecoding
from opd_ops.rollout.rollout import Request, Sampled, Sampling, Synced, Tokens, uniforms

LOOK = 8  # tokens between checks of which rows have ended, on a device whose queue a check would drain


class HfEngine:
    """Samples from a Hugging Face causal model on the device where it is.

    shared: the model is the trainer's own. A push then copies nothing and only labels what is there, digests are ""
    (hashing a model each step costs more than the push), and the engine never sleeps. Otherwise the engine owns the
    model and its weights are what was last pushed. Nothing derived from the weights outlives a call of `generate`.
    """

    name = "hf"
    release = transformers.__version__

    def __init__(self, model: PreTrainedModel, *, shared: bool = True) -> None:
        self.model, self.shared = model, shared
        self._version = -1
        self._home: torch.device | None = None  # where an engine that is asleep belongs

    @property
    def version(self) -> int:
        return self._version

    def sync(self, weights: Mapping[str, Tensor], version: int) -> Synced:
        """Errors: ValueError naming missing, unknown or misshapen tensors, before any is copied."""
        served = dict(self.model.named_parameters())
        if not self.shared:
            _require_shapes(weights, served)
            with torch.no_grad():
                for name, parameter in served.items():
                    parameter.copy_(weights[name])
        self._version = version
        return Synced(
            version=version,
            tensors=len(served),
            bytes=sum(p.numel() * p.element_size() for p in served.values()),
            digest="" if self.shared else _digest(served),
        )

    def generate(self, requests: Sequence[Request], sampling: Sampling, *, version: int) -> list[Sampled]:
        """Errors: ValueError for another version, and for an empty prompt; FloatingPointError for NaN logits."""
        if version != self.version:
            raise ValueError(
                f"weights of version {version} were asked for, and the engine holds version {self.version}"
            )
        if any(not request.prompt for request in requests):
            raise ValueError("an empty prompt has no next token; begin it with the model's first token")
        responses: list[Sampled] = []
        with _evaluation_mode(self.model):
            decoder = Decoder(self.model) if is_plain(self.model) else None
            for first in range(0, len(requests), sampling.batch):
                rows = requests[first : first + sampling.batch]
                prompts = [request.prompt for request in rows]
                if decoder is None:
                    call = ModelDecoding(self.model, prompts, pad=sampling.pad)
                else:
                    call = Decoding(decoder, prompts, max_new_tokens=sampling.max_new_tokens, pad=sampling.pad)
                responses += self._sample(call, rows, sampling)
        return responses

    def _sample(self, call: ModelDecoding | Decoding, requests: Sequence[Request], sampling: Sampling) -> list[Sampled]:
        device, count = self.model.device, sampling.max_new_tokens
        u = None
        if sampling.temperature > 0:
            u = torch.from_numpy(np.stack([uniforms(request.address, count) for request in requests])).to(device)
        tokens = torch.full((len(requests), count), sampling.eos, device=device)
        logprobs = torch.zeros((len(requests), count), device=device)
        rows = torch.arange(len(requests), device=device)  # requests whose rows are still in the cache
        alive = torch.ones(len(requests), dtype=torch.bool, device=device)
        logits = call.logits
        for t in range(count):
            token, logprob = draw(logits, None if u is None else u[rows, t], sampling.temperature)
            tokens[rows, t], logprobs[rows, t] = token, logprob
            for end in sampling.ends:
                alive &= token != end
            if t + 1 == count:
                break
            if device.type == "cpu" or t % LOOK == LOOK - 1:
                unfinished = int(alive.sum())
                if unfinished == 0:
                    break
                # Copying the rows of the KV cache pays off when it halves the work.
                if 2 * unfinished <= len(rows):
                    selected = alive.nonzero()[:, 0]
                    call.select_rows(selected)
                    rows, alive, token = rows[selected], alive[selected], token[selected]
            logits = call.advance(token)
        return _collect(tokens.cpu().numpy(), logprobs.cpu().numpy(), sampling.ends, self.version)

    def score(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> list[list[float]]:
        """One row at a time, unpadded and uncached, through the model's own forward; fp32 log-softmax."""
        scores = []
        with _evaluation_mode(self.model):
            for prompt, response in zip(prompts, responses, strict=True):
                ids = torch.tensor([[*prompt, *response]], device=self.model.device)
                logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(response) + 1).logits[0, :-1]
                logprobs = torch.log_softmax(logits.float(), -1).gather(1, ids[0, len(prompt) :, None])
                scores.append(logprobs[:, 0].tolist())
        return scores

    def sleep(self) -> None:
        """Move an owned model off its GPU, and forget the version. On a CPU, or shared: nothing."""
        device = self.model.device
        if not self.shared and device.type != "cpu":
            self._home, self._version = device, -1
            self.model.to("cpu")  # type: ignore[arg-type]
            torch.cuda.empty_cache()

    def wake(self) -> None:
        """Move the model back; weights must be pushed before the next use."""
        if self._home is not None:
            self.model.to(self._home)  # type: ignore[arg-type]
            self._home = None


@contextmanager
def _evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """No gradients and no dropout; a model that trains with recomputed activations would also refuse a cache."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _require_shapes(weights: Mapping[str, Tensor], served: Mapping[str, Tensor]) -> None:
    if missing := sorted(served.keys() - weights.keys()):
        raise ValueError(f"the pushed weights lack {', '.join(missing)}")
    if unknown := sorted(weights.keys() - served.keys()):
        raise ValueError(f"the model has no {', '.join(unknown)}")
    for name, parameter in served.items():
        if weights[name].shape != parameter.shape:
            pushed, wanted = tuple(weights[name].shape), tuple(parameter.shape)
            raise ValueError(f"tensor {name} was pushed with shape {pushed}, and the model's is {wanted}")


def _digest(served: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors as bf16, sorted by name."""
    total = hashlib.sha256()
    for name in sorted(served):
        bits = served[name].detach().to(torch.bfloat16).contiguous().view(torch.int16)
        total.update(bits.cpu().numpy().data)
    return total.hexdigest()


def _collect(tokens: np.ndarray, logprobs: np.ndarray, ends: tuple[int, ...], version: int) -> list[Sampled]:
    """The rows, each cut after its first token of `ends`; tokens drawn past it are dropped.

    Errors: FloatingPointError for NaN.
    """
    responses = []
    for row, scores in zip(tokens, logprobs, strict=True):
        places = np.flatnonzero(np.isin(row, ends))
        length = int(places[0]) + 1 if len(places) else len(row)
        if np.isnan(scores[:length]).any():
            raise FloatingPointError("the model's logits are not numbers; its weights may have diverged")
        responses.append(
            Sampled(
                tokens=row[:length].tolist(),
                logprobs=scores[:length].tolist(),
                truncated=not len(places),
                version=version,
            )
        )
    return responses
