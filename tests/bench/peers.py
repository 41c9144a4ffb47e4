"""The tools in use, WeightWatcher and modeldelta, each in a process of its own beside ours on the same two folders.

They live in an environment of their own, `.venv-peers`, made at first use. What they are asked for:

    weightwatcher  WeightWatcher(model=tuned, base_model=base).analyze(plot=False, randomize=False, savefig=False)
                   The cheapest documented call that gives the stable rank of W_t - W0. Its power-law fit cannot be
                   switched off, but is 5 % of the time; the rest is SciPy's gesdd in float64.
    modeldelta     modeldelta base tuned -o report.json -q, the command line, in process.

WeightWatcher ignores `analyze(base_model=...)` without `model=` when the model was given to the constructor, and
measures W_t itself in silence, so both go to the constructor. modeldelta's `sparsity` is |W_t - W0| < 1e-5, which
counts changed small weights as unchanged; past min(m, n) = 8192 it samples 40 directions.

Seconds are CPU seconds of the child process less those of one that only imports, the second of two such, since the
first may compile; threads are one, as ours.
"""

import resource
import tempfile
from functools import cache
from pathlib import Path

from tests.bench.environment import ROOT, TORCH, Environment

PINS = {"weightwatcher": "0.7.7", "modeldelta": "0.4.4"}
TOOLS = Environment(ROOT / ".venv-peers", (TORCH, *(f"{name}=={version}" for name, version in PINS.items())))

IMPORTS = {
    "weightwatcher": "import weightwatcher",
    "modeldelta": "import modeldelta.cli, modeldelta.core.weight_diff, modeldelta.report.json_report\n"
    "import modeldelta.utils.model_loader, modeldelta.utils.model_meta",
}
CALLS = {
    "weightwatcher": """
import sys
base, tuned, out = sys.argv[1:]
watcher = weightwatcher.WeightWatcher(model=tuned, base_model=base)
details = watcher.analyze(plot=False, randomize=False, savefig=False)
details.to_json(out)
""",
    "modeldelta": """
import sys
base, tuned, out = sys.argv[1:]
modeldelta.cli.compare([base, tuned, "-o", out, "-q"], standalone_mode=False)
""",
}


def measure(peer: str, python: Path, base: Path, tuned: Path) -> float:
    """CPU seconds without imports of one peer over two Hugging Face folders. Errors: Absent when it fails."""
    imports = _import_seconds(python, IMPORTS[peer])
    with tempfile.TemporaryDirectory() as folder:
        return _seconds(python, IMPORTS[peer] + CALLS[peer], str(base), str(tuned), f"{folder}/out.json") - imports


@cache
def _import_seconds(python: Path, program: str) -> float:
    """CPU seconds of a process that imports what it was asked to import once before."""
    return [_seconds(python, program) for _ in range(2)][-1]


def _seconds(python: Path, program: str, *arguments: str) -> float:
    """CPU seconds, user and system, of one Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    TOOLS.call([str(python), "-c", program, *arguments], "failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
