"""The model that trains: its construction, the arithmetic of its forward pass, and the backward passes of a step."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from opd_ops.batch import Batch
from opd_ops.models import assemble, response_logits
from opd_ops.objectives.loss import Phase
from opd_ops.recipe import Recipe
from opd_ops.training.optimizer import Masters
from opd_ops.training.terms import Terms

DTYPES = {"fp32": torch.float32, "autocast": torch.float32, "bf16": torch.bfloat16}


def build(recipe: Recipe, config: PretrainedConfig, weights: dict[str, Tensor] | None) -> Any:
    """The model of `recipe` with these weights; with random ones where `weights` is None.

    Errors: ValueError naming missing, unexpected or misshapen tensors.
    """
    dtype = DTYPES[recipe.precision.compute]
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.eval()
    else:
        model = assemble(config, weights, dtype, rounded=recipe.precision.weights == "bf16")
    if recipe.resources.checkpoint_activations:
        _checkpoint(model)
    return model


def arithmetic(compute: str, device: str) -> AbstractContextManager[Any]:
    """The context of a forward pass in the declared arithmetic."""
    return torch.autocast(device, torch.bfloat16) if compute == "autocast" else nullcontext()


def score_batch(model: PreTrainedModel, batch: Batch, compute: str) -> Tensor:
    """Logits [B, R, V] of a batch, without a gradient."""
    with torch.no_grad(), arithmetic(compute, batch.ids.device.type):
        return _logits(model, batch)


def backward(model: PreTrainedModel, optimizer: Masters, terms: Terms, compute: str, phase: Phase) -> dict[str, float]:
    """Accumulate every term's gradient over the micro-batches of `terms`; the terms' losses.

    A rank whose micro-batch has no rows passes one row through the model with a factor of 0, since the other ranks wait
    for its forward and backward pass.
    """
    losses = dict.fromkeys(terms.coefficients, 0.0)
    for begin, end in terms.spans:
        idle = begin == end
        part = terms.batch.rows(0, 1) if idle else terms.batch.rows(begin, end)
        with phase("forward"), arithmetic(compute, part.ids.device.type):
            logits = _logits(model, part)
        for term in terms.terms:
            with phase("loss"):
                loss = (logits * 0).sum() + term.loss(logits[:0], begin, end) if idle else term.loss(logits, begin, end)
                losses[term.name] += loss.item()
            with phase("backward"):
                loss.backward(retain_graph=term is not terms.terms[-1])
                optimizer.accumulate(term.name)
    return losses


def _logits(model: PreTrainedModel, part: Batch) -> Tensor:
    return response_logits(model, part.ids, part.attention, part.positions, part.width)


def _checkpoint(model: Any) -> None:
    """Recompute activations in the backward pass. Transformers needs training mode for it, so dropout is set to 0."""
    for module in model.modules():
        for name in ("attention_dropout", "p"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
