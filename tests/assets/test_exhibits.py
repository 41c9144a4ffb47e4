"""One asset per table and figure of the paper, which waits for all runs and shows the picture and its numbers."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets import exhibits
from assets.partitions import drawn
from assets.resources import StoreResource
from pipelines.paper.items import ITEMS
from pipelines.paper.suites import OBJECTIVES
from pipelines.runs.geometry import measuring

ROOT = Path(__file__).resolve().parents[2]
DEFS = dg.Definitions(assets=exhibits.ASSETS, resources={"store": StoreResource()})
GRAPH = DEFS.resolve_asset_graph()
RUN_TABLES = {*measuring.TABLES, "training", "evaluation"}


@pytest.fixture
def materialise(store):
    """materialise(item): what the asset of the item reports for the tiny study, and what it warned of."""

    def run(key):
        (asset,) = [asset for asset in exhibits.ASSETS if asset.key == dg.AssetKey(key)]
        resources = {"store": StoreResource()}
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("exhibits", ["tiny"])
            result = dg.materialize([asset], partition_key="tiny", resources=resources, instance=instance)
            records = instance.all_logs(result.run_id)
        (made,) = result.asset_materializations_for_node(key)
        return made.metadata, [one.user_message for one in records if one.level == 30]

    return run


def test_there_is_an_asset_for_every_item_and_nothing_else():
    assert [asset.key.to_user_string() for asset in exhibits.ASSETS] == [item.key for item in ITEMS]
    for item in ITEMS:
        node = GRAPH.get(dg.AssetKey(item.key))
        assert node.group_name == "verdicts"
        assert item.title in node.description and item.shows in node.description
        assert node.metadata["does_not_show"] == item.not_shown


def test_an_item_waits_for_every_partition_of_the_tables_it_is_drawn_from():
    for item in ITEMS:
        node = GRAPH.get(dg.AssetKey(item.key))
        assert {key.to_user_string() for key in node.parent_keys} == set(item.needs) <= RUN_TABLES
        assert node.partitions_def == drawn
        (asset,) = [asset for asset in exhibits.ASSETS if asset.key == node.key]
        for parent in node.parent_keys:
            assert isinstance(asset.get_partition_mapping(parent), dg.AllPartitionMapping)


def test_listing_the_items_loads_nothing_that_draws():
    code = (
        "import sys; import assets.exhibits; heavy = {'torch', 'ray', 'transformers', 'altair', 'vl_convert'}; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_item_shows_its_picture_and_its_numbers(plant, materialise):
    plant()
    metadata, warned = materialise("table1")
    encoded = re.search(r"base64,([A-Za-z0-9+/=]+)", metadata["figure"].value)
    assert base64.b64decode(encoded[1]).startswith(b"\x89PNG")
    table = metadata["numbers"].value
    assert [cell.strip() for cell in table.splitlines()[0].split("|")[1:9]] == [
        "quantity", "arm", "view", "value", "low", "high", "seeds", "paper"
    ]  # fmt: skip
    assert re.search(r"\| OPD \| bf16 \| 4\.9\d* \|.*\| 3 \| 51\.6 % \|", table)  # planted: 4.9 %, three seeds
    assert metadata["left_out"].value == [] and not warned


def test_arms_that_are_missing_leave_a_sentence_and_no_failure(plant, materialise):
    plant()
    for key, suite in (("figure6", "interventions"), ("figure7", "objectives")):
        metadata, warned = materialise(key)
        assert "figure" not in metadata and metadata["numbers"].value == "nothing"
        assert all(f"--suite {suite}" in sentence for sentence in metadata["left_out"].value)
        assert warned == [f"{key}: {sentence}" for sentence in metadata["left_out"].value] != []


def test_the_arms_of_a_suite_bring_its_figure(plant, materialise):
    plant(more=OBJECTIVES.arms)
    metadata, warned = materialise("figure7")
    assert "figure" in metadata and not warned
    assert all(f"| {arm} |" in metadata["numbers"].value for arm in OBJECTIVES.arms if arm != "opd-self")


def test_a_store_without_runs_has_sentences(store, materialise):
    Path(store.path("")).mkdir(parents=True)
    metadata, _ = materialise("figure4")
    assert metadata["left_out"].value == ["No run of the suite core is measured."]
