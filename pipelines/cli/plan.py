"""`opd plan`: print what `opd measure` would read, compute and store, without any of that work."""

import argparse

from pipelines.cli import request
from pipelines.cli.layout import wrap_text
from pipelines.cli.options import Commands

UNITS = ("B", "kB", "MB", "GB", "TB")


def register(commands: Commands) -> None:
    top = commands.add_parser("plan", help="what `opd measure` would cost, before any work")
    top.description = (
        "Say what `opd measure` with the same options would read, compute and keep, without doing any of it: nothing "
        f"is written, and of weights only headers are read. {request.REF}"
    )
    top.epilog = "Example: opd plan --base ./base --trajectory ./checkpoints --k 16,64"
    request.add_options(top)
    top.set_defaults(command=show_plan)


def show_plan(args: argparse.Namespace) -> int:
    from opd_ops.geometry import gemm
    from pipelines.progress import duration
    from pipelines.runs.cluster.attach import use_one_thread
    from pipelines.runs.external.outline import Line, outline_import
    from pipelines.statistics.numbers import align_columns

    imported = request.plan_request(args)
    for note in imported.notes:
        print(wrap_text(f"note: {note}"))
    steps = ", ".join(map(str, imported.steps))
    if imported.fresh:
        print(f"{imported.recipe}: steps {steps} were measured already; nothing is left to do")
        return 0
    use_one_thread()
    probe = gemm.choose_path("cpu")
    outline = outline_import(imported, probe.gflops)

    def cells(role: str, line: Line) -> list[str]:
        stored = f"{format_bytes(line.base_kept)} there" if line.base_kept else ""
        return [
            role,
            str(line.matrices),
            format_bytes(line.read),
            format_bytes(line.base),
            stored,
            f"{line.seconds:,.1f} s",
        ]

    lines = [["role", "matrices", "read", "base factors", "", "CPU"]]
    lines += [cells(role, line) for role, line in outline.by_role.items()]
    print(f"{imported.recipe}: steps {steps}\n\n{align_columns([*lines, cells('total', outline.total)])}\n")
    print(f"to measure: steps {', '.join(map(str, outline.waiting)) or 'none'}")
    print(f"measured already: steps {', '.join(map(str, outline.measured)) or 'none'}")
    seconds, workers = outline.total.seconds, max(1, args.workers)
    shared = f", {duration(seconds / workers)} on {workers} cores" if workers > 1 else ""
    print(f"CPU: {duration(seconds)} at {probe.gflops:.0f} Gflop/s{shared}")
    share = f", {outline.total.parts / outline.total.snapshots:.1%} of the snapshots" if outline.total.snapshots else ""
    print(f"kept for later pairs of snapshots: up to {format_bytes(outline.total.parts)}{share}")
    print(f"memory of a worker: up to {format_bytes(outline.peak)}")
    return 0


def format_bytes(count: float) -> str:
    """Bytes in decimal units: `0 B`, `1.5 MB`."""
    unit = 0
    while count >= 1000 and unit < len(UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {UNITS[unit]}"
