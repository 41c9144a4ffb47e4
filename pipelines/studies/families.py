"""Other problem families of a study's task: finished runs are evaluated on them, none is trained on them.

A family changes the task's options, never a recipe. Held-out problems of another family may still share facts with
what was trained on: of chains, all single facts, and the corpus form is that of pretraining, whose documents were not
held out.
"""

from dataclasses import dataclass

from opd_ops.recipe import Evaluation, Task


@dataclass(frozen=True, kw_only=True)
class Family:
    """A task and the longest response in tokens."""

    task: Task
    max_new_tokens: int


EVALUATION = Evaluation(problems=256, samples=4)


def chain_families(operations: int, tag: str) -> Family:
    """Chains of other lengths or in the corpus form. An answer has 6 tokens a step, the result's 2 and EOS."""
    task = Task(name="chains", options={"operations": operations, "tag": tag})
    return Family(task=task, max_new_tokens=6 * (operations + 1))


FAMILIES: dict[str, dict[str, Family]] = {
    "tiny": {
        "tag-C": chain_families(3, "C"),  # the corpus's tag, which pretraining only saw before one or two steps
        "tag-F": chain_families(3, "F"),  # the tag of single facts
        "operations-2": chain_families(2, "M"),
        "operations-4": chain_families(4, "M"),
        "corpus-2": chain_families(2, "C"),  # as in pretraining: what training has made the model forget
    },
    "smollm": {
        "digits-3": Family(task=Task(name="sums", options={"digits": 3}), max_new_tokens=8),
    },
}


def study_families(study: str) -> dict[str, Family]:
    """The families of a study by name. Errors: ValueError for a study without any."""
    if study not in FAMILIES:
        raise ValueError(f"study {study} has no other families of its task; with some: {', '.join(FAMILIES)}")
    return FAMILIES[study]
