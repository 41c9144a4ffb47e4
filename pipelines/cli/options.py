"""What the commands share: a parser that says what is wrong in one line, and options read the same everywhere."""

import argparse
import sys
from typing import Any, NoReturn

from pipelines.store.objects import Store, default_uri, normalise

Commands = Any  # what argparse's add_subparsers returns; its class is private


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def store_of(given: argparse.Namespace) -> Store:
    """The store of --out, or the default one."""
    return Store(normalise(given.out) if given.out else default_uri())


def location(store: Store, key: str) -> str:
    """A key as a person opens it."""
    from pipelines.runs import comparing

    return comparing.location(store, key)
