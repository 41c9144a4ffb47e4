"""The tasks there are, by the name a recipe gives. A new task is a file here and a branch in `_kind`."""

import inspect
from collections.abc import Callable
from typing import Any

from opd_ops.recipe import Task
from opd_ops.tasks.task import TaskLike

TASKS = ("chains", "jsonl", "reasoning", "sums")


def build(task: Task, folder: str | None) -> TaskLike:
    """The task a recipe names. `folder` is the model folder whose tokenizer it needs, where it needs one.

    Errors: ValueError for an unknown task or option, a missing option, or a value the task refuses.
    """
    kind = _kind(task.name)
    parameters = inspect.signature(kind).parameters
    known = {name: parameter for name, parameter in parameters.items() if name != "folder"}
    options: dict[str, Any] = dict(task.options)
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(f"task {task.name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    required = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if missing := sorted(required - options.keys()):
        raise ValueError(f"task {task.name} needs the option {', '.join(missing)}")
    if "folder" not in parameters:
        return kind(**options)
    if folder is None:
        raise ValueError(f"task {task.name} reads its tokenizer from a model folder, and the recipe starts from none")
    return kind(folder, **options)


def _kind(name: str) -> Callable[..., TaskLike]:
    if name == "chains":
        from opd_ops.tasks.chains import Chains

        return Chains
    if name == "jsonl":
        from opd_ops.tasks.jsonl import Jsonl

        return Jsonl
    if name == "reasoning":
        from opd_ops.tasks.reasoning import Reasoning

        return Reasoning
    if name == "sums":
        from opd_ops.tasks.sums import Sums

        return Sums
    raise ValueError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
