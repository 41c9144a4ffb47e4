"""Tasks by the name in a recipe: those of this package, of OPD_TASKS, and of entry points `opd.tasks`.

A new task is a file with a class or function `task`. It is called as `task(folder, **options)`, or without `folder`
where it reads no tokenizer, and returns a `TaskLike`. A task's name is that of its file or module where the object is
called `task`, else the object's own; that of an entry point is the entry point's.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opd_ops import outside
from opd_ops.recipe import Task
from opd_ops.tasks.task import TaskLike

TASKS = ("chains", "jsonl", "reasoning", "sums")
OBJECT, GROUP = "task", "opd.tasks"


def build(task: Task, folder: str | None) -> TaskLike:
    """The task a recipe names. `folder` is the model folder whose tokenizer it needs, where it needs one.

    Errors: ValueError for an unknown task or option, a missing option, or a value the task refuses.
    """
    kind = find_kind(task.name)
    parameters = inspect.signature(kind).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {
        name: parameter
        for name, parameter in parameters.items()
        if name != "folder" and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    options: dict[str, Any] = dict(task.options)
    if (unknown := sorted(options.keys() - known.keys())) and not takes_any:
        raise ValueError(f"task {task.name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    required = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if missing := sorted(required - options.keys()):
        raise ValueError(f"task {task.name} needs the option {', '.join(missing)}")
    if "folder" not in parameters:
        return kind(**options)
    if folder is None:
        raise ValueError(f"task {task.name} reads its tokenizer from a model folder, and the recipe starts from none")
    return kind(folder, **options)


def outline(task: Task) -> str:
    """One line about a task's data that needs no tokenizer, such as how many problems are held out; or "".

    Errors: as the task's `outline`.
    """
    describe = getattr(find_kind(task.name), "outline", None)
    return describe(**task.options) if describe else ""


def path_options(task: Task) -> dict[str, str]:
    """The options that name files: those of the task's attribute `paths`, and of `functions` where one is of a file.

    Errors: as `find_kind`.
    """
    kind = find_kind(task.name)
    paths = {name: task.options.get(name) for name in getattr(kind, "paths", ())}
    functions = {name: task.options.get(name) for name in getattr(kind, "functions", ())}
    paths |= {name: text for name, text in functions.items() if _is_python(text)}
    return {name: text for name, text in paths.items() if isinstance(text, str)}


def _is_python(text: Any) -> bool:
    return isinstance(text, str) and outside.split_file(text)[0].endswith(".py")


def find_kind(name: str) -> Callable[..., TaskLike]:
    """The class or function that makes the task of that name.

    Errors: ValueError for an unknown name, one that two tasks have, and a file or module that cannot be loaded.
    """
    references = foreign_tasks()
    origins = ["this package"] * (name in TASKS) + [str(origin) for origin in dict.fromkeys(references.get(name, ()))]
    if len(origins) > 1:
        raise ValueError(f"two tasks are called {name!r}, of {origins[0]} and of {origins[1]}: rename one")
    if name in TASKS:
        return _own_kind(name)
    if not origins:
        raise ValueError(
            f"unknown task {name!r}; known: {', '.join([*TASKS, *references])}; OPD_TASKS=./FILE.py adds your own"
        )
    (reference,) = set(references[name])
    kind: Callable[..., TaskLike] = outside.load_object(reference)
    if not callable(kind):
        raise ValueError(f"{reference} is {type(kind).__name__}, not a class or function that makes a task")
    return kind


def foreign_tasks() -> dict[str, list[outside.Reference]]:
    """Where the tasks of OPD_TASKS and of entry points lie, by name. Errors: ValueError for what is no reference."""
    references: dict[str, list[outside.Reference]] = {}
    for reference in outside.listed_references(outside.TASKS, OBJECT):
        references.setdefault(task_name(reference), []).append(reference)
    for entry in outside.entry_points(GROUP):
        references.setdefault(entry.name, []).append(outside.Reference(entry.module, entry.attr))
    return references


def task_name(reference: outside.Reference) -> str:
    """The name of a task by where it lies."""
    if reference.name != OBJECT:
        return reference.name
    source = reference.source
    return Path(source).stem if source.endswith(".py") else source.rpartition(".")[2]


def _own_kind(name: str) -> Callable[..., TaskLike]:
    if name == "chains":
        from opd_ops.tasks.chains import Chains

        return Chains
    if name == "jsonl":
        from opd_ops.tasks.jsonl import Jsonl

        return Jsonl
    if name == "reasoning":
        from opd_ops.tasks.reasoning import Reasoning

        return Reasoning
    assert name == "sums"
    from opd_ops.tasks.sums import Sums

    return Sums
