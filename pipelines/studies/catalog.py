"""The studies there are, by name. A new study is a file here and a line in `studies`."""

from opd_ops.recipe import Recipe
from pipelines.studies import qwen3, smollm, tiny
from pipelines.studies.study import Study


def studies() -> dict[str, Study]:
    """All studies by name."""
    return {study.name: study for study in (tiny.study(), smollm.study(), qwen3.study())}


def find_study(name: str) -> Study:
    """The study of that name, or a ValueError that lists the known ones."""
    known = studies()
    if name not in known:
        raise ValueError(f"unknown study {name!r}; known: {', '.join(known)}")
    return known[name]


def remedy(name: str, seed: int) -> str:
    """How to make a run that is absent: the command that trains it, where a study of the catalog has it."""
    for study in studies().values():
        for suite, arms in study.suites.items():
            if name in {recipe.name for recipe in arms}:
                named = "" if suite == "core" else f" --suite {suite}"
                return f"train it first: opd study run {study.name}{named} --recipe {name} --seed {seed}"
        if name in {recipe.name for recipe in (*study.models, *study.helpers)}:
            return f"train it first: opd study run {study.name}"
    return "train it first"


def find_recipe(name: str) -> Recipe:
    """The recipe of that name in any study (models and helpers included), or a ValueError that lists the known ones."""
    known = {r.name: r for s in studies().values() for r in (*s.models, *s.helpers, *s.every_arm())}
    if name not in known:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(known)}")
    return known[name]
