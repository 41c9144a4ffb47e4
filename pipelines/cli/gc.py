"""`opd gc`: delete what nobody will ask a store for any more."""

import argparse
import re

from pipelines.cli.layout import wrap_text
from pipelines.cli.options import Commands, store_at

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def register(commands: Commands) -> None:
    top = commands.add_parser("gc", help="delete what stopped writers left, and resume state that is not needed")
    top.description = (
        "Delete what killed writes left, weights that were never committed, teacher scores that version 0.1.0 kept, "
        "and resume state that nobody will ask for, once they are old enough by the store's clock, and nothing was "
        "written to their run while it was watched for five seconds, since that clock may have jumped. Never deleted: "
        "committed snapshots, moments, rollouts, measurements, tables, base factors, and what is foreign."
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


def run_gc(args: argparse.Namespace) -> int:
    from pipelines.cli.plan import format_bytes
    from pipelines.maintenance.sweeping import keep_idle, list_deletable, sweep
    from pipelines.progress import duration

    age = parse_age(args.age)
    store = store_at(args.uri)
    deletable = list_deletable(store, age=age, resume=args.resume)
    if not args.dry_run:
        deletable = keep_idle(store, deletable, resume=args.resume)
    gone = []
    for group, went in ((group, True) for group in deletable) if args.dry_run else sweep(store, deletable):
        words = "kept, written again:" if not went else "would delete" if args.dry_run else "deleted"
        for key in group.keys:
            print(f"{words} {key} ({group.why}, {duration(max(0.0, group.age))} old)", flush=True)
        gone += [group] if went else []
    objects, nbytes = sum(len(group.keys) for group in gone), sum(group.nbytes for group in gone)
    verb = "would be deleted" if args.dry_run else "deleted"
    policy = f"(older than {args.age}, resume {args.resume})"
    print(wrap_text(f"{store.uri}: {objects:,} objects, {format_bytes(nbytes)}, {verb} {policy}"))
    return 0


def parse_age(text: str) -> float:
    """Seconds of `30m`, `24h` or `7d`. Errors: ValueError in one line."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw]?)", text, re.ASCII)
    if match is None or (not match[2] and float(match[1])):
        raise ValueError(f"--age {text} is no duration; write 30m, 24h or 7d")
    return float(match[1]) * UNITS.get(match[2], 1)
