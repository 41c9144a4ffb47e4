"""One step of training, the same for every objective: draw, score, backward, confine, clip, update.

A trainer owns the served model, its fp32 masters and moments. Every draw is keyed by the seed and the step, so a
trainer restored after step t continues exactly as one that was never stopped.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives.loss import Phase, StepInputs
from opd_ops.objectives.objective import token_logprobs
from opd_ops.recipe import Recipe, Teacher
from opd_ops.rollout.hf import HfEngine
from opd_ops.tasks.task import TaskLike
from opd_ops.teacher.scores import Scorer
from opd_ops.training import batches, student
from opd_ops.training.drawing import Drawing, Response
from opd_ops.training.evaluating import Evaluator
from opd_ops.training.inputs import InitialState, RolloutSources
from opd_ops.training.optimizer import Masters, Moments, learning_rate
from opd_ops.training.reaction import Reacting
from opd_ops.training.syncing import Syncing
from opd_ops.training.terms import Terms


class Diverged(FloatingPointError):
    """A loss or gradient that is not finite. The weights have not moved."""


class ZeroAdvantage(ValueError):
    """Zero-variance groups alone for too many steps: no response has an advantage, and nothing is learnt."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One optimizer step: its row of the training table, its rows by position, its responses, its weight pushes."""

    row: dict[str, Any]
    positions: list[dict[str, Any]]
    responses: list[Response] = field(default_factory=list)
    syncs: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One run of `recipe` with `seed`, from `start`, whose weights are rounded to bf16 unless they are a snapshot's.

    teacher: scores the responses, for an objective that needs one. phase: times what the step spends where.
    broken: its weights are no state to go on from; the store's last resume state is.
    Errors: ValueError when the objective or the constraint lacks something it needs.
    """

    broken = False

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        start: InitialState,
        task: TaskLike,
        teacher: Scorer | None = None,
        sources: RolloutSources | None = None,
        *,
        device: str = "cpu",
        phase: Phase = lambda name: nullcontext(),
    ) -> None:
        self.recipe, self.seed, self.task, self.teacher, self.phase = recipe, seed, task, teacher, phase
        self.device, sources = torch.device(device), sources or RolloutSources()
        if recipe.objective.needs_teacher and teacher is None:
            raise ValueError(f"{recipe.name} names the teacher {recipe.objective.teacher}, and none was given")
        if isinstance(recipe.rollout.source, Teacher) and sources.teacher_engine is None:
            raise ValueError(f"{recipe.name} samples from its teacher, and no engine of it was given")
        self.model = self._build_model(start)
        self.optimizer = self._build_optimizer(start)
        if start.moments:
            self._adopt_moments(start.moments)
        masters = self.optimizer.masters
        self.reacting = Reacting(recipe.reaction, start.rails, masters, seed) if recipe.reaction else None
        window = getattr(start.config, "max_position_embeddings", 1 << 30)
        self.drawing = Drawing(recipe, seed, task, sources.rewards, phase, window, sources.stored)
        self.engine = sources.engine or HfEngine(self._build_sampler(start), shared=True)
        self.teacher_engine = sources.teacher_engine
        self.evaluator = Evaluator(recipe, task, self.drawing)
        self.drawing.require_fit(self.evaluator.problems)
        if self.drawing.privileged and any(p.privileged is None for p in self.evaluator.problems):
            raise ValueError(
                f"{recipe.name} has no teacher, and task {recipe.task.name} no privileged prompt: name one"
            )
        self.syncing = Syncing(self.engine, shared=sources.engine is None, logprobs=self.logprobs)
        self.sleeps = recipe.resources.sleep and sources.engine is not None
        self.step = 0
        self.zero_variance_steps = 0  # consecutive steps without any advantage

    def advance(self) -> StepResult:
        """One optimizer step.

        Errors: Diverged naming the step and the loss that is not finite, ZeroAdvantage after too many steps without
        any; those of teacher, engine and verifier. The weights have not moved then, and no gradient is left.
        """
        step = self.step + 1
        with self._discard_on_error():
            try:
                responses, batch, teacher_batch = self._draw(step)
            except FloatingPointError as error:
                raise Diverged(f"{self.recipe.name} seed {self.seed} step {step}: {error}") from None
            terms = self._bind_terms(step, batch, teacher_batch)
            losses = self._backward(terms)
            if self.recipe.resources.sleep and self.teacher:
                self.teacher.sleep()
            with self.phase("update"):
                gradients = self.optimizer.combine(terms.coefficients)
                if self.reacting is None or not self.reacting.released(step):
                    gradients |= self.optimizer.confine()
                norm = self.optimizer.clip()
                self._require_finite(step, losses, norm)
                self._require_advantage(step, terms.zero_variance)
                rate = learning_rate(self.recipe.optimizer, step, self.recipe.horizon.steps)
                moved = self._update(step, rate)
        self.step = step
        overtimes = self.drawing.overtimes()
        self.drawing.finish_step()
        row = {
            "step": step,
            "loss": sum(terms.coefficients[name] * loss for name, loss in losses.items()),
            "grad_norm": norm,
            "tokens": int(terms.batch.mask.sum()),
            "learning_rate": rate,
            **_describe_rollouts(responses, step if self.recipe.rollout.source.kind == "student" else None),
            "overtimes": overtimes,
            **({f"{name}_loss": loss for name, loss in losses.items()} if len(losses) > 1 else {}),
            **gradients,
            **moved,
            **terms.summary(),
        }
        positions = [{"step": step} | row for row in terms.positions.rows()]
        return StepResult(row=row, positions=positions, responses=responses, syncs=self.syncing.take_rows())

    def differentiate(self, responses: list[Response]) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Every term's loss, and the gradient before clipping by parameter name, on given responses; nothing moves."""
        with self._discard_on_error():
            terms = self._bind_terms(self.step + 1, *self.drawing.batches(responses))
            losses = self._backward(terms)
            self.optimizer.combine(terms.coefficients)
        gradients = {name: w.grad for name, w in self.optimizer.masters.items() if w.grad is not None}
        self.optimizer.discard()
        return losses, gradients

    def evaluate(self, temperature: float | None = None) -> list[dict[str, Any]]:
        """Held-out accuracy rows at the current step; every step and arm sees the same problems and uniforms.

        With a `temperature`, one sample a problem at that temperature (the gate's reading); without, the full set.
        """
        with self._engine_awake():
            self._push_weights()
            return [{"step": self.step} | row for row in self.evaluator.rows(self.engine, temperature)]

    def logprobs(self, prompts: list[list[int]], responses: list[list[int]]) -> list[list[float]]:
        """log p of given responses under the trained weights at temperature 1, by a forward without a KV cache."""
        batch = batches.collate(prompts, responses, self.task.pad).to(self.device)
        rows = token_logprobs(self._score_batch(batch), batch.targets).cpu()
        return [row[: len(response)].tolist() for row, response in zip(rows, responses, strict=True)]

    def weights(self) -> dict[str, Tensor]:
        """The fp32 masters by parameter name (live tensors: write them before the next step)."""
        return self.optimizer.masters

    def moments(self) -> Moments:
        """The optimizer's state (live tensors)."""
        return self.optimizer.moments()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """For a resume state: tensors, and facts as JSON types."""
        facts = {
            "optimizer_steps": self.optimizer.steps,
            "flat_steps": self.zero_variance_steps,
            "pending": self.drawing.state(),
            **({"exceeded": list(self.drawing.exceeded)} if any(self.drawing.exceeded) else {}),
            "rollout_version": self.engine.version,
            "probe": self.syncing.probe,
        }
        tensors = self._collect_state()
        if self.reacting:
            watched, facts["reaction"] = self.reacting.state()
            tensors |= watched
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any], step: int) -> None:
        """Continue after `step` steps from what `state` returned."""
        self._restore_state(tensors, facts.get("optimizer_steps", step))
        if self.reacting:
            self.reacting.restore(tensors, facts["reaction"])
        self.drawing.restore(facts["pending"], facts.get("exceeded"))
        self.zero_variance_steps, self.syncing.probe = facts["flat_steps"], facts["probe"]
        self.syncing.changed = True
        self.step = step

    def _draw(self, step: int) -> tuple[list[Response], Batch, Batch | None]:
        """The step's responses (none for demonstrations), the batch, and the batch as the teacher reads it."""
        stream, count = self.recipe.objective.demonstrations, self.recipe.rollout.prompts
        if stream is not None:
            return [], batches.demonstrations(self.task, stream, count, self.seed, step), None
        if self.recipe.rollout.source.kind != "student":
            responses = self.drawing.responses(step, self.teacher_engine or self.engine)
        else:
            with self._engine_awake():
                with self.phase("sync"):
                    self._push_weights()
                responses = self.drawing.responses(step, self.engine)
                self.syncing.keep_probe([r.prompt for r in responses], [r.tokens for r in responses])
        return responses, *self.drawing.batches(responses)

    @contextmanager
    def _engine_awake(self) -> Iterator[None]:
        """The engine has its memory inside the block, and the trainer outside, where they share a GPU."""
        if self.sleeps:
            self.engine.wake()
        yield
        if self.sleeps:
            self.engine.sleep()

    @contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        """Drop the gradients of a step that fails inside, so that they do not join those of the next."""
        try:
            yield
        except BaseException:
            self.optimizer.discard()
            raise

    def _bind_terms(self, step: int, batch: Batch, teacher_batch: Batch | None) -> Terms:
        return Terms(
            StepInputs(
                recipe=self.recipe,
                batch=batch.to(self.device),
                teacher_batch=None if teacher_batch is None else teacher_batch.to(self.device),
                teacher=self.teacher,
                draws=batches.step_draws(self.recipe, self.seed, step, batch).to(self.device),
                phase=self.phase,
            )
        )

    def _backward(self, terms: Terms) -> dict[str, float]:
        """Accumulate every term's gradient over the micro-batches; the terms' losses."""
        return student.backward(self.model, self.optimizer, terms, self.recipe.precision.compute, self.phase)

    def _update(self, step: int, rate: float) -> dict[str, Any]:
        """Update the masters; the columns of a constraint's leaks and of a reaction, for the step's row."""
        if self.reacting is None:
            return self.optimizer.step(rate)
        reacting, columns = self.reacting, {}
        reacting.before(step)
        return self.optimizer.step(rate, lambda: columns.update(reacting.after(step))) | columns

    def _build_model(self, start: InitialState) -> Any:
        """The model that trains."""
        return student.build(self.recipe, start.config, start.weights).to(self.device)

    def _build_optimizer(self, start: InitialState) -> Masters:
        """The fp32 masters of the model, rounded to bf16 first where the start is no snapshot's masters."""
        weights = start.weights
        if self.recipe.precision.weights == "bf16" and self.recipe.start.kind != "snapshot":
            weights = {name: w.to(torch.bfloat16).float() for name, w in weights.items()}
        return self._make_masters(weights, start)

    def _make_masters(self, weights: dict[str, Tensor], start: InitialState) -> Masters:
        rounded, constraint = self.recipe.precision.weights == "bf16", self.recipe.constraint
        return Masters(
            self.model, weights, self.recipe.optimizer, rounded=rounded, constraint=constraint, bases=start.bases
        )

    def _adopt_moments(self, moments: Moments) -> None:
        self.optimizer.adopt(moments)

    def _collect_state(self) -> dict[str, Tensor]:
        return self.optimizer.state()

    def _restore_state(self, tensors: dict[str, Tensor], steps: int) -> None:
        self.optimizer.restore(tensors, steps)

    def _build_sampler(self, start: InitialState) -> Any:
        """The model that draws responses in this process."""
        return self.model

    def _push_weights(self) -> None:
        """Make the engine serve the weights of today."""
        self.syncing.push(self.optimizer.served, self.step)

    def _score_batch(self, batch: Batch) -> Tensor:
        """Logits of the trained weights, without a gradient."""
        return student.score_batch(self.model, batch, self.recipe.precision.compute)

    def _require_finite(self, step: int, losses: dict[str, float], norm: float) -> None:
        bad = [f"the {name} loss is {loss}" for name, loss in losses.items() if not np.isfinite(loss)]
        if bad or not np.isfinite(norm):
            what = "; ".join(bad) or f"the gradient norm is {norm}"
            raise Diverged(f"{self.recipe.name} seed {self.seed} step {step}: {what}; lower the learning rate")

    def _require_advantage(self, step: int, zero_variance: float | None) -> None:
        self.zero_variance_steps = self.zero_variance_steps + 1 if zero_variance == 1.0 else 0
        limit = self.recipe.objective.zero_variance_limit
        if limit is not None and self.zero_variance_steps >= limit:
            self.zero_variance_steps -= 1
            raise ZeroAdvantage(
                f"{self.recipe.name} seed {self.seed} step {step}: every group's rewards were equal for "
                f"{limit} steps, so nothing is learnt; start from a model that solves some problems, or draw "
                "more samples"
            )


def _describe_rollouts(responses: list[Response], step: int | None) -> dict[str, float | None]:
    """Means over the rollouts; nulls without any. step: None where no version of the student drew them."""
    if not responses:
        return {"reward": None, "truncated": None, "staleness": None}
    return {
        "reward": sum(r.reward for r in responses) / len(responses),
        "truncated": sum(r.truncated for r in responses) / len(responses),
        "staleness": None if step is None else step - 1 - sum(r.version for r in responses) / len(responses),
    }
