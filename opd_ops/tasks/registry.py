"""The tasks there are, by the name a recipe gives. A new task is a file here and a branch in `build`."""

from typing import Any

from opd_ops.recipe import Task
from opd_ops.tasks.task import TaskLike


def build(task: Task, folder: str | None) -> TaskLike:
    """The task a recipe names. `folder` is the model folder whose tokenizer it needs, where it needs one.

    Errors: ValueError for an unknown task.
    """
    options: dict[str, Any] = dict(task.options)
    if task.name == "chains":
        from opd_ops.tasks.chains import Chains

        return Chains(**options)
    if task.name == "sums":
        from opd_ops.tasks.sums import Sums

        if folder is None:
            raise ValueError("task sums reads its tokenizer from a model folder, and the recipe starts from none")
        return Sums(folder, **options)
    raise ValueError(f"unknown task {task.name!r}; known: chains, sums")
