"""Checks before any work that GPUs, weights and files of problems exist."""

import os
from collections.abc import Sequence
from pathlib import Path

from opd_ops.outside import split_file
from opd_ops.recipe import Recipe, Weights
from opd_ops.tasks import registry
from pipelines.studies.catalog import study_arg


def require(recipes: Sequence[Recipe]) -> None:
    """Errors: ValueError naming in one line all that is missing. The store is not searched here."""
    missing = _gpus(recipes)
    if weights := [ref for ref in _outside_refs(recipes) if not _is_available(ref)]:
        missing.append(f"no weights {', '.join(weights)} (neither a folder nor in the hub's cache)")
    if files := [path for path in _files(recipes) if not Path(path).expanduser().exists()]:
        missing.append(f"no files {', '.join(files)}")
    if missing:
        study = recipes[0].study
        raise ValueError(
            f"{study} cannot run here: {'; '.join(missing)}; `opd study show {study_arg(study)}` says what it takes"
        )


def declared(recipe: Recipe) -> float:
    """GPUs of all of a run's actors."""
    where = recipe.resources
    return where.workers * where.gpus + sum(workers.actors * workers.gpus for workers in (where.rollout, where.teacher))


def present() -> float:
    """GPUs of the Ray cluster at RAY_ADDRESS, or of this machine."""
    if (os.environ.get("RAY_ADDRESS") or "local") != "local":
        import ray

        from pipelines.runs.cluster.attach import cluster

        with cluster():
            return ray.cluster_resources().get("GPU", 0.0)
    import torch

    return float(torch.cuda.device_count())


def _gpus(recipes: Sequence[Recipe]) -> list[str]:
    wanted = max(map(declared, recipes), default=0.0)
    if not wanted:
        return []
    available = present()
    reasons = [f"{wanted:g} GPUs are needed and {available:g} found"] if available < wanted else []
    if any(recipe.resources.gpus > 1 for recipe in recipes):
        reasons.append("a trainer's process works on one GPU, and resources.gpus is more: set gpus=1 and workers")
    return reasons


def _outside_refs(recipes: Sequence[Recipe]) -> list[str]:
    """Weights from outside the store, each once."""
    starts = [*(recipe.start for recipe in recipes), *(recipe.objective.teacher for recipe in recipes)]
    refs = [start.ref for start in starts if isinstance(start, Weights) and not start.ref.startswith("models/")]
    return list(dict.fromkeys(refs))


def _is_available(ref: str) -> bool:
    """Whether weights are a folder or in the hub's cache; workers never download."""
    if Path(ref).expanduser().exists():
        return True
    from transformers.utils.hub import cached_file

    try:
        return cached_file(ref, "config.json", local_files_only=True) is not None
    except OSError:
        return False


def _files(recipes: Sequence[Recipe]) -> list[str]:
    """Files that the recipes' tasks name, each once."""
    named = [path for recipe in recipes for path in registry.path_options(recipe.task).values()]
    return list(dict.fromkeys(split_file(path)[0] for path in named))
