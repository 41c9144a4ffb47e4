"""`opd gc`: delete what nobody will ask a store for any more."""

import argparse
import re

from pipelines.cli.layout import wrap_text
from pipelines.cli.options import Commands, store_at

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def register(commands: Commands) -> None:
    top = commands.add_parser("gc", help="delete what stopped writers left, and resume state that is not needed")
    top.description = (
        "Delete what killed writes left, weights that were never committed, and resume state that nobody will ask "
        "for, once they are old enough by the store's clock, and nothing was written to their run while it was watched "
        "for five seconds, since that clock may have jumped. Never deleted: committed snapshots, moments, rollouts, "
        "measurements, tables, caches, and what is foreign."
    )
    top.epilog = (
        "Resume state by policy: `finished` is that of complete runs and what a later state superseded; `all` is also "
        "the last state of a run to which nothing was written for the age, which then begins again; `keep` is none. "
        "Example: opd gc --dry-run --age 7d"
    )
    top.add_argument("uri", nargs="?", metavar="URI", help="the store (default: OPD_STORE, or .opd/store here)")
    top.add_argument("--dry-run", action="store_true", help="print what would be deleted, and delete nothing")
    top.add_argument(
        "--age",
        default="24h",
        metavar="T",
        help="how long nothing was written, as 30m, 24h, 7d (default: 24h); below an hour only where nothing is "
        "being trained",
    )
    top.add_argument(
        "--resume", default="finished", metavar="POLICY", help="finished, all or keep, as below (default: finished)"
    )
    top.set_defaults(command=run_gc)


def run_gc(given: argparse.Namespace) -> int:
    from pipelines.cli.plan import format_bytes
    from pipelines.maintenance.sweeping import keep_idle, list_deletable, sweep
    from pipelines.progress import duration

    age = parse_age(given.age)
    store = store_at(given.uri)
    found = list_deletable(store, age=age, resume=given.resume)
    if not given.dry_run:
        found = keep_idle(store, found, resume=given.resume)
    gone = []
    for one, went in ((one, True) for one in found) if given.dry_run else sweep(store, found):
        words = "kept, written again:" if not went else "would delete" if given.dry_run else "deleted"
        for key in one.keys:
            print(f"{words} {key} ({one.why}, {duration(max(0.0, one.age))} old)", flush=True)
        gone += [one] if went else []
    objects, nbytes = sum(len(one.keys) for one in gone), sum(one.nbytes for one in gone)
    verb = "would be deleted" if given.dry_run else "deleted"
    policy = f"(older than {given.age}, resume {given.resume})"
    print(wrap_text(f"{store.uri}: {objects:,} objects, {format_bytes(nbytes)}, {verb} {policy}"))
    return 0


def parse_age(text: str) -> float:
    """`30m`, `24h`, `7d`. Errors: ValueError in one line."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw]?)", text, re.ASCII)
    if match is None or (not match[2] and float(match[1])):
        raise ValueError(f"--age {text} is no duration; write 30m, 24h or 7d")
    return float(match[1]) * UNITS.get(match[2], 1)
