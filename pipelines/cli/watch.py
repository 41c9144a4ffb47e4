"""`opd watch`: list and change the prefixes under which Dagster's sensor looks for checkpoints of external runs."""

import argparse

from pipelines.cli.layout import wrap_text
from pipelines.cli.options import Commands, parse_address, store_of


def register(commands: Commands) -> None:
    top = commands.add_parser("watch", help="have Dagster measure and monitor checkpoints as they appear")
    top.description = (
        "Write down that checkpoints appear under a prefix. Dagster's sensor `watch`, once it is switched on, measures "
        "each that stands still and holds the run against the band of reference runs. Without Dagster: "
        "`opd monitor --trajectory PREFIX --watch`."
    )
    top.epilog = "Example: opd watch mine --trajectory s3://bucket/run --base ./base --against tiny.opd"
    top.add_argument("name", nargs="?", metavar="NAME", help="what the run is called; without it all are listed")
    top.add_argument(
        "--trajectory", type=parse_address, metavar="PREFIX", help="the folder or URI prefix of its checkpoints"
    )
    top.add_argument(
        "--base", type=parse_address, metavar="REF", help="the weights it began with (default: its step 0)"
    )
    top.add_argument("--against", action="append", default=[], metavar="NAME", help="reference recipe; repeat for more")
    top.add_argument("--end", action="store_true", help="watch it no more; what was measured stays")
    top.add_argument("--out", metavar="URI", help="the store (default: OPD_STORE or .opd/store)")
    top.set_defaults(command=run_watch)


def run_watch(args: argparse.Namespace) -> int:
    from pipelines.runs.external import watchlist

    store = store_of(args)
    options = [option for option in ("trajectory", "base", "against") if getattr(args, option)]
    if args.name is None or args.end:
        if options:
            raise ValueError(f"--{options[0]} goes with a NAME to watch; give a NAME, or leave --{options[0]} out")
        if args.end and args.name is None:
            raise ValueError("--end goes with a NAME; `opd watch` lists them")
    if args.end:
        watchlist.remove_watch(store, str(args.name))
        print(f"{args.name} is watched no more")
        return 0
    if args.name is not None and options:
        if args.trajectory is None:
            raise ValueError(f"nothing to watch as {args.name}; give --trajectory PREFIX")
        watchlist.add_watch(store, args.name, args.trajectory, tuple(args.against), args.base)
    watch_names = [args.name] if args.name is not None else watchlist.list_watches(store)
    for name in watch_names:
        watch = watchlist.read(store, name)
        base = f" from {watch.base}" if watch.base else ""
        print(wrap_text(f"{name}: {watch.prefix}{base}, against {', '.join(watch.against)}"))
    if args.name is not None and options:
        print(wrap_text("measured as they appear once Dagster's sensor `watch` is on (opd ui, Automation)"))
    if not watch_names:
        print(f"nothing is watched in {store.uri}")
    return 0
