"""Four arms of a miniature study that trains in a second, and what their runs leave in a store."""

import json
from pathlib import Path
from typing import Any

from opd_ops.recipe import (
    AdamW,
    Architecture,
    Evaluation,
    FinalOf,
    Fresh,
    Horizon,
    Opd,
    Recipe,
    Rlvr,
    Rollout,
    Sft,
    Task,
)
from pipelines.store.objects import Store

ARCHITECTURE = Architecture(
    vocab_size=32,
    hidden_size=32,
    num_hidden_layers=1,
    intermediate_size=48,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
TASK = Task(name="chains", options={"operations": 1})
PARENT = FinalOf(recipe="mini.pre", seed=0)
ARMS: dict[str, dict[str, Any]] = {
    "pre": {"start": Fresh(architecture=ARCHITECTURE), "objective": Sft(stream="noisy")},
    "teacher": {"start": PARENT, "objective": Sft(stream="clean")},
    "opd": {"start": PARENT, "objective": Opd(teacher=FinalOf(recipe="mini.teacher", seed=0))},
    "rlvr": {"start": PARENT, "objective": Rlvr()},
}


def arm(name: str, **changes: Any) -> Recipe:
    """arm(name, **changes): pre (from scratch), then teacher, opd and rlvr from its end."""
    fields: dict[str, Any] = {
        "study": "mini",
        "arm": name,
        "task": TASK,
        "optimizer": AdamW(learning_rate=1e-3, weight_decay=0.1),
        "horizon": Horizon(steps=7, snapshots=(1, 3), resume_every=2),
        "rollout": Rollout(prompts=2, samples=2, max_new_tokens=6),
        "evaluation": Evaluation(problems=4, samples=2),
    }
    return Recipe(**(fields | ARMS[name] | changes))


def contents(store: Store) -> dict[str, bytes]:
    """Every object that a rerun must reproduce, so neither times nor provenance."""
    root = Path(store.path(""))
    found = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    for name in found:
        if name.endswith("run.json"):
            found[name] = json.dumps(json.loads(found[name]) | {"provenance": None}).encode()
    return {name: data for name, data in found.items() if not name.startswith("lake/timing/")}
