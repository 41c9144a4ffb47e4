"""What the commands share: a parser that says what is wrong in one line, and options read the same everywhere."""

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

from pipelines.store.names import escape_text
from pipelines.store.objects import Store, default_uri, normalise

STUDY = "a study of `opd study list`, a file ./mine.py, or package.module:function"
Commands = Any  # what argparse's add_subparsers returns; its class is private


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {escape_text(message)}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


class Version(argparse.Action):
    """Prints the installed version, which is read from the package's metadata only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"opd {version('opd-geometry')}")
        parser.exit()


def add_commands(top: argparse.ArgumentParser) -> Commands:
    """Commands below a parser, which alone prints its help: who types no command asks which there are."""
    commands = top.add_subparsers(metavar="COMMAND", parser_class=Parser)
    top.set_defaults(command=lambda _: top.print_help() or 0)
    return commands


def parse_address(text: str) -> str:
    """An address that an option names. Errors: ArgumentTypeError for an empty one, such as of an unset variable."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"the address {text!r} is empty; name a folder or a URI, or leave it out")
    return text


def add_workers(top: argparse.ArgumentParser, default: int | None = None) -> None:
    """--workers N; by default all cores."""
    words = "all cores" if default is None else "this process" if default == 0 else str(default)
    top.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1 if default is None else default,
        metavar="N",
        help=f"workers, one core each, on Ray where the work is long; 0 works in this process (default: {words})",
    )


def require_workers(given: argparse.Namespace) -> None:
    """Errors: ValueError for a negative number of workers."""
    if given.workers < 0:
        raise ValueError(f"--workers {given.workers} is negative; give a number of processes, or 0 for this one alone")


def open_session(given: argparse.Namespace) -> AbstractContextManager[None]:
    """A Ray of --workers cores for the block; nothing for 0."""
    from pipelines.runs.cluster.attach import cluster

    return cluster(given.workers) if given.workers else nullcontext()


def ask_confirmation(question: str, yes: bool) -> bool:
    """Whether the answer is yes, which --yes gives. Errors: ValueError where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ValueError(f"{question} Nobody can answer here: add --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def store_of(given: argparse.Namespace) -> Store:
    """The store of --out, or the default one."""
    return Store(normalise(given.out) if given.out else default_uri())


def store_at(uri: str | None) -> Store:
    """The store at a URI, or the default one. Errors: ValueError where nothing is there."""
    store = Store(normalise(uri) if uri else default_uri())
    if not store.list(""):
        raise ValueError(f"{store.uri} holds nothing; check its address, or OPD_STORE")
    return store
