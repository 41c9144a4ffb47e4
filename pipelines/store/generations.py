"""A JSON object that several writers update by compare-and-set, built on create-if-absent.

    <stem>.json              generation 0
    <stem>-<8 digits>.json   later generations; the newest one is the current value

A generation is created once and never changed. If several writers read the same generation, one of them creates the
next, and the others get FileExistsError. Older generations are deleted after a newer one exists. There is no lock: if a
writer is killed, the current value is either the old or the new generation.
"""

import contextlib
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.store.objects import Store

NONE = -1  # the number before the first generation


@dataclass(frozen=True)
class Generations:
    """The generations of `stem` in a store; stem: the key of generation 0 without its ending."""

    store: Store
    stem: str

    def key(self, number: int) -> str:
        return _name(self.stem, number)

    def newest(self) -> int:
        """The number of the newest generation, or NONE."""
        return max(self._numbers(), default=NONE)

    def read(self) -> tuple[int, bytes]:
        """The newest generation and its number. Errors: FileNotFoundError where there is none."""
        number = self.newest()
        while True:
            try:
                return number, self.store.read(self.key(max(number, 0)))
            except FileNotFoundError:
                before, number = number, self.newest()
                if number == before:  # else a newer one has replaced it since
                    raise

    def append(self, data: bytes, after: int) -> int:
        """Create generation `after` + 1; returns its number. Errors: FileExistsError if it or a newer one exists."""
        number = after + 1
        self.store.create(self.key(number), data)
        numbers = self._numbers()
        if max(numbers) > number:  # another writer had created this one, and a newer one, and deleted this one
            raise FileExistsError(f"{self.store.uri}/{self.key(max(numbers))} is newer")
        for older in numbers:
            if older < number:
                with contextlib.suppress(OSError):  # another writer deletes it, too
                    self.store.remove(self.key(older))
        return number

    def _numbers(self) -> list[int]:
        folder, name = posixpath.split(self.stem)
        return numbers(self.store.list(folder), name)


def newest(names: Iterable[str], stem: str) -> str | None:
    """The name of the newest generation of `stem` among the names of its folder, or None."""
    existing = numbers(names, stem)
    return _name(stem, existing[-1]) if existing else None


def numbers(names: Iterable[str], stem: str) -> list[int]:
    """Numbers of the generations of `stem` among the names of its folder, sorted."""
    pattern = re.compile(rf"{re.escape(stem)}(?:-(\d{{8}}))?\.json", re.ASCII)
    return sorted(int(match[1] or 0) for name in names if (match := pattern.fullmatch(name)))


def _name(stem: str, number: int) -> str:
    return f"{stem}.json" if number == 0 else f"{stem}-{number:08d}.json"
