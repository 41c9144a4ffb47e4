"""Estimates of a run on GPUs from its shapes alone: memory of each actor, time, stored bytes. Good to a factor of two.

Memory, with P weights of w bytes in the forward (2 for bf16), and [rows, R] response tokens in a micro-batch:

    trainer   w P served, 4 P masters, 8 P moments, 4 P accumulated gradients (of each term of a mix), always; and in a
              backward pass w P of the micro-batch's gradients, activations (`sizes.Sizes`), logits 6 rows R V
              as they are and in fp32 (4 where they are fp32), 4 rows R V each for log-softmax and its gradient (and the
              teacher's where it scores the vocabulary); or, in the update, 4 P of the foreach AdamW's temporaries
    confined  besides, for n weights in matrices [out, in] confined to K directions: bases of 8 K (out + in), 4 n of the
              start, and 4 n (gradient), 8 n (update) or 12 c for c coefficients (compressed, whose moments are 8 c in
              place of 8 n); after the update FLOATS float64 copies of the largest. Where the others are frozen, only
              served weights and masters are of all P
    guarded   4 n of the projections at the start, for a reaction
    worker    with N data parallel workers each has an N-th of every multiple of P, and in a backward pass 2 w of
              embeddings and head and 3 w of a block, whole: two blocks' weights, one's gradients. Rank 0 also samples
              where no actor does, with w P of its own
    rollout   w P, and the KV cache of a whole sampling call, every response as long as the limit
    teacher   w P of its own; in a forward one block's activations and the logits, in fp32 too, and their log-softmax

Time of a step, one phase after the other, each split evenly over its actor's GPUs:

    rollout   a call reads the weights once for every token of the limit, and each row's KV cache for each of its
              tokens; or 2 P operations a token where that takes longer
    teacher   one forward
    train     a forward and a backward, which is two forwards; one more where activations are recomputed
    update    (28 + w) P bytes, and (8 + w) P for each micro-batch's addition to the accumulated gradients

Not counted: the CUDA context and the engine's own memory (a few GiB a GPU), fragmentation, prefill, sending
weights to the rollout actors, waiting for the slowest actor, verifiers, evaluation (except its KV cache), reading and
writing. Sleeping actors are counted as if awake.
"""

import math
from dataclasses import dataclass

from opd_ops.recipe import Recipe, Teacher, Workers
from opd_ops.roles import PROJECTIONS
from pipelines.runs.resources.gpu_plan import GPUS, Actor, Gpu, Part, Plan
from pipelines.runs.resources.sizes import Sizes

PROMPT = 256  # tokens of a prompt
FLOATS = 4  # float64 copies of a confined matrix while its step is projected and its leak is read
SHARE = 0.5  # mean length of a response, of the limit
RATE, STREAM = 0.4, 0.6  # of a GPU's bf16 rate and of its bandwidth that are reached


def budget(recipe: Recipe, student: Sizes, teacher: Sizes | None = None, gpu: Gpu = GPUS["h200"]) -> Plan:
    """The plan of a run. teacher: of the model that the recipe names as its teacher.

    Errors: ValueError for a named teacher without sizes.
    """
    objective, rows, width = recipe.objective, recipe.precision.micro_batch, _width(recipe)
    length = PROMPT + recipe.rollout.max_new_tokens
    if objective.teacher is not None and teacher is None:
        raise ValueError(f"{recipe.name} names a teacher, and a plan needs its configuration")
    if objective.reads_privileged:
        teacher = student
    return Plan(
        recipe=recipe,
        gpu=gpu,
        student=student,
        teacher=teacher,
        rows=rows,
        length=length,
        actors=actors(recipe, student, teacher),
        activations=(
            student.activations(rows * length, width, checkpointed=True),
            student.activations(rows * length, width, checkpointed=False),
        ),
        seconds=_seconds(recipe, student, teacher, gpu, width),
        snapshots=4 * student.parameters * len({0, *recipe.horizon.snapshot_steps()}),
        resume=resume(recipe, student),
    )


def actors(recipe: Recipe, student: Sizes, teacher: Sizes | None, prompt: int = PROMPT) -> tuple[Actor, ...]:
    """The trainer, its other workers, rollout and teacher actors, with the memory of each. prompt: tokens of one."""
    where, rows, width = recipe.resources, recipe.precision.micro_batch, _width(recipe)
    sampler = teacher if isinstance(recipe.rollout.source, Teacher) and teacher is not None else student
    trainer = _trainer(recipe, student, rows, prompt)
    several, others = where.workers > 1, []
    if several:
        others.append(Actor(name="worker", workers=Workers(actors=where.workers - 1, gpus=where.gpus), parts=trainer))
    beside = (
        ("rollout", where.rollout, _rollout(recipe, sampler, width, prompt), sampler is student),
        ("teacher", where.teacher, _teacher(recipe, teacher, rows, width, prompt) if teacher else (), False),
    )
    for name, workers, parts, shares in beside:
        if workers.actors and parts:
            others.append(Actor(name=name, workers=workers, parts=parts))
        else:  # in the trainer's process, where the student's weights are already
            trainer += parts[1:] if shares and not several else parts
    return (Actor(name="trainer", workers=Workers(actors=1, gpus=where.gpus), parts=trainer), *others)


def resume(recipe: Recipe, student: Sizes) -> int:
    """Bytes of a resume state: masters and moments, and a constraint's bases and float64 tensors."""
    confined, constraint = _Confined.count(recipe, student), recipe.constraint
    exact = {"gradient": 0, "update": confined.weights, "compressed": confined.coefficients}
    float64 = 0 if constraint is None else exact[constraint.mode]
    return 4 * student.parameters + 8 * (_moved(recipe, student, confined) + confined.columns + float64)


def _width(recipe: Recipe) -> int:
    """Bytes of a served weight."""
    return 2 if recipe.precision.compute == "bf16" else 4


@dataclass(frozen=True, kw_only=True)
class _Confined:
    """Counts of a constraint: weights in its matrices and in the largest, coefficients, entries of its bases."""

    weights: int = 0
    largest: int = 0
    coefficients: int = 0
    columns: int = 0

    @staticmethod
    def count(recipe: Recipe, student: Sizes) -> "_Confined":
        if (constraint := recipe.constraint) is None:
            return _Confined()
        shapes = [student.shape(role) for role in constraint.roles] * student.layers
        rank, left, right = constraint.rank, constraint.side != "right", constraint.side != "left"
        rows = [(rank if left else out, rank if right else into) for out, into in shapes]
        return _Confined(
            weights=sum(map(math.prod, shapes)),
            largest=max(map(math.prod, shapes)),
            coefficients=sum(map(math.prod, rows)),
            columns=rank * sum(out * left + into * right for out, into in shapes),
        )


def _differentiated(recipe: Recipe, student: Sizes, confined: _Confined) -> int:
    """Weights with a gradient."""
    frozen = recipe.constraint is not None and recipe.constraint.others == "frozen"
    return confined.weights if frozen else student.parameters


def _moved(recipe: Recipe, student: Sizes, confined: _Confined) -> int:
    """Numbers that AdamW moves."""
    moved = _differentiated(recipe, student, confined)
    if recipe.constraint is not None and recipe.constraint.mode == "compressed":
        return moved - confined.weights + confined.coefficients
    return moved


def _trainer(recipe: Recipe, student: Sizes, rows: int, prompt: int) -> tuple[Part, ...]:
    limit, width = recipe.rollout.max_new_tokens, _width(recipe)
    constraint = recipe.constraint
    logits, weights = rows * limit * student.vocabulary, student.parameters
    checkpointed = recipe.resources.checkpoint_activations
    terms = len(recipe.objective.parts)
    activations = student.activations(rows * (prompt + limit), width, checkpointed=checkpointed)
    both = 4 if recipe.precision.compute == "fp32" else 6
    confined = _Confined.count(recipe, student)
    differentiated, moved = _differentiated(recipe, student, confined), _moved(recipe, student, confined)
    workers = recipe.resources.workers

    def share(size: int) -> int:
        return math.ceil(size / workers)

    parts = [
        Part(name="served weights", bytes=share(width * weights)),
        Part(name="masters, fp32", bytes=share(4 * weights)),
        Part(name="moments, fp32", bytes=share(8 * moved)),
        Part(name="accumulated gradients, fp32", bytes=share(4 * differentiated * terms)),
        Part(name="micro-batch gradients", bytes=share(width * differentiated), phase="backward"),
        Part(name=f"activations{', recomputed' * checkpointed}", bytes=activations, phase="backward"),
        Part(name="logits, and in fp32", bytes=both * logits, phase="backward"),
        Part(name="log-softmax, fp32", bytes=4 * logits, phase="backward"),
        Part(name="gradient of the log-softmax, fp32", bytes=4 * logits, phase="backward"),
        Part(name="AdamW's temporaries", bytes=share(4 * moved), phase="update"),
    ]
    if workers > 1:
        block = sum(math.prod(student.shape(role)) for role in PROJECTIONS)
        whole = 2 * (weights - student.layers * block) + 3 * block
        parts.append(Part(name="weights and gradients that are whole", bytes=width * whole, phase="backward"))
    if recipe.objective.scores_vocabulary:
        parts.append(Part(name="teacher's log-softmax, fp32", bytes=4 * logits, phase="backward"))
    if constraint is not None:
        state = {
            "gradient": 4 * confined.weights,
            "update": 8 * confined.weights,
            "compressed": 12 * confined.coefficients,
        }
        parts += [
            Part(name="constraint's bases, float64", bytes=8 * confined.columns),
            Part(name="confined weights at the start, fp32", bytes=4 * confined.weights),
            Part(name=f"what mode {constraint.mode} keeps", bytes=state[constraint.mode]),
            Part(name="a projected step, float64", bytes=8 * FLOATS * confined.largest, phase="confining"),
        ]
    if recipe.reaction is not None:
        projections = student.layers * sum(math.prod(student.shape(role)) for role in PROJECTIONS)
        parts.append(Part(name="guarded weights at the start, fp32", bytes=4 * projections))
    return tuple(parts)


def _rollout(recipe: Recipe, sampler: Sizes, width: int, prompt: int) -> tuple[Part, ...]:
    """Weights first. The KV cache is that of the largest call, of training's rollouts or of the held-out evaluation."""
    spec, held_out = recipe.rollout, recipe.evaluation
    rows = min(held_out.batch, held_out.problems * held_out.samples)
    if recipe.draws:
        rows = max(rows, min(spec.batch, spec.prompts * spec.samples))
    cached = rows * (prompt + spec.max_new_tokens) * sampler.cache(width)
    return (
        Part(name="weights of the sampler", bytes=width * sampler.parameters),
        Part(name=f"keys and values, {rows} rows", bytes=cached, phase="sampling"),
    )


def _teacher(recipe: Recipe, teacher: Sizes, rows: int, width: int, prompt: int) -> tuple[Part, ...]:
    limit = recipe.rollout.max_new_tokens
    logits = rows * limit * teacher.vocabulary
    return (
        Part(name="weights of the teacher", bytes=width * teacher.parameters),
        Part(name="one block's activations", bytes=rows * (prompt + limit) * teacher.block(width), phase="scoring"),
        Part(name="teacher's logits, fp32, log-softmax", bytes=(width + 8) * logits, phase="scoring"),
    )


def _seconds(recipe: Recipe, student: Sizes, teacher: Sizes | None, gpu: Gpu, width: int) -> dict[str, float]:
    """Of a step, by phase."""
    spec, where = recipe.rollout, recipe.resources
    rows, mean = spec.prompts * spec.samples, SHARE * spec.max_new_tokens
    rate, stream = RATE * gpu.flops, STREAM * gpu.bandwidth
    trainers, scorers = where.workers * max(1.0, where.gpus), max(1.0, where.teacher.actors * where.teacher.gpus)
    seconds = {}
    if recipe.draws:
        sampler = teacher if isinstance(spec.source, Teacher) and teacher is not None else student
        seconds["rollout"] = _sampling(recipe, sampler, rate, stream, width)
    if teacher is not None:
        seconds["teacher"] = teacher.forward(rows, PROMPT + mean) / rate / scorers
    passes = 4 if where.checkpoint_activations else 3
    seconds["train"] = passes * student.forward(rows, PROMPT + mean) / rate / trainers
    parts = math.ceil(rows / recipe.precision.micro_batch)
    seconds["update"] = (28 + width + (8 + width) * parts) * student.parameters / stream / trainers
    return seconds


def _sampling(recipe: Recipe, sampler: Sizes, rate: float, stream: float, width: int) -> float:
    """Seconds of one actor for its share of the step's sampling calls, one after the other."""
    spec, workers = recipe.rollout, recipe.resources.rollout
    rows, mean = spec.prompts * spec.samples, SHARE * spec.max_new_tokens
    calls = math.ceil(math.ceil(rows / spec.batch) / max(1, workers.actors))
    batch, gpus = min(spec.batch, rows), max(1.0, workers.gpus)
    read = spec.max_new_tokens * width * sampler.parameters
    read += batch * mean * (PROMPT + mean / 2) * sampler.cache(width)
    computed = batch * sampler.forward(1, PROMPT + mean)
    return calls * max(read / stream, computed / rate) / gpus
