"""Held-out accuracy: the same problems and uniforms at every step and in every arm."""

from dataclasses import replace
from typing import Any

import numpy as np

from opd_ops.recipe import Recipe
from opd_ops.rollout.rollout import Engine, Request
from opd_ops.tasks.task import TaskLike
from opd_ops.training.batches import HELD_OUT
from opd_ops.training.drawing import Drawing

SEED = 2**31  # of evaluation uniforms: no training run has it


class Evaluator:
    """Draws responses to `recipe`'s held-out problems and scores them as `drawing` scores training's."""

    def __init__(self, recipe: Recipe, task: TaskLike, drawing: Drawing) -> None:
        self.spec, self.drawing = recipe.evaluation, drawing
        self.problems = task.problems("held_out", self.spec.problems, np.random.default_rng((0, HELD_OUT)))

    def rows(self, engine: Engine, temperature: float | None) -> list[dict[str, Any]]:
        """Accuracy at `temperature` with one sample a problem, or, where it is None, at all of the recipe's."""
        if temperature is not None:
            return [self._row(engine, temperature, 1)]
        return [self._row(engine, t, self.spec.samples if t > 0 else 1) for t in self.spec.temperatures]

    def _row(self, engine: Engine, temperature: float, samples: int) -> dict[str, Any]:
        asked = [(p, s) for p in range(len(self.problems)) for s in range(samples)]
        requests = [Request(prompt=self.problems[p].prompt, address=(SEED, 0, p, s)) for p, s in asked]
        sampling = replace(self.drawing.sampling, temperature=temperature, batch=self.spec.batch)
        drawn = engine.generate(requests, sampling, version=engine.version)
        answered = [(self.problems[p], x.tokens, x.truncated) for (p, _), x in zip(asked, drawn, strict=True)]
        before = self.drawing.exceeded_so_far()
        scores = np.array(self.drawing.scores(answered)).reshape(len(self.problems), samples).mean(1)
        return {
            "temperature": temperature,
            "accuracy": float(scores.mean()),
            "stderr": float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None,
            "n": len(asked),
            "problems": len(self.problems),
            "samples": samples,
            "overtimes": self.drawing.exceeded_so_far() - before,
        }
