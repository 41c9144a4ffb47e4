"""The teacher of a run, as something that scores: its weights, its vocabulary checked against the student's."""

import hashlib
from typing import TYPE_CHECKING

import torch

from opd_ops.models import assemble
from opd_ops.recipe import Opd, Precision, Recipe
from opd_ops.rollout.hf import HfEngine
from opd_ops.rollout.rollout import Engine
from opd_ops.teacher.local import LocalTeacher
from opd_ops.teacher.scores import Scorer
from opd_ops.training.loop import DTYPES, arithmetic
from pipelines.runs.starts import Model, load
from pipelines.store.objects import Store
from pipelines.store.scores import CachedScorer, ScoreCache

if TYPE_CHECKING:
    from pipelines.runs.fleet import Fleet


def source(store: Store, objective: Opd, start: Model, seed: int) -> Model:
    """The teacher's model; the student's start where the recipe names none.

    Errors: ValueError when its tokens are not the student's.
    """
    if objective.teacher is None:
        return start
    teacher = load(store, objective.teacher, seed)
    require_same_vocabulary(start, teacher)
    return teacher


def scorer(store: Store, recipe: Recipe, teacher: Model, student: Model, device: str, fleet: "Fleet | None") -> Scorer:
    """The run's teacher: the fleet's or one in this process, behind the cache of scores where the recipe keeps them."""
    found = fleet.scorer(recipe, teacher, student) if fleet else local(teacher, student, recipe.precision, device)
    return CachedScorer(found, ScoreCache(store)) if recipe.resources.keep_scores else found


def engine(recipe: Recipe, teacher: Model, device: str, fleet: "Fleet | None") -> Engine:
    """What draws responses from the teacher, its weights pushed."""
    dtype = DTYPES[recipe.precision.compute]
    rounded = recipe.precision.weights == "bf16"
    model = assemble(teacher.config, teacher.weights, dtype, rounded=rounded).to(torch.device(device))  # type: ignore[arg-type]
    found = HfEngine(model, shared=True)
    found.sync(dict(model.named_parameters()), 0)
    return found


def local(teacher: Model, student: Model, precision: Precision, device: str) -> LocalTeacher:
    """The teacher in this process, in the student's arithmetic."""
    rounded = precision.weights == "bf16"
    model = assemble(teacher.config, teacher.weights, DTYPES[precision.compute], rounded=rounded)
    return LocalTeacher(
        model.to(torch.device(device)),  # type: ignore[arg-type]
        scorer_digest(teacher, precision, device),
        shared_vocabulary(student, teacher),
        lambda: arithmetic(precision.compute, device),
    )


def scorer_digest(teacher: Model, precision: Precision, device: str) -> str:
    """Of all that a score's bits depend on besides the tokens: weights, arithmetic, library, instruction set."""
    facts = [teacher.digest, precision.weights, precision.compute, device, torch.__version__]
    facts += [torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())]
    return hashlib.sha256(" ".join(facts).encode()).hexdigest()


def shared_vocabulary(student: Model, teacher: Model) -> int:
    """Columns of the logits that both have and that stand for a token; what lies past them pads the embedding."""
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
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).get_vocab()
