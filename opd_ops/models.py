"""Models: build or load a Hugging Face decoder."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from opd_ops.recipe import Architecture

FAMILIES = {"qwen3": Qwen3Config, "llama": LlamaConfig}


def configuration(architecture: Architecture, *, pad: int, bos: int, eos: int) -> PretrainedConfig:
    """Configuration of a from-scratch decoder with tied embeddings and no dropout."""
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
    """Configuration from the plain JSON that a run or a folder keeps."""
    return AutoConfig.for_model(**raw)


def assemble(
    config: PretrainedConfig, weights: dict[str, Tensor], dtype: torch.dtype, *, rounded: bool = True
) -> PreTrainedModel:
    """A model in evaluation mode whose parameters are `weights`, `rounded` to bf16, and stored as `dtype`.

    Errors: ValueError naming missing, unexpected or misshapen tensors.
    """
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
            found, wanted = tuple(weights[name].shape), tuple(parameter.shape)
            raise ValueError(f"tensor {name} has shape {found}, and the model {wanted}; is this the right model?")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(weights[name].to(torch.bfloat16) if rounded else weights[name])
    return model.eval()


def response_logits(model: PreTrainedModel, ids: Tensor, attention: Tensor, positions: Tensor, width: int) -> Tensor:
    """Logits [B, width, V] that predict the last `width` tokens of ids [B, L]: row i of a sequence predicts i + 1.

    Mask and positions are always explicit: with left padding, the defaults are wrong.
    """
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

    Errors: ValueError when the folder holds no loadable model, or lacks a tensor (which would be left random).
    """
    try:
        model, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"no model could be loaded from {Path(folder)}: {first}") from None
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{Path(folder)} lacks tensor {missing[0]} ({len(missing)} missing)")
    return model.config, state(model)
