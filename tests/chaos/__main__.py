"""`python -m tests.chaos`: kill, race and break; print a table; exit code 1 when anything was lost."""

import argparse
import sys
import tempfile
from pathlib import Path

from pipelines.statistics.numbers import align_columns
from tests.chaos.kills import VICTIMS, Undisturbed, disturb
from tests.chaos.study import UndisturbedStudy

WORKER = "Dagster run worker"
KILLS = {"trainer": 25, "rollout actor": 20, "measuring worker": 20, "raylet": 15, "driver": 20, WORKER: 8}


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--victim", choices=VICTIMS, action="append", help="only this one")
    asked.add_argument("--kills", type=int, metavar="N", help=f"of each victim (default: {sum(KILLS.values())} in all)")
    asked.add_argument("--seed", type=int, default=0, metavar="N", help="of the random moments")
    given = asked.parse_args()
    rows, lost = [["killed with -9", "kills", "runs alike, byte for byte", "took"]], list[str]()
    with tempfile.TemporaryDirectory(prefix="opd-chaos-") as folder:
        print("undisturbed runs", flush=True)
        made = {kind: kind(Path(folder)) for kind in {_kind(victim) for victim in given.victim or VICTIMS}}
        for victim in given.victim or VICTIMS:
            undisturbed = made[_kind(victim)]
            found = disturb(victim, given.kills or KILLS[victim], undisturbed, Path(folder), given.seed)
            rows.append(found.cells())
            lost += found.lost
            print("  ".join(found.cells()), flush=True)
    print(f"\n{align_columns(rows)}")
    for key in lost:
        print(f"LOST {key}")
    return 1 if lost else 0


def _kind(victim: str) -> type[Undisturbed]:
    """What is disturbed by killing it."""
    return UndisturbedStudy if victim == WORKER else Undisturbed


if __name__ == "__main__":
    sys.exit(main())
