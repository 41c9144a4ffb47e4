"""Code that all commands share: a parser with one-line errors, and common options."""

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
    """A parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {escape_text(message)}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


class Version(argparse.Action):
    """Print the installed version; it reads the package metadata only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"opd {version('opd-geometry')}")
        parser.exit()


def add_commands(top: argparse.ArgumentParser) -> Commands:
    """Add subcommands to a parser. The parser prints its help if no command is given."""
    commands = top.add_subparsers(metavar="COMMAND", parser_class=Parser)
    top.set_defaults(command=lambda _: top.print_help() or 0)
    return commands


def parse_address(text: str) -> str:
    """Parse an address option. Errors: ArgumentTypeError for an empty one, for example from an unset variable."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"the address {text!r} is empty; name a folder or a URI, or leave it out")
    return text


def add_workers(top: argparse.ArgumentParser, default: int | None = None) -> None:
    """Add --workers N; the default is all cores."""
    words = "all cores" if default is None else "this process" if default == 0 else str(default)
    top.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1 if default is None else default,
        metavar="N",
        help=f"workers, one core each, on Ray where the work is long; 0 works in this process (default: {words})",
    )


def require_workers(args: argparse.Namespace) -> None:
    """Check --workers. Errors: ValueError for a negative number."""
    if args.workers < 0:
        raise ValueError(f"--workers {args.workers} is negative; give a number of processes, or 0 for this one alone")


def open_session(args: argparse.Namespace) -> AbstractContextManager[None]:
    """Open a Ray session with --workers cores for the block; no session for 0."""
    from pipelines.runs.cluster.attach import cluster

    return cluster(args.workers) if args.workers else nullcontext()


def ask_confirmation(question: str, yes: bool) -> bool:
    """Ask yes or no; --yes answers yes. Errors: ValueError if there is no terminal to ask."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ValueError(f"{question} Nobody can answer here: add --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def store_of(args: argparse.Namespace) -> Store:
    """The store of --out, or the default store."""
    return Store(normalise(args.out) if args.out else default_uri())


def store_at(uri: str | None) -> Store:
    """The store at a URI, or the default store. Errors: ValueError for an empty store."""
    store = Store(normalise(uri) if uri else default_uri())
    if not store.list(""):
        raise ValueError(f"{store.uri} holds nothing; check its address, or OPD_STORE")
    return store
