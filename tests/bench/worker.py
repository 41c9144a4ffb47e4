"""A measuring process: `python -m tests.bench.worker BASE STEP K PART...`, as the scheduler's tasks would run it.

After its imports it writes a line and waits. Each line it reads is a tensor's name: it reads W0 and W_t by byte range,
measures, and answers with one line of JSON. At the end of its input it says how much its memory grew.
"""

import json
import sys
import time
from pathlib import Path

import torch

from opd_ops.roles import PROJECTIONS, role
from tests.bench import engine
from tests.bench.checkpoints import refs

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(field: str) -> int:
    """VmRSS or VmHWM (the highest VmRSS so far) of this process in bytes; 0 where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def main(base: str, step: str, k: str, *parts: str) -> None:
    torch.set_num_threads(1)
    before, after = refs(Path(base)), refs(Path(step))
    rest = memory("VmRSS")
    # The high-water mark of the imports would hide what measuring adds. Containers may refuse, and then it does.
    try:
        PEAK.write_text("5")
    except OSError:
        rest = max(rest, memory("VmHWM"))
    print(json.dumps({"rest": rest}), flush=True)
    for line in sys.stdin:
        name = line.strip()
        cpu = time.process_time()
        if role(name)[1] in PROJECTIONS:
            rows = engine.diagnose(engine.prepare(before[name].read(), int(k), parts), after[name].read())
        else:
            rows = engine.unchanged(before[name], after[name])
        print(json.dumps({"cpu": time.process_time() - cpu, "values": engine.values(rows)}), flush=True)
    print(json.dumps({"growth": memory("VmHWM") - rest}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
