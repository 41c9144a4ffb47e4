"""A progress line with an ETA, drawn on a terminal only."""

import shutil
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

WIDTH = 24  # characters of the bar


class Board:
    """Progress over items of known cost. Thread-safe; silent unless `stream` is a terminal.

    work: cost of each item, in any common unit. The ETA extrapolates the pace so far over the remaining cost.
    """

    def __init__(self, work: Mapping[str, float], stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.work = dict(work)
        self.share = dict.fromkeys(self.work, 0.0)
        self.begun = time.monotonic()
        self.drawn = 0.0
        self.lock = threading.Lock()

    def update(self, item: str, share: float, words: str = "") -> None:
        """Set the finished share of `item`, in [0, 1]."""
        with self.lock:
            self.share[item] = max(self.share[item], min(1.0, share))
            now = time.monotonic()
            if self.stream.isatty() and (now - self.drawn > 0.2 or share >= 1):
                self.drawn = now
                self._draw(words or item)

    def say(self, text: str) -> None:
        """Print a permanent line above the progress line."""
        with self.lock:
            self._clear()
            print(text, flush=True)

    def close(self) -> None:
        with self.lock:
            self._clear()

    @property
    def done(self) -> float:
        """Finished share of the whole cost."""
        return sum(self.work[item] * share for item, share in self.share.items()) / (sum(self.work.values()) or 1.0)

    def eta(self) -> float | None:
        """Remaining seconds at the pace so far; None before there is one."""
        done, elapsed = self.done, time.monotonic() - self.begun
        return None if done < 0.02 else elapsed * (1 - done) / done

    def _draw(self, words: str) -> None:
        done, eta = self.done, self.eta()
        bar = "█" * int(WIDTH * done) + "░" * (WIDTH - int(WIDTH * done))
        left = "" if eta is None else f"  {duration(eta)} left"
        line = f"{bar} {100 * done:3.0f} %{left}  {words}"
        columns = shutil.get_terminal_size().columns
        self.stream.write(f"\r\x1b[2K{line[: columns - 1]}")
        self.stream.flush()

    def _clear(self) -> None:
        if self.stream.isatty():
            self.stream.write("\r\x1b[2K")
            self.stream.flush()


def duration(seconds: float) -> str:
    """`42 s` or `3 min 05 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
