"""A store with a run of every kind of object, of small random weights: no training."""

import hashlib
import json

import torch

from pipelines import lake
from pipelines.store.bases import BaseCache
from pipelines.store.rollouts import Rollouts
from pipelines.store.trajectory import Trajectory
from tests.pipelines.store.test_rollouts import row

STEPS = (0, 1, 3, 7)
NAME, SEED = "tiny.opd", 0


def weights(step, seed=0, scale=1e-4):
    generator = torch.Generator().manual_seed(seed)
    start, drift = ({n: torch.randn(12, 8, generator=generator) for n in ("a.weight", "b.weight")} for _ in range(2))
    return {name: w + scale * step * drift[name] for name, w in start.items()}


def facts(name, number, start="0123", kind="fresh", **more):
    identity = {"arm": name, "start": {"kind": kind} | more}
    return {
        "identity": identity,
        "fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest(),
        "inputs": {"start": start},
        "model": {"model_type": "qwen3"},
        "provenance": {"host": f"here-{number}"},
    }


def plant(store, name=NAME, seed=SEED, *, end=True, steps=STEPS, extras=True, start=None):
    """A run with snapshots, moments, rollouts, parts, records and tables; complete where `end`."""
    run = Trajectory(store, name, seed)
    run.register(start or facts(name, seed))
    parent = None
    for step in steps:
        run.commit(step, weights(step, seed), parent)
        parent = step
    if extras:
        run.save_moments(steps[1], 1, {"m": torch.ones(3)})
        rollouts = Rollouts(store, run.prefix)
        rollouts.append([row(step) for step in range(1, steps[-1] + 1)])
        rollouts.flush()
        data = json.dumps({"seed": seed}).encode() * 9
        store.write(f"{run.prefix}/measured/a/{hashlib.sha256(data).hexdigest()[:24]}.safetensors", data)
        lake.write(
            store, "training", [{"study": "tiny", "recipe": name, "seed": seed, "step": 1}], recipe=name, seed=seed
        )
        lake.write(store, "rotation", [], recipe=name, seed=seed)
        made_from = {"snapshots": {str(step): run.digest(step) for step in steps}, "settings": {"tables": ["rotation"]}}
        store.write(f"{run.prefix}/measured.json", json.dumps({"from": made_from, "problems": []}).encode())
    if end:
        run.finish({"step": parent, "digest": run.digest(parent), "snapshots": list(steps), "evaluation": []})
    else:
        run.save_resume(steps[-1], {"s": torch.ones(2)}, {"parent": parent})
    return run


def furnish(store):
    """Two runs, one of which is being trained, and what lies beside runs."""
    done = plant(store)
    going = plant(store, "tiny.rlvr", 2, end=False)
    BaseCache(store, "x").save("d0", "triplets-4", {"u": torch.ones(4, 2)})
    store.write("models/m/config.json", b"{}")
    store.write("reports/tiny/index.html", b"<html>")
    lake.write(store, "verdicts", [], study="tiny")
    return done, going


def contents(store):
    return {key: store.read(key) for key in store.find("")}
