"""The teacher of a run: its weights, its vocabulary checked against the student's, its scorer and maybe its engine.

A teacher is always served rounded to bf16, whatever the precision of the student, as a released checkpoint would be.
"""

from typing import Any

from opd_ops.models import assemble
from opd_ops.recipe import Objective, Recipe, Task
from opd_ops.rollout.hf import HfEngine
from opd_ops.tasks.text import load_tokenizer
from opd_ops.teacher.local import LocalTeacher
from opd_ops.teacher.scores import Scorer
from opd_ops.training.student import DTYPES, arithmetic
from pipelines.runs.resources.placement import Placement
from pipelines.runs.trajectories.starts import Model, load
from pipelines.runs.trajectories.teachers import RemoteTeacher, TeacherSpec
from pipelines.store.objects import Store


def source(store: Store, objective: Objective, start: Model, seed: int, task: Task) -> Model:
    """The teacher's model; the student's start where the recipe names none.

    Errors: ValueError when its tokens are not the student's.
    """
    if objective.teacher is None:
        return start
    teacher = load(store, objective.teacher, seed, task)
    require_same_vocabulary(start, teacher)
    return teacher


def build(
    store: Store, recipe: Recipe, seed: int, student: Model, teacher: Model, placement: Placement
) -> tuple[Scorer, HfEngine | None]:
    """The run's scorer, and the engine that draws its responses where the rollout source is the teacher.

    The scorer runs in actors or in this process. In this process both uses share one loaded model.
    """
    compute, vocabulary = recipe.precision.compute, shared_vocabulary(student, teacher)
    device = "cuda" if recipe.resources.gpus else "cpu"
    drawing = recipe.rollout.source.kind == "teacher"
    model: Any = None
    if drawing or not placement.teacher:
        assembled: Any = assemble(teacher.config, teacher.weights, DTYPES[compute])
        model = assembled.to(device)
    if placement.teacher:
        spec = TeacherSpec(
            store=store,
            start=recipe.objective.teacher or recipe.start,
            seed=seed,
            task=recipe.task,
            vocabulary=vocabulary,
            compute=compute,
            threads=recipe.resources.threads,
        )
        scorer: Scorer = RemoteTeacher(spec, placement.teacher)
    else:
        digest = teacher.digest if compute == "fp32" else f"{teacher.digest}-{compute}"
        scorer = LocalTeacher(model, digest, vocabulary, lambda: arithmetic(compute, device))
    if not drawing:
        return scorer, None
    engine = HfEngine(model, shared=True)
    engine.sync({}, 0)
    return scorer, engine


def shared_vocabulary(student: Model, teacher: Model) -> int:
    """The number of logit columns that both models have and that are tokens; columns past it pad the embedding."""
    sizes = [student.config.vocab_size, teacher.config.vocab_size]
    if student.folder is not None:
        sizes.append(len(_tokens(student.folder)))
    return min(sizes)


def require_same_vocabulary(student: Model, teacher: Model) -> None:
    """Errors: ValueError naming the first token that differs, or the sizes."""
    if student.folder is None or teacher.folder is None:
        if (student.folder is None) != (teacher.folder is None):
            raise ValueError(
                f"the student's tokens are of {student.folder or 'its task'} and the teacher's of "
                f"{teacher.folder or 'its task'}: distillation needs one vocabulary"
            )
        if student.config.vocab_size != teacher.config.vocab_size:
            sizes = f"{student.config.vocab_size} and {teacher.config.vocab_size}"
            raise ValueError(f"student and teacher have vocabularies of {sizes} tokens: distillation needs one")
        return
    if student.folder == teacher.folder:
        return
    ours, theirs = _tokens(student.folder), _tokens(teacher.folder)
    for token in sorted(ours.keys() | theirs.keys(), key=lambda t: (ours.get(t, 1 << 40), t)):
        if ours.get(token) != theirs.get(token):
            raise ValueError(
                f"the tokenizers of {student.folder} and {teacher.folder} differ, first at token {token!r} "
                f"(id {ours.get(token, 'none')} and {theirs.get(token, 'none')}): distillation needs one vocabulary"
            )


def _tokens(folder: str) -> dict[str, int]:
    return load_tokenizer(folder).get_vocab()
