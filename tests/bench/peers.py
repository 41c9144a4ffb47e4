"""The tools in use, WeightWatcher and modeldelta, each in a process of its own beside ours on the same two folders.

They live in an environment of their own, `.venv-peers`, made at first use. What they are asked for:

    weightwatcher  WeightWatcher(model=tuned, base_model=base).analyze(plot=False, randomize=False, savefig=False)
                   The cheapest documented call that gives the stable rank of W_t - W0. Its power-law fit cannot be
                   switched off, but is 5 % of the time; the rest is SciPy's gesdd in float64.
    modeldelta     modeldelta base tuned -o report.json -q, the command line, in process.

Pitfalls. WeightWatcher: `analyze(base_model=...)` without `model=` is ignored when the model was given to the
constructor, and W_t itself is measured in silence, so both go to the constructor; its `norm` and `spectral_norm` are
squares; its `entropy` is that of sigma^2 over the log of the rank. modeldelta: its `sparsity` is |W_t - W0| < 1e-5,
which counts changed small weights as unchanged; its `frob_norm` is summed in f32; it has no spectral norm, which here
is its first singular value; past min(m, n) = 8192 it samples 40 directions.

Seconds are CPU seconds of the child process less those of one that only imports, the second of two such, since the
first may compile; threads are one, as ours.
"""

import json
import math
import resource
import tempfile
from dataclasses import dataclass
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
import json, sys
base, tuned, out = sys.argv[1:]
watcher = weightwatcher.WeightWatcher(model=tuned, base_model=base)
details = watcher.analyze(plot=False, randomize=False, savefig=False)
columns = ["longname", "norm", "spectral_norm", "stable_rank", "entropy", "matrix_rank"]
with open(out, "w") as file:
    json.dump(details[columns].to_dict("records"), file, default=float)
""",
    "modeldelta": """
import sys
base, tuned, out = sys.argv[1:]
modeldelta.cli.compare([base, tuned, "-o", out, "-q"], standalone_mode=False)
""",
}


@dataclass(frozen=True)
class Found:
    """seconds: CPU seconds without imports. values: by tensor name, the columns of update_spectrum it can give."""

    seconds: float
    values: dict[str, dict[str, float]]


def measure(peer: str, python: Path, base: Path, tuned: Path) -> Found:
    """Run one peer over two Hugging Face folders. Errors: Absent when it fails."""
    imports = _imports(python, IMPORTS[peer])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        seconds = _seconds(python, IMPORTS[peer] + CALLS[peer], str(base), str(tuned), str(out))
        found = json.loads(out.read_text())
    return Found(seconds - imports, READERS[peer](found))


def _weightwatcher(found: list[dict]) -> dict[str, dict[str, float]]:
    return {
        f"{row['longname']}.weight": {
            "frobenius": math.sqrt(row["norm"]),
            "spectral_norm": math.sqrt(row["spectral_norm"]),
            "stable_rank": row["stable_rank"],
            "effective_rank_energy": math.exp(row["entropy"] * math.log(row["matrix_rank"])),
        }
        for row in found
    }


def _modeldelta(found: dict) -> dict[str, dict[str, float]]:
    return {
        row["name"]: {
            "frobenius": row["frob_norm"],
            "relative_norm": row["frob_norm_relative"],
            "spectral_norm": row["top_singular_values"][0],
            "stable_rank": row["frob_norm"] ** 2 / row["top_singular_values"][0] ** 2,
            "effective_rank": row["effective_rank"],
            "unchanged": row["sparsity"],
        }
        for row in found["modules"]
    }


READERS = {"weightwatcher": _weightwatcher, "modeldelta": _modeldelta}


@cache
def _imports(python: Path, program: str) -> float:
    """CPU seconds of a process that imports what it was asked to import once before."""
    return [_seconds(python, program) for _ in range(2)][-1]


def _seconds(python: Path, program: str, *arguments: str) -> float:
    """CPU seconds, user and system, of one Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    TOOLS.call([str(python), "-c", program, *arguments], "failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
