"""The assets about finished runs: their partitions and parents, and what they leave in the lake."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets import transfer
from assets.partitions import by_study, run_key, transfers
from assets.resources import ClusterResource, StoreResource
from pipelines import lake
from pipelines.lake import TABLES
from pipelines.runs.verdicts import judging

ROOT = Path(__file__).resolve().parents[2]
ASSETS = (transfer.transfer, transfer.regime, transfer.predictions)


def make(asset, partition, store, instance):
    return dg.materialize(
        [asset, *(dg.AssetSpec(key) for key in asset.dependency_keys)],
        selection=[asset],
        partition_key=partition,
        instance=instance,
        resources={"store": StoreResource(), "cluster": ClusterResource(serial=True)},
        raise_on_error=False,
    )


def test_loading_them_loads_nothing_heavy():
    code = (
        "import sys; import assets.transfer; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'ray', 'transformers', 'vllm'}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "[]"


def test_they_carry_their_declared_schema_and_stand_after_what_they_read():
    for asset in ASSETS:
        name = asset.key.to_user_string()
        shown = asset.metadata_by_key[asset.key]["dagster/column_schema"].columns
        assert [(c.name, c.type) for c in shown] == [(c.name, str(c.dtype)) for c in TABLES[name].columns]
    parents = {a.key.to_user_string(): {k.to_user_string() for k in a.dependency_keys} for a in ASSETS}
    assert parents == {
        "transfer": {"trajectory"},
        "regime": set(judging.READ),
        "predictions": {"locking", "evaluation", "transfer"},
    }
    assert (transfer.transfer.partitions_def, transfer.regime.partitions_def) == (transfers, by_study)


def test_predictions_and_regimes_of_a_planted_study_are_written(plant, store, instance):
    plant(**{arm: {"seeds": (0, 1)} for arm in ("sft", "opd", "rlvr", "matched")})
    made = make(transfer.predictions, "tiny", store, instance)
    assert made.success and lake.read_partition(store, "predictions", study="tiny").height > 0
    made = make(transfer.regime, "tiny", store, instance)
    assert made.success
    # Two seeds of each reference: a run of the study has one beside its own.
    rows = lake.read_partition(store, "regime", recipe="tiny.opd", seed=0)
    assert set(rows["regime"]) == {"cannot tell"} and "besides seed 0" in rows["reason"][0]


@pytest.mark.parametrize("recipe", ["tiny.opd", "qwen3-8b.opd"])
def test_a_run_that_is_not_there_or_has_no_families_is_one_line(recipe, store, instance):
    instance.add_dynamic_partitions("transfers", [run_key(recipe, 0)])
    made = make(transfer.transfer, run_key(recipe, 0), store, instance)
    assert not made.success
    (failure,) = [e.step_failure_data for e in made.all_events if e.is_step_failure]
    words = "is not complete: train it" if recipe == "tiny.opd" else "has no other families of its task"
    assert words in failure.error_display_string
