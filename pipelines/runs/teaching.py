"""The teacher of a run, as something that scores: its weights, its vocabulary checked against the student's."""

from typing import Any

from opd_ops.models import assemble
from opd_ops.recipe import Opd, Recipe, opd_of
from opd_ops.rollout.hf import HfEngine
from opd_ops.teacher.local import LocalTeacher
from opd_ops.teacher.scores import Scorer
from opd_ops.training.loop import DTYPES, arithmetic
from pipelines.runs.placement import Placement
from pipelines.runs.starts import Model, load
from pipelines.runs.teachers import RemoteTeacher, TeacherSpec
from pipelines.store.objects import Store
from pipelines.store.scores import CachedScorer, ScoreCache, setting

LIMIT = 64 * 2**20  # bytes of scores of one step that are kept


def source(store: Store, objective: Opd, start: Model, seed: int) -> Model:
    """The teacher's model; the student's start where the recipe names none.

    Errors: ValueError when its tokens are not the student's.
    """
    if objective.teacher is None:
        return start
    teacher = load(store, objective.teacher, seed)
    require_same_vocabulary(start, teacher)
    return teacher


def scorer(store: Store, recipe: Recipe, seed: int, student: Model, teacher: Model, placement: Placement) -> Scorer:
    """The run's teacher, in actors or in this process, behind the cache of scores where the recipe keeps them."""
    opd = opd_of(recipe.objective)
    assert opd is not None
    compute, vocabulary = recipe.precision.compute, shared_vocabulary(student, teacher)
    device = "cuda" if recipe.resources.gpus else "cpu"
    if placement.teacher:
        spec = TeacherSpec(
            store=store,
            start=opd.teacher or recipe.start,
            seed=seed,
            vocabulary=vocabulary,
            compute=compute,
            threads=recipe.resources.threads,
        )
        remote = RemoteTeacher(spec, placement.teacher)
        return _kept(store, recipe, remote, remote.setting)
    model: Any = assemble(teacher.config, teacher.weights, DTYPES[compute])
    digest = teacher.digest if compute == "fp32" else f"{teacher.digest}-{compute}"
    local = LocalTeacher(model.to(device), digest, vocabulary, lambda: arithmetic(compute, device))
    return _kept(store, recipe, local, setting(compute, device))


def engine(recipe: Recipe, teacher: Model) -> HfEngine:
    """What draws responses from the teacher, in this process."""
    model: Any = assemble(teacher.config, teacher.weights, DTYPES[recipe.precision.compute])
    found = HfEngine(model.to("cuda" if recipe.resources.gpus else "cpu"), shared=True)
    found.sync(dict(model.named_parameters()), 0)
    return found


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


def _kept(store: Store, recipe: Recipe, scorer: Scorer, setting: str) -> Scorer:
    if not recipe.resources.keep_scores:
        return scorer
    return CachedScorer(scorer, ScoreCache(store, setting), LIMIT)


def _tokens(folder: str) -> dict[str, int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).get_vocab()
