"""diffract-core, a session over checkpoints with numbers of each weight and of pairs, in an environment of its own.

It needs Python 3.12 and lives in `.venv-peers312`, made at first use. What it is asked for, by its documented calls:

    session = Session(profile="ram");  session.models.add({name: f32 array}, model_id=...)
    session.filter(model_ids=[base, step]).compute.apply("stable_rank", "effective_rank", "l_agreement", "r_agreement")

which are the stable and effective rank of W0 and W_t and |u_i(W0)' u_i(W_t)|, |v_i(W0)' v_i(W_t)| for every i: one
full f32 SVD a weight, by NumPy. The session keeps W0's, so a further snapshot costs one SVD and two products. It has no
number of W_t - W0, no angle between subspaces, no support, no null and no bound: it is asked for less than ours.

Seconds are CPU seconds of its one thread, from reading the files to the numbers, without imports.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.environment import ROOT, Environment

PIN = "0.3.1"
NAME = f"diffract-core {PIN}"
TOOL = Environment(ROOT / ".venv-peers312", (f"diffract-core=={PIN}",), version="3.12")

PROGRAM = """
import json, sys, time
import numpy
from diffract import Session

def read(folder):  # bf16 to f32, which is exact; safetensors by hand, since its environment has no torch
    with open(folder + "/model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    weights = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        bits = numpy.frombuffer(data[begin:end], "<u2").astype("<u4") << 16
        weights[name] = bits.view("<f4").reshape(entry["shape"])
    return weights

base, *steps, out = sys.argv[1:]
session, spent = Session(profile="ram"), []
with session:
    for place, step in enumerate(steps):
        begun = time.process_time()
        if place == 0:
            session.models.add(read(base), model_id="base")
        session.models.add(read(step), model_id=f"step-{place}")
        pair = session.filter(model_ids=["base", f"step-{place}"])
        pair.compute.apply("stable_rank", "effective_rank", "l_agreement", "r_agreement")
        spent.append(time.process_time() - begun)
with open(out, "w") as file:
    json.dump(spent, file)
"""


@dataclass(frozen=True)
class Spent:
    """CPU seconds: of W0 with its first snapshot, and of a further snapshot."""

    pair: float
    further: float


def measure(python: Path, base: Path, steps: Sequence[Path]) -> Spent:
    """Over Hugging Face folders of one shard in bf16; `steps` are two or more. Errors: Absent when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "spent.json"
        TOOL.call([str(python), "-c", PROGRAM, str(base), *map(str, steps), str(out)], "failed")
        first, *more = json.loads(out.read_text())
    return Spent(first, median(more))
