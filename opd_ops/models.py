"""Models: build or load a Hugging Face decoder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)
from transformers.utils import logging

from opd_ops import packing
from opd_ops.recipe import Architecture

EXTENTS = ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")
FAMILIES = {"qwen3": Qwen3Config, "llama": LlamaConfig}


def configuration(architecture: Architecture, *, pad: int, bos: int | None, eos: int) -> PretrainedConfig:
    """Configuration of a from-scratch decoder with tied embeddings and no dropout.

    pad, bos, eos: tokens of the task. Errors: ValueError for one past the vocabulary.
    """
    for name, token in (("pad", pad), ("bos", bos), ("eos", eos)):
        if token is not None and not 0 <= token < architecture.vocab_size:
            raise ValueError(
                f"the task's {name} token {token} is past the architecture's vocab_size of {architecture.vocab_size}: "
                "raise start.architecture.vocab_size"
            )
    sizes = {name: value for name, value in vars(architecture).items() if name != "family"}
    return FAMILIES[architecture.family](
        **sizes,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )


def initialise(config: PretrainedConfig, seed: int) -> dict[str, Tensor]:
    """Random fp32 weights of `config`, from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return state(model)


def configuration_from(raw: dict[str, Any]) -> PretrainedConfig:
    """Configuration from its JSON fields. Errors: ValueError if transformers does not accept them."""
    try:
        return AutoConfig.for_model(**raw)
    except Exception as error:  # transformers raises many types for invalid configurations
        raise ValueError(f"the configuration is none that transformers knows ({_line(error)})") from None


def require_sizes(config: PretrainedConfig | dict[str, Any], shapes: Mapping[str, Sequence[int]]) -> None:
    """Errors: ValueError if a size exceeds all weights, before a model of that size is allocated."""
    fields = config if isinstance(config, dict) else vars(config)
    if isinstance(inner := fields.get("text_config"), dict):
        fields = fields | inner
    largest = max((extent for shape in shapes.values() for extent in shape), default=0)
    for name, most in (*((name, largest) for name in EXTENTS), ("num_hidden_layers", len(shapes))):
        if isinstance(size := fields.get(name), int) and size > most:
            raise ValueError(
                f"the configuration has {name} {size}, and the weights allow {most} at most; "
                "bring the config.json they were saved with"
            )


def assemble(
    config: PretrainedConfig, weights: dict[str, Tensor], dtype: torch.dtype, *, rounded: bool = True
) -> PreTrainedModel:
    """A model in evaluation mode with the parameters `weights` in `dtype`. rounded: round them to bf16 first.

    Errors: ValueError naming missing, unexpected or misshapen tensors.
    """
    require_sizes(config, {name: tuple(weight.shape) for name, weight in weights.items()})
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[assignment]
    expected = dict(model.named_parameters())
    if missing := sorted(expected.keys() - weights.keys()):
        raise ValueError(f"the weights lack tensor {missing[0]} ({len(missing)} missing); is this the right model?")
    if extra := sorted(weights.keys() - expected.keys()):
        raise ValueError(
            f"the weights hold an unknown tensor {extra[0]} ({len(extra)} unknown); is this the right model?"
        )
    for name, parameter in expected.items():
        if weights[name].shape != parameter.shape:
            actual, wanted = tuple(weights[name].shape), tuple(parameter.shape)
            raise ValueError(f"tensor {name} has shape {actual}, and the model {wanted}; is this the right model?")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(weights[name].to(torch.bfloat16) if rounded else weights[name])
    return model.eval()


def response_logits(model: PreTrainedModel, ids: Tensor, attention: Tensor, positions: Tensor, width: int) -> Tensor:
    """Logits [B, width, V] that predict the last `width` tokens of ids [B, L]: row i of a sequence predicts i + 1.

    Mask and positions are always explicit: with left padding, the defaults are wrong. Values at padding are
    meaningless, but finite.
    """
    if packing.packs(model):
        return model.lm_head(packing.hidden_states(model, ids[:, :-1], attention[:, :-1], positions[:, :-1], width))
    return model(
        input_ids=ids[:, :-1],
        attention_mask=attention[:, :-1],
        position_ids=positions[:, :-1],
        logits_to_keep=width,
        use_cache=False,
    ).logits


def state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, tied ones once, as detached fp32 copies."""
    return {name: p.detach().to(torch.float32).clone() for name, p in model.named_parameters()}


def load_folder(folder: str) -> tuple[PretrainedConfig, dict[str, Tensor]]:
    """Configuration and weights of a Hugging Face folder or hub name.

    Errors: ValueError if the folder holds no loadable model, or lacks a tensor (transformers would initialise it
    randomly).
    """
    _require_config(Path(folder))
    try:
        with _no_bars():
            model, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
                folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # transformers raises many types for invalid folders
        raise ValueError(f"no model could be loaded from {Path(folder)}: {_line(error)}") from None
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{Path(folder)} lacks tensor {missing[0]} ({len(missing)} missing)")
    return model.config, state(model)


@contextmanager
def _no_bars() -> Iterator[None]:
    """A block without transformers' progress bars on stderr. Restores the caller's setting."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _require_config(folder: Path) -> None:
    """Errors: ValueError if config.json is no JSON object, needs remote code, or does not fit the weights' sizes."""
    file = folder / "config.json"
    if not file.is_file():
        return
    try:
        config = json.loads(file.read_bytes())
        shapes = {}
        for weights in sorted(folder.glob("*.safetensors")):
            with safe_open(weights, "pt") as opened:
                shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"no model could be loaded from {folder}: {_line(error)}") from None
    if not isinstance(config, dict):
        raise ValueError(f"no model could be loaded from {folder}: its config.json is no JSON object")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise ValueError(
            f"no model could be loaded from {folder}: its config.json names code of its own (auto_map), which is never "
            "run; save the model in an architecture of transformers"
        )
    if shapes:
        try:
            require_sizes(config, shapes)
        except ValueError as error:
            raise ValueError(f"no model could be loaded from {folder}: {error}") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
