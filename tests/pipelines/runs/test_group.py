"""A run trained by two workers: the losses of one to float tolerance, whatever becomes of the other."""

import math
import os
import signal
from dataclasses import replace

import psutil
import pytest

from opd_ops.recipe import AdamW, Resources
from pipelines import lake
from pipelines.runs.training import train
from pipelines.store.trajectory import Trajectory

TWO = Resources(workers=2)


def rows(store, recipe):
    return lake.scan("training", store.uri).filter(recipe=recipe).sort("step").collect().to_dicts()


def weights(store, recipe, step):
    return {name: ref.read() for name, ref in Trajectory(store, recipe, 0).refs(step).items()}


def test_two(arm, grown, seeded, workers):
    store = seeded("pre", "teacher")
    import time
    t = time.time()
    end = train(store, arm("opd", resources=TWO), 0)
    print(time.time() - t, end)
    for one, other in zip(rows(grown, "mini.opd"), rows(store, "mini.opd")):
        print(one["loss"], other["loss"], one["grad_norm"], other["grad_norm"])
    a, b = weights(grown, "mini.opd", 7), weights(store, "mini.opd", 7)
    print(max(float((a[k] - b[k]).abs().max()) for k in a))
