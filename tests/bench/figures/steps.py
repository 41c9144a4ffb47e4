"""Figure 6: CPU seconds of an OPD and of a GRPO step beside TRL's; loss and gradient of both on the same tokens.

The tiny study's model with random weights, its prompts and batch, at most 24 new tokens, fp32, one thread. Rounds
alternate, and the ratio is the median over rounds. TRL runs in an environment of its own, with the same transformers.
Losses are compared on responses that this project drew: for GRPO on its advantages too, since TRL divides by the
sample's standard deviation + 1e-4. Beside the ratio stands what the step's matrix products take by themselves.
"""

import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from opd_ops.models import assemble, configuration, initialise
from opd_ops.objectives import rlvr
from opd_ops.objectives.loss import Phase
from opd_ops.recipe import Recipe
from opd_ops.tasks import chains
from opd_ops.tasks.registry import build
from opd_ops.teacher.local import LocalTeacher
from opd_ops.training.drawing import Response
from opd_ops.training.inputs import InitialState
from opd_ops.training.loop import Trainer
from pipelines.studies import tiny
from tests.bench import products
from tests.bench.catalog import say
from tests.bench.environment import Absent
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.sizes import Sizes
from tests.bench.trl import driver
from tests.bench.trl.job import Job

MOST = 0.6  # of TRL's CPU seconds
CONFIG = configuration(tiny.ARCHITECTURE, pad=chains.PAD, bos=chains.BOS, eos=chains.EOS)
WARMUP = 3


def measure_steps(sizes: Sizes) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folders = [_folder(Path(name) / str(seed), seed) for seed in range(2)]
        try:
            driver.TRL.python(sizes.install)
        except Absent as absent:
            return [row(6, "TRL 1.16", "CPU per step, ours over TRL's", None, most=MOST, note=str(absent))]
        for recipe in (tiny.opd(), tiny.rlvr()):
            job = _job(recipe, folders, sizes)
            rows += _race(recipe, job, sizes)
            rows += _agreement(recipe, job)
    return rows


def trainer(recipe: Recipe, phase: Phase = lambda name: nullcontext()) -> Trainer:
    """A trainer of the tiny study's arm from random weights, its teacher random too; rewards alternate."""
    teacher = None
    if recipe.objective.needs_teacher:
        teacher = LocalTeacher(assemble(CONFIG, initialise(CONFIG, 1), torch.float32), "random")
    start = InitialState(CONFIG, initialise(CONFIG, 0))
    run = Trainer(recipe, 0, start, build(recipe.task, None), teacher, phase=phase)
    run.drawing.scores = lambda answered: [float(i % 2) for i in range(len(answered))]
    return run


def _race(recipe: Recipe, job: Job, sizes: Sizes) -> list[Row]:
    ours, theirs, ratios, floors, outside, release = [], [], [], [], [], ""
    for turn in range(sizes.repeats):
        say(f"{recipe.arm}, round {turn + 1} of {sizes.repeats}")
        found = driver.measure(job)
        theirs += found.seconds
        outside.append(found.outside)
        release = found.versions["trl"]
        run = trainer(recipe)
        for _ in range(WARMUP):
            run.advance()
        mine = [cpu(run.advance).seconds for _ in range(job.steps)]
        ours += mine
        ratios.append(median(mine) / found.median)
        floors.append(products.seconds(products.products(run.advance)) / found.median)
    note = f"{median(ours):.3f} s against {median(theirs):.3f} s, TRL {release}, {len(ours)} steps each"
    floor = "of the same shapes, by themselves: forward, backward, teacher and sampling"
    share = f"{100 * median(outside):.0f} % of TRL's step is outside generate, forward, backward and optimizer"
    return [
        row(6, recipe.arm, "CPU per step, ours over TRL's", median(ratios), "x", most=MOST, note=note),
        row(6, recipe.arm, "matrix products of our step over TRL's step", median(floors), "x", note=floor),
        row(6, recipe.arm, "CPU per step of TRL", median(theirs), "s", note=share),
    ]


def _agreement(recipe: Recipe, job: Job) -> list[Row]:
    """Loss and gradient of both sides on the same responses."""
    run = trainer(recipe)
    responses = run.advance().responses
    prompts = [r.prompt for r in responses[:: job.group]]
    tokens, advantages = [r.tokens for r in responses], _advantages(recipe, responses)
    theirs = driver.evaluate(replace(job, prompts=prompts, responses=tokens, advantages=advantages))
    losses, gradients = trainer(recipe).differentiate(responses)
    (loss,) = losses.values()
    ours = np.concatenate([gradients[name].double().numpy().ravel() for name in sorted(gradients)])
    other = np.concatenate([theirs.tensors[name].double().numpy().ravel() for name in sorted(gradients)])
    distance = float(np.linalg.norm(ours - other) / np.linalg.norm(other))
    note = f"{loss:.6g} and {theirs.loss:.6g}"
    size = max(abs(theirs.loss), 1e-3)  # a GRPO loss is a sum of advantages, zero but for rounding
    return [
        row(6, recipe.arm, "loss on the same tokens, difference", abs(loss - theirs.loss) / size, most=1e-4, note=note),
        row(6, recipe.arm, "gradient on the same tokens, relative distance", distance, most=1e-4),
    ]


def _advantages(recipe: Recipe, responses: list[Response]) -> list[float]:
    if not recipe.objective.needs_rewards:
        return []
    rewards = torch.tensor([r.reward for r in responses])
    return rlvr.advantages(rewards, torch.tensor([r.prompt_id for r in responses])).tolist()


def _job(recipe: Recipe, folders: list[Path], sizes: Sizes) -> Job:
    problems = build(recipe.task, None).problems("train", recipe.rollout.prompts, np.random.default_rng(0))
    distils = recipe.objective.needs_teacher
    return Job(
        method="opd" if distils else "grpo",
        student=folders[0],
        teacher=folders[1] if distils else None,
        prompts=[problem.prompt for problem in problems],
        group=recipe.rollout.samples,
        max_new_tokens=recipe.rollout.max_new_tokens,
        pad=chains.PAD,
        bos=chains.BOS,
        eos=chains.EOS,
        learning_rate=recipe.optimizer.learning_rate,
        warmup=WARMUP,
        steps=10 if sizes.install else 1,
    )


def _folder(folder: Path, seed: int) -> Path:
    disable_progress_bar()
    assemble(CONFIG, initialise(CONFIG, seed), torch.float32).save_pretrained(folder)
    return folder
