"""`python -m tests.bench.paired COMMIT`: the default measurement by an older commit and by this one, in turn.

Both measure the same checkpoints on disk, the ten matrices of figure 10, each by its own code: a child process per run,
this interpreter, one thread, PYTHONPATH set to a git worktree of the commit or to this one, with the command line
`python -m pipelines.cli measure --workers 0` and an empty store each time. A pair is a run of each, and which comes
first changes from pair to pair; a ratio is older over this within a pair, of CPU seconds, and their median counts. By
phase:

    whole       user and system CPU seconds of the process
    measuring   what the table `timing` says of the phase measure, base factors included
    base        of that, base factors of W0
    snapshots   of that, the rest: every table, parts and null
    outside     whole less measuring: imports, planning, tables, the page

Then the tables of the first pair are compared (`agreement`). Exit code 0, also where they differ; 2 for bad input. The
checkpoints take 140 MB each, in a temporary folder (TMPDIR). After a run that was killed: git worktree prune
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from pipelines.runs.cluster.attach import THREADS, WORKER
from pipelines.statistics.numbers import align_columns
from tests.bench.environment import ROOT
from tests.bench.shapes import qwen_like
from tests.bench.synthetic import UPDATES

NAME = "paired"
PHASES = ("whole", "measuring", "base", "snapshots", "outside")
SIDES = ("older", "this")

Seconds = dict[str, float]  # CPU seconds by phase


class Failed(Exception):
    """A command that ended otherwise than with 0; the message is its last line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    os.environ.update(THREADS)
    asked = parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as name, worktree(asked.commit, Path(name) / "older") as older:
            return run(Path(name), older, asked)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m tests.bench.paired", description=(__doc__ or "").partition("\n")[0].partition(": ")[2]
    )
    top.add_argument("commit", metavar="COMMIT", help="the older commit, which must have `opd measure`")
    top.add_argument("--pairs", type=_whole, default=3, metavar="N", help="runs of each (default: 3)")
    top.add_argument("--snapshots", type=_whole, default=10, metavar="N", help="checkpoints measured (default: 10)")
    top.add_argument("--hidden", type=_whole, default=2048, metavar="N", help="size of the model (default: 2048)")
    top.add_argument("--update", choices=UPDATES, default="rl", help="regime of the updates (default: rl)")
    return top


def run(folder: Path, older: Path, asked: argparse.Namespace) -> int:
    """Measure in pairs and print what came of it."""
    import torch

    from pipelines.store.objects import Store
    from tests.bench import agreement
    from tests.bench.checkpoints import write_trajectory
    from tests.bench.measuring import recipe

    torch.set_num_threads(1)
    shapes = qwen_like(asked.hidden)
    weights = sum(shape.numel for shape in shapes)
    print(f"{weights:,} weights in {len(shapes)} matrices, {asked.snapshots} checkpoints, {asked.update}", flush=True)
    paths = write_trajectory(folder / "weights", shapes, asked.update, asked.snapshots)
    trees, pairs = dict(zip(SIDES, (older, ROOT), strict=True)), list[dict[str, Seconds]]()
    print("\n".join(f"{side:<6} {described(tree)}" for side, tree in trees.items()), flush=True)
    for number in range(asked.pairs):
        stores = {side: folder / f"store-{side}-{number}" for side in SIDES}
        turns = SIDES if number % 2 == 0 else SIDES[::-1]
        pairs.append({side: measure(trees[side], paths, stores[side]) for side in turns})
        ratio = pairs[-1]["older"]["whole"] / pairs[-1]["this"]["whole"]
        print(f"pair {number + 1} of {asked.pairs}: older over this {ratio:.2f}", flush=True)
        if number:
            for store in stores.values():
                shutil.rmtree(store)
    print(f"\n{shown(pairs)}\n")
    before, after = (Store(f"file://{folder}/store-{side}-0") for side in SIDES)
    agreements = agreement.compare(before, after, recipe(NAME))
    differing = [table.table for table in agreements if not table.agrees]
    print(agreement.shown(agreements))
    print(f"\n{', '.join(differing)} differ" if differing else "\nall values of both agree within their bounds")
    return 0


def measure(tree: Path, paths: Sequence[Path], store: Path) -> Seconds:
    """One run by the code under `tree`. Errors: Failed when it fails."""
    base, *steps = map(str, paths)
    command = [sys.executable, "-m", "pipelines.cli", "measure", "--base", base, "--name", NAME, "--out", str(store)]
    command += [word for step, ref in enumerate(steps, 1) for word in ("--snapshot", f"{step}={ref}")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call([*command, "--workers", "0"], tree)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return phases(whole, timing(store))


def phases(whole: float, told: Seconds) -> Seconds:
    """CPU seconds by PHASES, of a process and of what its table `timing` says."""
    measuring, base = told.get("measure", 0.0), told.get("base", 0.0)
    return dict(zip(PHASES, (whole, measuring, base, measuring - base, whole - measuring), strict=True))


def timing(store: Path) -> Seconds:
    """CPU seconds by phase of the measurement in a store, read as plain Parquet: both commits write that."""
    import polars as pl

    rows = pl.read_parquet(f"{store}/lake/timing/**/*.parquet", hive_partitioning=False)
    return dict(rows.select("phase", "cpu_s").iter_rows())


def shown(pairs: Sequence[dict[str, Seconds]]) -> str:
    """By phase, the median CPU seconds of each side, the median ratio and the ratio of every pair."""
    lines = [["CPU seconds", *SIDES, "older over this", "by pair"]]
    for phase in PHASES:
        seconds = [f"{median(pair[side][phase] for pair in pairs):.4g}" for side in SIDES]
        ratios = [pair["older"][phase] / pair["this"][phase] for pair in pairs if pair["this"][phase]]
        ratio = f"{median(ratios):.2f}" if ratios else "-"
        lines.append([phase, *seconds, ratio, ", ".join(f"{each:.2f}" for each in ratios)])
    return align_columns(lines)


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A checkout of a commit of this repository, removed with the block. Errors: Failed without such a commit."""
    call(["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], ROOT)
    try:
        yield folder
    finally:
        call(["git", "worktree", "remove", "--force", str(folder)], ROOT)


def described(tree: Path) -> str:
    """The commit of a checkout, and whether files differ from it; that its own code runs is made sure of."""
    where = call([sys.executable, "-c", "import pipelines; print(pipelines.__path__[0])"], tree)
    if Path(where).resolve() != (tree / "pipelines").resolve():
        raise Failed(f"the code that runs for {tree} is that of {where}")
    changed = call(["git", "status", "--porcelain", "--untracked-files=no"], tree)
    return f"{call(['git', 'log', '-1', '--format=%h %s'], tree)}{', with changed files' if changed else ''}"


def call(command: Sequence[str], tree: Path) -> str:
    """What a command in a checkout printed, run with that checkout's code. Errors: Failed."""
    environment = os.environ | WORKER | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise Failed(f"{' '.join(command[:4])}: {lines[-1]}")
    return done.stdout.strip()


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
