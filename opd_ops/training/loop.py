"""The training loop's one step, the same for SFT, OPD and RLVR.

A trainer owns the served model, its fp32 masters and moments, and the frozen teacher. Every draw is keyed by the seed
and the step, so a trainer restored after step t goes on exactly as the one that was never stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from opd_ops.models import assemble
from opd_ops.objectives import opd, rlvr, sft
from opd_ops.objectives.objective import Batch, token_logprobs
from opd_ops.recipe import Opd, Recipe, Rlvr, Rollout, Sft
from opd_ops.rollout.rollout import Sampled
from opd_ops.tasks.task import Problem, TaskLike
from opd_ops.training import batches
from opd_ops.training.optimizer import Masters, learning_rate

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A step's sequences: the student's batch, and the same responses behind the teacher's prompts."""

    batch: Batch
    teacher_batch: Batch | None = None
    reward: float | None = None
    truncated: float | None = None


class Trainer:
    """One run of `recipe` with `seed`, from `weights` (rounded to bf16 at the start).

    `teacher` is (configuration, weights); None lets an OPD student teach itself from the privileged prompt.

    Errors: ValueError when OPD's teacher could only repeat the student, so that every gradient would be zero.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        config: PretrainedConfig,
        weights: dict[str, Tensor],
        task: TaskLike,
        teacher: tuple[PretrainedConfig, dict[str, Tensor]] | None = None,
    ) -> None:
        self.recipe, self.seed, self.task = recipe, seed, task
        dtype = _DTYPES[recipe.precision.compute]
        self.model = assemble(config, weights, dtype)
        rounded = {name: w.to(torch.bfloat16).float() for name, w in weights.items()}
        self.optimizer = Masters(self.model, rounded, recipe.optimizer)
        self.privileged = isinstance(recipe.objective, Opd) and recipe.objective.teacher is None
        self.teacher: PreTrainedModel | None = None
        if isinstance(recipe.objective, Opd):
            self.teacher = assemble(*(teacher or (config, weights)), dtype).requires_grad_(False)
            if recipe.objective.teacher is not None and teacher is None:
                raise ValueError(f"{recipe.name} names the teacher {recipe.objective.teacher}, and none was given")
        rng = np.random.default_rng((0, batches.HELD_OUT))
        self.held_out = task.problems("held_out", recipe.evaluation.problems, rng)
        if self.privileged and any(problem.privileged is None for problem in self.held_out):
            raise ValueError(
                f"{recipe.name} has no teacher, and task {recipe.task.name} no privileged prompt: name one"
            )
        self.step = 0

    def advance(self) -> dict[str, Any]:
        """One optimizer step; returns its row of the training table.

        Errors: FloatingPointError naming the step when the loss or the gradient is not finite; nothing has moved then.
        """
        step = self.step + 1
        drawn = self._draw(step)
        loss, measured = self._backward(drawn)
        rate = learning_rate(self.recipe.optimizer, step, self.recipe.horizon.steps)
        norm = self.optimizer.clip()
        if not np.isfinite(loss) or not np.isfinite(norm):
            self.optimizer.discard()
            raise FloatingPointError(
                f"{self.recipe.name} seed {self.seed} step {step}: loss {loss}, gradient norm {norm}"
            )
        self.optimizer.step(rate)
        self.step = step
        return {
            "step": step,
            "loss": loss,
            "grad_norm": norm,
            "tokens": int(drawn.batch.mask.sum()),
            "learning_rate": rate,
            "reward": drawn.reward,
            "truncated": drawn.truncated,
            **measured,
        }

    def evaluate(self, temperature: float | None = None) -> list[dict[str, Any]]:
        """Held-out accuracy rows at the current step; every step and arm sees the same problems and uniforms.

        With a `temperature`, one sample a problem at that temperature (the gate's reading); without, the full set.
        """
        spec = self.recipe.evaluation
        rows = []
        full = [(t, spec.samples if t > 0 else 1) for t in spec.temperatures]
        for at, samples in full if temperature is None else [(temperature, 1)]:
            rollout = Rollout(
                prompts=spec.problems,
                samples=samples,
                max_new_tokens=self.recipe.rollout.max_new_tokens,
                temperature=at,
            )
            responses = batches.sample(self.model, self.task, self.held_out, rollout, 2**31, 0)
            scores = _scores(self.task, self.held_out, responses, samples).mean(1)
            rows.append(
                {
                    "step": self.step,
                    "temperature": at,
                    "accuracy": float(scores.mean()),
                    "stderr": float(scores.std(ddof=1) / np.sqrt(len(scores))),
                    "n": spec.problems * samples,
                    "problems": spec.problems,
                    "samples": samples,
                }
            )
        return rows

    def weights(self) -> dict[str, Tensor]:
        """The fp32 masters by parameter name (live tensors: write them before the next step)."""
        return self.optimizer.masters

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Continue after `step` steps from a resume state."""
        self.optimizer.restore(tensors, step)
        self.step = step

    def _draw(self, step: int) -> Drawn:
        recipe, spec = self.recipe, self.recipe.rollout
        if isinstance(recipe.objective, Sft):
            return Drawn(
                batch=batches.demonstrations(self.task, recipe.objective.stream, spec.prompts, self.seed, step)
            )
        rng = np.random.default_rng((self.seed, batches.PROMPTS, step))
        problems = self.task.problems("train", spec.prompts, rng)
        rollouts = batches.sample(self.model, self.task, problems, spec, self.seed, step)
        repeated = [problem for problem in problems for _ in range(spec.samples)]
        responses = [rollout.tokens for rollout in rollouts]
        rewards = torch.tensor(_scores(self.task, problems, rollouts, spec.samples), dtype=torch.float32).flatten()
        groups = torch.arange(len(problems)).repeat_interleave(spec.samples)
        batch = batches.collate([p.prompt for p in repeated], responses, self.task.pad, rewards=rewards, groups=groups)
        teacher_batch = None
        if isinstance(recipe.objective, Opd):
            prompts = [(p.privileged if self.privileged else None) or p.prompt for p in repeated]
            teacher_batch = batches.collate(prompts, responses, self.task.pad)
        return Drawn(
            batch=batch,
            teacher_batch=teacher_batch,
            reward=float(rewards.mean()),
            truncated=sum(rollout.truncated for rollout in rollouts) / len(rollouts),
        )

    def _backward(self, drawn: Drawn) -> tuple[float, dict[str, float | None]]:
        """Accumulate gradients over micro-batches with the step's global denominator."""
        objective, batch = self.recipe.objective, drawn.batch
        tokens = float(batch.mask.sum())
        share, flat = self._loss_of(objective, drawn, tokens)
        size = self.recipe.precision.micro_batch
        loss = entropy = divergence = 0.0
        for begin in range(0, len(batch.ids), size):
            part = batch.rows(begin, begin + size)
            logits = _response_logits(self.model, part)
            term, kl = share(logits, part, begin)
            term.backward()
            self.optimizer.accumulate()
            loss += term.item()
            divergence += kl
            with torch.no_grad():
                logprobs = torch.log_softmax(logits.float(), -1)
                entropy -= float(((logprobs.exp() * logprobs).sum(-1) * part.mask).sum()) / tokens
        return loss, {
            "kl": divergence if isinstance(objective, Opd) else None,
            "entropy": entropy,
            "flat_groups": flat,
        }

    def _loss_of(
        self, objective: Any, drawn: Drawn, tokens: float
    ) -> tuple[Callable[[Tensor, Batch, int], tuple[Tensor, float]], float | None]:
        """The micro-batch loss of an objective with the step's denominators bound, and its flat-group share."""
        if isinstance(objective, Sft):
            return lambda logits, part, _: (sft.loss(logits, part.targets, part.mask, tokens), 0.0), None
        if isinstance(objective, Rlvr):
            rewards, groups = drawn.batch.rewards, drawn.batch.groups
            assert rewards is not None and groups is not None
            advantage = rlvr.advantages(rewards, groups, objective.std)
            weight = rlvr.weights(drawn.batch.mask, objective.normaliser, self.recipe.rollout.max_new_tokens)

            def policy_gradient(logits: Tensor, part: Batch, begin: int) -> tuple[Tensor, float]:
                rows = slice(begin, begin + len(part.ids))
                return rlvr.loss(logits, part.targets, advantage[rows], weight[rows]), 0.0

            return policy_gradient, rlvr.flat_groups(rewards, groups)
        teacher, behind = self.teacher, drawn.teacher_batch
        assert teacher is not None and behind is not None

        def reverse_kl(logits: Tensor, part: Batch, begin: int) -> tuple[Tensor, float]:
            with torch.no_grad():
                scores = _response_logits(teacher, behind.rows(begin, begin + len(part.ids)))
            term = opd.loss(logits, scores, part.mask, tokens, objective.loss_temperature)
            return term, term.item()

        return reverse_kl, None


def _response_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits [B, R, V] that predict the response tokens: row i of a sequence predicts token i + 1."""
    return model(
        input_ids=batch.ids[:, :-1],
        attention_mask=batch.attention[:, :-1],
        position_ids=batch.positions[:, :-1],
        logits_to_keep=batch.width,
        use_cache=False,
    ).logits


def sequence_logprobs(model: PreTrainedModel, batch: Batch) -> Tensor:
    """log p of every response token without a cache, [B, R] fp32: the reference for the sampler."""
    with torch.no_grad():
        return token_logprobs(_response_logits(model, batch), batch.targets) * batch.mask


def _scores(task: TaskLike, problems: list[Problem], rollouts: list[Sampled], samples: int) -> np.ndarray:
    """Rewards [problems, samples]."""
    scores = [batches.reward(task, problems[i // samples], rollout) for i, rollout in enumerate(rollouts)]
    return np.array(scores, dtype=np.float64).reshape(len(problems), samples)
