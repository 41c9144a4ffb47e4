"""Planted weights from real Hugging Face folders into tables and back, and what rows and records say of them."""

import math

import pytest
import torch

from pipelines import lake
from pipelines.runs.external import imports
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.studies.study import TABLES
from tests.pipelines.runs.conftest import (
    CUTS,
    EMBED,
    KEY,
    NORM,
    OUT,
    RIGHT,
    SPECTRUM,
    W0,
    K,
    M,
    N,
    Q,
    U,
    V,
    model,
    objects,
    orthonormal,
    record,
    rows,
    run,
    save,
    turned,
)

ANGLES = {1: 1e-6, 2: 1e-3, 3: 1.0, 4: 30.0, 5: 45.0}  # step: degrees


def flipped(count):
    """W0 with `count` weights changed, by so much that bf16 sees it."""
    w = W0.clone()
    w.view(-1)[:count] += 1.0
    return w


def test_planted_rotations_are_recovered(tmp_path, store):
    base = save(tmp_path / "base", model())
    given = [(t, save(tmp_path / f"at {t}", model(**{Q: turned(angle)}))) for t, angle in ANGLES.items()]
    assert run(store, base, given) == []
    found = {(row["step"], row["side"]): row for row in rows(store, "rotation", Q)}
    assert len(found) == 2 * len(ANGLES)
    for step, angle in ANGLES.items():
        output, still = found[step, "output"], found[step, "input"]
        # The suite's own bound at this cut, 5e-11 degrees or better; what it reaches is 1e-13.
        assert abs(output["max_deg"] - angle) <= output["error_deg"] < 1e-9
        assert output["max_deg"] == pytest.approx(angle, rel=1e-9, abs=1e-12)
        assert output["rms_deg"] == pytest.approx(angle / math.sqrt(K), rel=1e-9, abs=1e-12)
        assert still["max_deg"] <= still["error_deg"]
        assert output["gap"] == pytest.approx(1 / (N - 1), rel=1e-12)


def test_planted_sparsity_is_exact(tmp_path, store):
    base = save(tmp_path / "base", model())
    run(store, base, [(count, save(tmp_path / f"{count}", model(**{KEY: flipped(count)}))) for count in (1, 7, 700)])
    for view in ("bf16", "master"):
        found = rows(store, "update_support", KEY, view)
        assert [(row["step"], row["numel"]) for row in found] == [(c, M * N) for c in (1, 7, 700)]
        assert [row["unchanged"] for row in found] == [(M * N - c) / (M * N) for c in (1, 7, 700)]
        assert {row["unchanged"] for row in rows(store, "update_support", Q, view)} == {1.0}


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_planted_rank_is_recovered(rank, tmp_path, store):
    update = 0.01 * orthonormal(M, rank, 5) @ orthonormal(N, rank, 6).T
    base = save(tmp_path / "base", model())
    run(store, base, [(1, save(tmp_path / "one", model(**{V: W0 + update})))])
    (row,), (norms,) = rows(store, "update_spectrum", V), rows(store, "update_norm", V)
    # W0 + update is rounded at 2^-52 of weights 100 times the update's: 1e-13 of each singular value.
    for column in (row["effective_rank"], row["effective_rank_energy"], norms["stable_rank"]):
        assert column == pytest.approx(rank, rel=1e-9)
    assert norms["frobenius"] == pytest.approx(0.01 * math.sqrt(rank), rel=1e-9)
    assert norms["spectral_norm"] == pytest.approx(0.01, rel=1e-9)


def test_planted_shift_of_the_spectrum_is_recovered(tmp_path, store):
    shift = torch.linspace(0.01, 0.02, N, dtype=torch.float64).flip(0)  # keeps the order
    base = save(tmp_path / "base", model())
    run(store, base, [(1, save(tmp_path / "one", model(**{OUT: (U * (SPECTRUM + shift)) @ RIGHT.T})))])
    (row,) = rows(store, "spectral_drift", OUT)
    nss = float(shift.norm() / SPECTRUM.norm())
    assert row["nss"] == pytest.approx(nss, rel=1e-12)
    assert row["mirsky"] == pytest.approx(nss, rel=1e-12)
    for turn in rows(store, "rotation", OUT):
        assert turn["max_deg"] <= turn["error_deg"]


def test_rows_say_whose_they_are(folders, store):
    imported = plan_import(store, folders["base"], [(2, folders["two"]), (1, folders["one"])], CUTS, "x")
    assert (imported.recipe, imported.steps, imported.fresh) == ("external.x", (1, 2), False)
    assert len(imported.work) == 6
    assert objects(store) == {}
    seen = []
    assert measure_import(imported, serial=True, progress=lambda done, of: seen.append((done, of))) == []
    costs = [task.cost for task in imported.work]
    assert seen == [(sum(costs[: i + 1]), sum(costs)) for i in range(6)]
    support = lake.scan("update_support", store.uri).collect()
    assert set(support["matrix"]) == {Q, KEY, V, OUT, EMBED, NORM}
    assert set(support["step"]) == {1, 2}
    assert support.select("study", "recipe", "seed").unique().row(0) == ("external", "external.x", 0)
    for column in ("objective", "optimizer", "learning_rate", "weight_decay", "run_steps"):
        assert support[column].null_count() == len(support)
    timing = lake.read_partition(store, "timing", recipe="external.x", seed=0)
    assert timing is not None and timing["phase"].to_list() == ["measure"]
    found = record(store)
    assert found["base"]["ref"] == f"file://{folders['base']}"
    assert [found["snapshots"][step]["ref"] for step in ("1", "2")] == [
        f"file://{folders[which]}" for which in ("one", "two")
    ]
    assert found["tables"].keys() == set(TABLES)
    made = found["tables"]["hill"]
    assert made["settings"] == CUTS.settings
    assert (made["engine"], made["roles"], made["problems"]) == (imports.VERSION, None, [])
    assert made["steps"] == {step: found["snapshots"][step]["stamp"] for step in ("1", "2")}
    assert "commit" in found["provenance"]
