"""A reference teacher, and the expectation of an estimator's gradient by enumerating every token it could draw."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opd_ops.objectives import opd
from opd_ops.recipe import Opd, Weights
from opd_ops.teacher.scores import Scores


def _logits(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _spec(estimator: str = "full", divergence: str = "reverse-kl", **fields: Any) -> Opd:
    if estimator.endswith("top-k"):
        fields.setdefault("k", 3)
    if divergence == "jsd":
        fields.setdefault("beta", 0.3)
    return Opd(teacher=Weights(ref="other"), estimator=estimator, divergence=divergence, **fields)  # type: ignore


def _scores(spec: Opd, teacher: Tensor, targets: Tensor, ids: Tensor | None = None) -> Scores:
    support = opd.support(spec)
    log_t = torch.log_softmax(teacher.float() / support.temperature, -1)
    top = None
    if support.kind == "top":
        ids = log_t.topk(min(support.k, log_t.shape[-1]), dim=-1).indices
    if support.kind in ("top", "candidates"):
        assert ids is not None
        top = log_t.gather(-1, ids)
    return Scores(
        sampled=log_t.gather(-1, targets[..., None])[..., 0],
        entropy=-(log_t.exp() * log_t).sum(-1),
        full=log_t if support.kind == "full" else None,
        ids=ids,
        top=top,
    )


def _signal(spec: Opd, student: Tensor, teacher: Tensor, targets: Tensor) -> opd.Signal:
    ids = opd.candidates(spec, student)
    return opd.signal(spec, student, _scores(spec, teacher, targets, ids), targets, ids)


def _expected(spec: Opd, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """sum_y weight(y) grad per_token(y) over the V tokens y of one position; weight None is the student's s(y)."""
    size = len(student)
    z = student.clone().requires_grad_()
    rows = lambda x: x.expand(size, 1, size)
    per_token = _signal(spec, rows(z), rows(teacher), torch.arange(size)[:, None]).per_token[:, 0]
    weight = torch.softmax(student / spec.loss_temperature, -1) if weight is None else weight
    (per_token * weight.detach()).sum().backward()
    assert z.grad is not None
    return z.grad


@pytest.fixture(scope="session")
def logits() -> Callable[..., Tensor]:
    """logits(*shape, seed=0, scale=1): normal, fp32."""
    return _logits


@pytest.fixture(scope="session")
def spec() -> Callable[..., Opd]:
    """spec(estimator, divergence, **fields), with k = 3 and beta = 0.3 where they belong."""
    return _spec


@pytest.fixture(scope="session")
def scores() -> Callable[..., Scores]:
    """scores(spec, teacher logits, targets, ids=None): what a teacher answers."""
    return _scores


@pytest.fixture(scope="session")
def signal() -> Callable[..., opd.Signal]:
    """signal(spec, student logits, teacher logits, targets): the whole way, candidates and scores included."""
    return _signal


@pytest.fixture(scope="session")
def expected() -> Callable[..., Tensor]:
    """expected(spec, student [V], teacher [V], weight=None): the expected gradient on the student's logits."""
    return _expected
