"""`opd transfer`: what is asked for, what is left to do, and bad names in one line."""

import pytest

from pipelines.cli import transfer
from pipelines.runs.trajectories import training
from pipelines.runs.verdicts import predicting
from pipelines.runs.verdicts import transfer as evaluating
from pipelines.studies import tiny


@pytest.fixture
def evaluated(monkeypatch):
    """Runs that are evaluated from now on; tiny.opd and tiny.sft of seeds 0 and 1 are complete."""
    done = []
    there = {(name, seed) for name in ("tiny.opd", "tiny.sft") for seed in (0, 1)}
    monkeypatch.setattr(training, "complete", lambda store, recipe, seed: (recipe.name, seed) in there)
    monkeypatch.setattr(evaluating, "is_transferred", lambda store, recipe, seed: (recipe.name, seed) in done)
    monkeypatch.setattr(evaluating, "evaluate_transfer", lambda store, recipe, seed: done.append((recipe.name, seed)))
    return done


def test_every_complete_run_is_evaluated_once(evaluated, opd):
    code, out, err = opd("transfer", "tiny", "--workers", 0)
    assert (code, err) == (0, "")
    assert sorted(evaluated) == [(name, seed) for name in ("tiny.opd", "tiny.sft") for seed in (0, 1)]
    assert "4 runs on tag-C, tag-F, operations-2, operations-4, corpus-2: 4 evaluated" in out
    assert "4 runs" in opd("transfer", "tiny", "--workers", 0)[1] and len(evaluated) == 4


def test_recipes_and_seeds_can_be_chosen(evaluated, opd):
    assert opd("transfer", "tiny", "--recipe", "tiny.opd", "--seed", 1, "--workers", 0)[0] == 0
    assert evaluated == [("tiny.opd", 1)]


def test_correlations_follow(evaluated, opd, monkeypatch):
    from tests.pipelines.regimes.prediction.test_predictions import SIBLINGS, VALUES, plant, prediction_rows

    rows = prediction_rows("tiny", plant(*[lambda a, s: VALUES[a] + 0.01 * s] * 2), SIBLINGS)
    monkeypatch.setattr(predicting, "write_predictions", lambda store, study: rows)
    out = opd("transfer", "tiny", "--workers", 0)[1]
    assert "Over 18 runs of 3 seeds" in out and out.splitlines()[-1].startswith("rows: ")


def test_siblings_start_from_the_anchors_end():
    found = predicting.siblings(tiny.study())
    assert {"opd", "rlvr", "sft-matched", "opd-pg"} <= set(found) and "sft" not in found


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("transfer", ["STUDY"]),
        ("transfer tyni", ["'tyni'", "known: tiny, smollm"]),
        ("transfer qwen3-8b", ["qwen3-8b has no other families", "with some: tiny, smollm"]),
        ("transfer tiny --recipe tiny.opq", ["'tiny.opq'", "tiny.opd"]),
        ("transfer tiny --seed 9", ["no seed 9", "0, 1, 2"]),
        ("transfer tiny --workers -1", ["--workers -1", "negative"]),
        ("transfer tiny", ["holds no complete run of these", "opd study run tiny"]),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(refused, command, words):
    err = refused(*command.split())
    for word in words:
        assert word in err


def test_finished_runs_are_those_of_the_study_in_its_order(evaluated, here):
    from pipelines.store.objects import Store, default_uri

    found = transfer.list_finished(Store(default_uri()), tiny.study(), [], [])
    assert [(recipe.name, seed) for recipe, seed in found] == [
        ("tiny.sft", 0), ("tiny.sft", 1), ("tiny.opd", 0), ("tiny.opd", 1),
    ]  # fmt: skip
