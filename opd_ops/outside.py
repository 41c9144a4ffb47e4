"""Studies, tasks and functions that live outside these packages: a file, a module, or an entry point of a package.

    ./mine.py                  the object `study` (or `task`) of a file
    ./mine.py:other            another object of it
    package.module:other       an object of a module

OPD_STUDIES and OPD_TASKS hold such references, separated by commas, and child processes inherit them. A file runs
once per process, and again after it has changed. Its folder is appended to the module search path.
"""

import hashlib
import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

STUDIES, TASKS = "OPD_STUDIES", "OPD_TASKS"  # environment variables
VARIABLES = (STUDIES, TASKS)

_modules: dict[str, tuple[tuple[int, int], ModuleType]] = {}  # by absolute path: time and size of the file, its module


@dataclass(frozen=True)
class Reference:
    """A reference to an object. source: the absolute path of a file, or the dotted name of a module."""

    source: str
    name: str

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"


def is_reference(text: str) -> bool:
    """Whether a text names a file or a module, and not a study or a task."""
    return ":" in text or text.endswith(".py") or os.sep in text


def split_file(text: str) -> tuple[str, str]:
    """Splits FILE.py:NAME into ("FILE.py", ":NAME"); any other text into (text, "")."""
    file, colon, name = text.rpartition(":")
    return (file, f"{colon}{name}") if file.endswith(".py") else (text, "")


def parse_reference(text: str, default: str) -> Reference:
    """Parses a reference. default: the object's name if the text has none.

    Errors: ValueError for a text of neither form.
    """
    source, _, name = text.strip().rpartition(":") if not text.strip().endswith(".py") else (text.strip(), "", default)
    if source.endswith(".py") and name.isidentifier():
        return Reference(os.path.abspath(os.path.expanduser(source)), name)
    if name.isidentifier() and all(part.isidentifier() for part in source.split(".")):
        return Reference(source, name)
    raise ValueError(f"{text!r} names nothing to load: write ./FILE.py, ./FILE.py:NAME or PACKAGE.MODULE:NAME")


def load_object(reference: Reference) -> Any:
    """The object. Errors: ValueError in one line if the file, module or name is absent, or if its code raises."""
    module = load_module(reference.source)
    try:
        return getattr(module, reference.name)
    except AttributeError:
        raise ValueError(f"{reference.source} defines no {reference.name}; {_names(module)}") from None


def load_module(source: str) -> ModuleType:
    """The module of a file's absolute path or of a dotted name. Errors: as `load_object`."""
    return _load_file(source) if source.endswith(".py") else _import(source)


def listed_references(variable: str, default: str) -> list[Reference]:
    """The distinct references of an environment variable. Rewrites the variable with absolute paths."""
    texts = [text for text in os.environ.get(variable, "").split(",") if text.strip()]
    references = list(dict.fromkeys(parse_reference(text, default) for text in texts))
    if texts:
        os.environ[variable] = ",".join(map(str, references))
    return references


def append_reference(variable: str, reference: Reference, default: str) -> None:
    """Add a reference to an environment variable, if absent, for child processes."""
    references = listed_references(variable, default)
    if reference not in references:
        os.environ[variable] = ",".join(map(str, [*references, reference]))


def exported_variables() -> dict[str, str]:
    """The environment variables that give a Ray worker the same studies and tasks."""
    return {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}


@cache
def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """The entry points of a group in the installed packages, sorted by name."""
    return tuple(sorted(metadata.entry_points(group=group), key=lambda entry: entry.name))


def describe_failure(error: BaseException, source: str) -> str:
    """An error of user code in one line, with the number of the last line of `source` (a path) in its traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    message = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    where = f"{source} line {line}" if line else source
    return f"{where} raises {type(error).__name__}{': ' if message else ''}{message}"


def _load_file(path: str) -> ModuleType:
    try:
        state = os.stat(path)
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
    version = (state.st_mtime_ns, state.st_size)
    if path in _modules and _modules[path][0] == version:
        return _modules[path][1]
    stem = os.path.splitext(os.path.basename(path))[0]
    name = f"opd_outside_{hashlib.sha256(path.encode()).hexdigest()[:12]}_{stem}"
    if (folder := os.path.dirname(path)) not in sys.path:
        sys.path.append(folder)
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = path
    try:
        with open(
            path, "rb"
        ) as file:  # not the import system's loader, which takes a changed file for its old bytecode
            exec(compile(file.read(), path, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(describe_failure(error, path)) from error
    _modules[path] = version, module
    return module


def _import(name: str) -> ModuleType:
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"there is no module {name}: install its package, or name a file ./FILE.py") from None
        raise ValueError(f"the module {name} raises {type(error).__name__}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"the module {name} raises {type(error).__name__}: {' '.join(str(error).split())}") from error


def _names(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return f"it defines: {', '.join(names) or 'nothing'}"
