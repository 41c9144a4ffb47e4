"""How much of the machine was busy with something else while the bench ran, from Linux' /proc/stat."""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
IDLE = (3, 4)  # fields idle and iowait of the line `cpu`
FIELDS = 8  # user nice system idle iowait irq softirq steal; the guest fields after them are counted in user and nice


class Load:
    """Cores busy from its making to `others`."""

    def __init__(self) -> None:
        self.begun, self.busy = time.monotonic(), busy()

    def others(self, ours: float) -> float | None:
        """Cores that others kept busy, time stolen by the host included; ours: CPU seconds of the bench in that time.

        None where the system does not tell.
        """
        now, wall = busy(), time.monotonic() - self.begun
        if now is None or self.busy is None or wall <= 0:
            return None
        return max(0.0, (now - self.busy - ours) / wall)


def busy() -> float | None:
    """Core-seconds since boot in which some core was not idle."""
    try:
        fields = [int(field) for field in STAT.read_text().split("\n", 1)[0].split()[1 : 1 + FIELDS]]
    except OSError:
        return None
    return (sum(fields) - sum(fields[index] for index in IDLE)) / os.sysconf("SC_CLK_TCK")
