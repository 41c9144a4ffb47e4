"""`python -m tests.fuzz`: damage what every reader reads, and see what becomes of it.

What is read is right, or nothing, or refused in one line of this project's own that names the object. Never: another
exception, a crash, a hang, MEMORY bytes more than before, or CLAIM seconds for what claims to be huge.

A reader that allocates what a header claims is among them, and must be found.

One process, whose address space ends ROOM bytes above what it has when every reader has read once. A case is known by
seed, target and number; a failure says which command repeats it.
"""

import argparse
import faulthandler
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "POLARS_MAX_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

MEMORY = 256 * 2**20  # bytes of resident memory that a reader may take beside what it had
ROOM = 512 * 2**20  # bytes of address space, of which allocators reserve some in advance
SECONDS = 5.0  # CPU seconds of one case; more is a hang
CLAIM = 0.1  # CPU seconds that a case may take, whatever is claimed in it
CASES = 150  # of each target
BELIEVER = "believer"  # a target whose reader is how none may be: it must be found


class Hang(BaseException):
    """A case that took SECONDS of CPU time."""


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    asked.add_argument("--target", action="append", metavar="NAME", help="only this one; may be repeated")
    asked.add_argument("--cases", type=int, default=CASES, metavar="N", help=f"of each target (default: {CASES})")
    asked.add_argument("--case", type=int, metavar="N", help="only this one of each target")
    asked.add_argument("--seconds", type=float, metavar="S", help="go on with further seeds for so long")
    given = asked.parse_args()
    faulthandler.enable()
    signal.signal(signal.SIGVTALRM, _hang)

    from tests.fuzz.targets import TARGETS, planted

    names = given.target or [name for name in TARGETS if name != BELIEVER]
    targets = {name: Planted(name, *planted(name)) for name in (*names, BELIEVER)}
    for one in targets.values():  # once more, damaged: what is imported for a refusal is there
        one.tried("0 0")
    before = _limited()
    seen = [targets[BELIEVER].tried(f"{given.seed} {number}").wrong for number in range(CASES)]
    failures = 0 if any("MemoryError" in wrong or "took" in wrong for wrong in seen) else 1
    if failures:
        print("FAILED a reader that allocates what is claimed is not found", flush=True)
    begun, seed, tries = time.monotonic(), given.seed, list[Tried]()
    while True:
        for name in names:
            for number in range(given.cases) if given.case is None else (given.case,):
                found = targets[name].tried(f"{seed} {name} {number}")
                tries.append(found)
                wrong = found.wrong
                if not wrong and (grown := _peak() - before) > MEMORY:
                    wrong, before = f"took {grown / 2**20:.0f} MiB", _peak()
                if wrong:
                    failures += 1
                    where = f"--seed {seed} --target '{name}' --case {number}"
                    print(f"FAILED python -m tests.fuzz {where}\n{wrong}\n", flush=True)
        seed += 1
        if given.seconds is None or time.monotonic() - begun > given.seconds:
            break
    said = ", ".join(f"{count} {outcome}" for outcome, count in Counter(one.outcome for one in tries).items())
    slowest = max(tries, key=lambda one: one.took)
    print(
        f"{len(tries)} cases of {len(names)} readers, seeds {given.seed} to {seed - 1}: {said}; {failures} failures; "
        f"the slowest took {slowest.took:.2f} s ({slowest.name}); {(_peak() - before) / 2**20:.0f} MiB more than before"
    )
    return 1 if failures else 0


@dataclass(frozen=True)
class Tried:
    """A case. outcome: as written, refused, nothing or other. wrong: why it failed. took: CPU seconds."""

    name: str
    outcome: str
    wrong: str
    took: float


class Planted:
    """A target's objects, and what is read of them as they were written."""

    def __init__(self, name: str, store: Any, hurt: Any) -> None:
        from tests.fuzz.targets import TARGETS

        self.name, self.store, self.hurt = name, store, hurt
        self.contents = {key: store.read(key) for key in store.find("")}
        self.right = None if name == BELIEVER else TARGETS[name].read(store)

    def tried(self, seed: str) -> Tried:
        """One case."""
        took, outcome = 0.0, ""
        try:
            for _ in range(2):  # what is slow once may have waited for the collector
                begin = time.process_time()
                outcome = _case(self.name, (self.store, self.hurt), self.contents, self.right, random.Random(seed))
                if (took := time.process_time() - begin) < CLAIM:
                    return Tried(self.name, outcome, "", took)
            return Tried(self.name, outcome, f"took {took:.2f} s of CPU time", took)
        except (Exception, Hang) as error:
            return Tried(self.name, "other", "".join(traceback.format_exception(error)[-6:])[-3000:], took)


def _case(name: str, planted: Any, contents: dict[str, bytes], right: Any, draw: random.Random) -> str:
    """Damage one object, read, and put everything back. Errors: AssertionError for what must not be."""
    from tests.fuzz.targets import NOTHING, TARGETS, sealed

    (store, hurt), target = planted, TARGETS[name]
    key = draw.choice(sorted(hurt))
    how = draw.choice(hurt[key])
    store.write(key, how(contents[key], draw))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        found = target.read(store)
    except (ValueError, OSError) as error:
        _require_own(error, target.names)
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for other in set(store.find("")) - contents.keys():
            store.remove(other)
        for other, data in contents.items():
            store.write(other, data)
    if repr(found) == repr(right):
        return "as written"
    if found == NOTHING:
        return "nothing"
    assert not target.pinned or how is sealed, f"{key} was damaged and something else was read: {str(found)[:300]}"
    return "other"


def _require_own(error: Exception, names: str) -> None:
    """Errors: AssertionError for an error that is not this project's, takes several lines, or names no object."""
    kind, line = type(error), str(error)
    own = kind.__module__ in ("builtins", "pipelines.store.checkpoints", "pipelines.store.byteplanes")
    assert own and not isinstance(error, UnicodeError | MemoryError), f"{kind.__module__}.{kind.__name__}: {line[:500]}"
    assert len(line.splitlines()) == 1 and "\x1b" not in line, f"several lines: {line!r}"
    assert 20 < len(line) < 5_000, f"{len(line)} characters: {line[:500]}"
    assert names in line, f"{names} is not named: {line}"


def _limited() -> int:
    """End the address space ROOM above what is in use; most resident bytes so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hang(*_: object) -> None:
    raise Hang(f"more than {SECONDS:g} s of CPU time")


if __name__ == "__main__":
    sys.exit(main())
