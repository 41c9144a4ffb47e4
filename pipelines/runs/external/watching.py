"""Wait for the checkpoints of a run that is still training, and report each when it can be measured.

A checkpoint is ready when two consecutive polls find it complete and unchanged. Its files must be as long as their
headers say, but only an unchanged second poll shows that the writer is done.
"""

import time
from collections.abc import Callable, Container, Iterator, Mapping

from pipelines.store.checkpoint_series import Empty, open_trajectory
from pipelines.store.checkpoints import Incomplete, open_checkpoint

INTERVAL = 30.0  # seconds between polls
FIRST = 2.0  # seconds between the first two polls, at most


def wait_for_checkpoints(
    prefix: str,
    *,
    interval: float = INTERVAL,
    until: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[tuple[int, str]]]:
    """Checkpoints (step, ref) under a folder or URI prefix as they become ready, in order of steps, with step 0.

    Ends after one of step `until` or later. Errors: as for `open_trajectory`, except for an empty prefix.
    """
    told: set[int] = set()
    seen: dict[int, str] = {}  # stamps at the last poll
    pause = min(FIRST, interval)
    while True:
        ready, seen = poll_folder(prefix, told, seen)
        if ready:
            told |= {step for step, _ in ready}
            yield ready
            if until is not None and max(told) >= until and all(step in told or step > until for step in seen):
                return
        sleep(pause)
        pause = interval


def poll_folder(
    prefix: str, told: Container[int], seen: Mapping[int, str]
) -> tuple[list[tuple[int, str]], dict[int, str]]:
    """One poll: newly ready (step, ref), and the stamps for the next poll."""
    now = _complete(prefix, told)
    ready = [(step, ref) for step, (ref, stamp) in now.items() if seen.get(step) == stamp]
    return ready, {step: stamp for step, (_, stamp) in now.items()}


def _complete(prefix: str, told: Container[int]) -> dict[int, tuple[str, str]]:
    """Ref and stamp by step of the checkpoints that were not reported yet."""
    try:
        series = open_trajectory(prefix, told)
    except Empty:
        return {}
    found = {}
    for step, ref in series.complete:
        try:
            found[step] = ref, open_checkpoint(f"snapshot {step}", ref).stamp
        except Incomplete:  # replaced between two looks
            continue
    return found
