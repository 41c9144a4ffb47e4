"""The training loop's one step, the same for every objective: draw, score, backward, confine, clip, update.

A trainer owns the served model, its fp32 masters and moments. Every draw is keyed by the seed and the step, so a
trainer restored after step t goes on exactly as the one that was never stopped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig

from opd_ops.batch import Batch
from opd_ops.objectives.objective import token_logprobs
from opd_ops.recipe import Recipe, Sft, Teacher, opd_of, rlvr_of
from opd_ops.recipe.reaction import Rail
from opd_ops.rollout.hf import HfEngine
from opd_ops.rollout.rollout import Engine
from opd_ops.tasks.task import TaskLike
from opd_ops.teacher.scores import Scorer
from opd_ops.training import batches, student
from opd_ops.training.drawing import Drawing, Phase, Response, Rewards
from opd_ops.training.evaluating import Evaluator
from opd_ops.training.optimizer import Masters, Moments, learning_rate
from opd_ops.training.reaction import Reacting
from opd_ops.training.subspace import Bases
from opd_ops.training.syncing import Syncing
from opd_ops.training.terms import Terms


class Diverged(FloatingPointError):
    """A loss or gradient that is not finite. Nothing has moved."""


class NoSignal(ValueError):
    """Groups without reward variance for too many steps: nothing is learnt."""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """One optimizer step: its row of the training table, its rows by position, its responses, its weight pushes."""

    row: dict[str, Any]
    positions: list[dict[str, Any]]
    responses: list[Response] = field(default_factory=list)
    syncs: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One run of `recipe` with `seed`, from `weights`, which are rounded to bf16 unless they are a snapshot's masters.

    teacher: scores the responses, for OPD. engine: draws responses; None is this process, on the trained weights
    themselves. teacher_engine: draws them where the rollout source is the teacher. stored: another run's responses by
    step, for a replay. rewards: verifies responses. bases: of the recipe's constraint. rails: the band of its
    reaction's guard. moments: an optimizer's state to go on with. phase: times what the step spends where.

    broken: its weights are no state to go on from, and the store's are.
    Errors: ValueError when the objective or the constraint lacks something it needs.
    """

    broken = False

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        config: PretrainedConfig,
        weights: dict[str, Tensor],
        task: TaskLike,
        teacher: Scorer | None = None,
        *,
        engine: Engine | None = None,
        teacher_engine: Engine | None = None,
        stored: Callable[[int], list[dict[str, Any]]] | None = None,
        rewards: Rewards | None = None,
        bases: Bases | None = None,
        rails: tuple[Rail, ...] = (),
        moments: Moments | None = None,
        device: str = "cpu",
        phase: Phase = lambda name: nullcontext(),
    ) -> None:
        self.recipe, self.seed, self.task, self.teacher, self.phase = recipe, seed, task, teacher, phase
        self.device = torch.device(device)
        precision, opd = recipe.precision, opd_of(recipe.objective)
        if opd and teacher is None:
            raise ValueError(f"{recipe.name} names the teacher {opd.teacher}, and none was given")
        rounded = precision.weights == "bf16"
        self.model = self._built(config, weights)
        if rounded and recipe.start.kind != "snapshot":
            weights = {name: w.to(torch.bfloat16).float() for name, w in weights.items()}
        self.optimizer = self._optimized(weights, bases)
        if moments:
            self._adopt(moments)
        self.reacting = Reacting(recipe.reaction, rails, self.optimizer.masters, seed) if recipe.reaction else None
        rewards = rewards or (lambda answered: [task.verify(problem, tokens) for problem, tokens in answered])
        window = getattr(config, "max_position_embeddings", 1 << 30)
        self.drawing = Drawing(recipe, seed, task, rewards, phase, window, stored)
        self.engine = engine or HfEngine(self._sampler(), shared=True)
        self.teacher_engine = teacher_engine
        if isinstance(recipe.rollout.source, Teacher) and teacher_engine is None:
            raise ValueError(f"{recipe.name} samples from its teacher, and no engine of it was given")
        self.evaluator = Evaluator(recipe, task, self.drawing)
        self.drawing.require_fit(self.evaluator.problems)
        if self.drawing.privileged and any(p.privileged is None for p in self.evaluator.problems):
            raise ValueError(
                f"{recipe.name} has no teacher, and task {recipe.task.name} no privileged prompt: name one"
            )
        self.syncing = Syncing(self.engine, shared=engine is None, logprobs=self.logprobs)
        self.sleeps = recipe.resources.sleep and engine is not None
        self.step = 0
        self.flat_steps = 0  # consecutive steps without any signal

    def advance(self) -> Advanced:
        """One optimizer step.

        Errors: Diverged naming the step and the term that is not finite, NoSignal after too many flat steps; those of
        teacher, engine and verifier. The weights have not moved then, and no gradient is left.
        """
        step = self.step + 1
        with self._undone():
            try:
                responses, batch, behind = self._draw(step)
            except FloatingPointError as error:
                raise Diverged(f"{self.recipe.name} seed {self.seed} step {step}: {error}") from None
            terms = self._bind(step, batch, behind)
            losses = self._backward(terms)
            if self.recipe.resources.sleep and self.teacher:
                self.teacher.sleep()
            with self.phase("update"):
                gradients = self.optimizer.combine(terms.coefficients)
                if self.reacting is None or not self.reacting.released(step):
                    gradients |= self.optimizer.confine()
                norm = self.optimizer.clip()
                self._require_finite(step, losses, norm)
                self._require_signal(step, terms.flat)
                rate = learning_rate(self.recipe.optimizer, step, self.recipe.horizon.steps)
                moved = self._move(step, rate)
        self.step = step
        overtimes = self.drawing.overtimes()
        self.drawing.done()
        row = {
            "step": step,
            "loss": sum(terms.coefficients[name] * loss for name, loss in losses.items()),
            "grad_norm": norm,
            "tokens": int(terms.batch.mask.sum()),
            "learning_rate": rate,
            **_drawn(responses, step if self.recipe.rollout.source.kind == "student" else None),
            "overtimes": overtimes,
            **({f"{name}_loss": loss for name, loss in losses.items()} if len(losses) > 1 else {}),
            **gradients,
            **moved,
            **terms.summary(),
        }
        positions = [{"step": step} | found for found in terms.positions.rows()]
        return Advanced(row=row, positions=positions, responses=responses, syncs=self.syncing.taken())

    def differentiate(self, responses: list[Response]) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Every term's loss, and the gradient before clipping by parameter name, on given responses; nothing moves."""
        with self._undone():
            terms = self._bind(self.step + 1, *self.drawing.batches(responses))
            losses = self._backward(terms)
            self.optimizer.combine(terms.coefficients)
        gradients = {name: w.grad for name, w in self.optimizer.masters.items() if w.grad is not None}
        self.optimizer.discard()
        return losses, gradients

    def evaluate(self, temperature: float | None = None) -> list[dict[str, Any]]:
        """Held-out accuracy rows at the current step; every step and arm sees the same problems and uniforms.

        With a `temperature`, one sample a problem at that temperature (the gate's reading); without, the full set.
        """
        with self._awake():
            self._push()
            return [{"step": self.step} | row for row in self.evaluator.rows(self.engine, temperature)]

    def logprobs(self, prompts: list[list[int]], responses: list[list[int]]) -> list[list[float]]:
        """log p of given responses under the trained weights at temperature 1, by a forward without a cache."""
        batch = batches.collate(prompts, responses, self.task.pad).to(self.device)
        found = token_logprobs(self._scored(batch), batch.targets).cpu()
        return [row[: len(response)].tolist() for row, response in zip(found, responses, strict=True)]

    def weights(self) -> dict[str, Tensor]:
        """The fp32 masters by parameter name (live tensors: write them before the next step)."""
        return self.optimizer.masters

    def moments(self) -> Moments:
        """The optimizer's state (live tensors)."""
        return self.optimizer.moments()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a resumed trainer needs: tensors, and facts as JSON types."""
        facts = {
            "optimizer_steps": self.optimizer.steps,
            "flat_steps": self.flat_steps,
            "pending": self.drawing.state(),
            **({"exceeded": list(self.drawing.exceeded)} if any(self.drawing.exceeded) else {}),
            "rollout_version": self.engine.version,
            "probe": self.syncing.probe,
        }
        tensors = self._state()
        if self.reacting:
            watched, facts["reaction"] = self.reacting.state()
            tensors |= watched
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any], step: int) -> None:
        """Continue after `step` steps from what `state` gave."""
        self._restore(tensors, facts.get("optimizer_steps", step))
        if self.reacting:
            self.reacting.restore(tensors, facts["reaction"])
        self.drawing.restore(facts["pending"], facts.get("exceeded"))
        self.flat_steps, self.syncing.probe = facts["flat_steps"], facts["probe"]
        self.syncing.changed = True
        self.step = step

    def _draw(self, step: int) -> tuple[list[Response], Batch, Batch | None]:
        """The step's responses (none for SFT), the batch, and the batch as the teacher reads it."""
        objective = self.recipe.objective
        if isinstance(objective, Sft):
            count = self.recipe.rollout.prompts
            return [], batches.demonstrations(self.task, objective.stream, count, self.seed, step), None
        if self.recipe.rollout.source.kind != "student":
            responses = self.drawing.of(step, self.teacher_engine or self.engine)
        else:
            with self._awake():
                with self.phase("sync"):
                    self._push()
                responses = self.drawing.of(step, self.engine)
                self.syncing.seen([r.prompt for r in responses], [r.tokens for r in responses])
        return responses, *self.drawing.batches(responses)

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """The engine has its memory inside, and the trainer outside, where they share a GPU."""
        if self.sleeps:
            self.engine.wake()
        yield
        if self.sleeps:
            self.engine.sleep()

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Gradients of a step that fails inside would join those of the next one."""
        try:
            yield
        except BaseException:
            self.optimizer.discard()
            raise

    def _bind(self, step: int, batch: Batch, behind: Batch | None) -> Terms:
        draws = batches.draws(self.seed, step, len(batch.ids), max(batch.width, self.recipe.rollout.max_new_tokens))
        return Terms(
            self.recipe,
            batch.to(self.device),
            behind.to(self.device) if behind is not None else None,
            self.teacher,
            draws.to(self.device),
            self.phase,
        )

    def _backward(self, terms: Terms) -> dict[str, float]:
        """Accumulate every term's gradient over the micro-batches; the terms' losses."""
        return student.backward(self.model, self.optimizer, terms, self.recipe.precision.compute, self.phase)

    def _move(self, step: int, rate: float) -> dict[str, Any]:
        """Update the masters: what leaked from a constraint, and what a reaction did, for the step's row."""
        if self.reacting is None:
            return self.optimizer.step(rate)
        reacting, told = self.reacting, {}
        reacting.before(step)
        return self.optimizer.step(rate, lambda: told.update(reacting.after(step))) | told

    def _built(self, config: PretrainedConfig, weights: dict[str, Tensor]) -> Any:
        """The model that trains."""
        return student.build(self.recipe, config, weights).to(self.device)

    def _optimized(self, weights: dict[str, Tensor], bases: Bases | None) -> Masters:
        """The masters of the model."""
        recipe, rounded = self.recipe, self.recipe.precision.weights == "bf16"
        return Masters(
            self.model, weights, recipe.optimizer, rounded=rounded, constraint=recipe.constraint, bases=bases
        )

    def _adopt(self, moments: Moments) -> None:
        self.optimizer.adopt(moments)

    def _state(self) -> dict[str, Tensor]:
        return self.optimizer.state()

    def _restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        self.optimizer.restore(tensors, steps)

    def _sampler(self) -> Any:
        """The model that draws responses in this process."""
        return self.model

    def _push(self) -> None:
        """Make the engine serve the weights of today."""
        self.syncing.push(self.optimizer.served, self.step)

    def _scored(self, batch: Batch) -> Tensor:
        """Logits of the trained weights, without a gradient."""
        return student.scored(self.model, batch, self.recipe.precision.compute)

    def _require_finite(self, step: int, losses: dict[str, float], norm: float) -> None:
        bad = [f"the {name} loss is {loss}" for name, loss in losses.items() if not np.isfinite(loss)]
        if bad or not np.isfinite(norm):
            what = "; ".join(bad) or f"the gradient norm is {norm}"
            raise Diverged(f"{self.recipe.name} seed {self.seed} step {step}: {what}; lower the learning rate")

    def _require_signal(self, step: int, flat: float | None) -> None:
        rlvr = rlvr_of(self.recipe.objective)
        self.flat_steps = self.flat_steps + 1 if flat == 1.0 else 0
        if rlvr and opd_of(self.recipe.objective) is None and self.flat_steps >= rlvr.flat_limit:
            self.flat_steps -= 1
            raise NoSignal(
                f"{self.recipe.name} seed {self.seed} step {step}: every group's rewards were equal for "
                f"{rlvr.flat_limit} steps, so nothing is learnt; start from a model that solves some problems, or draw "
                "more samples"
            )


def _drawn(responses: list[Response], step: int | None) -> dict[str, float | None]:
    """What the rollouts were like; nulls without any. step: None where they are of no version of the student."""
    if not responses:
        return {"reward": None, "truncated": None, "staleness": None}
    return {
        "reward": sum(r.reward for r in responses) / len(responses),
        "truncated": sum(r.truncated for r in responses) / len(responses),
        "staleness": None if step is None else step - 1 - sum(r.version for r in responses) / len(responses),
    }
