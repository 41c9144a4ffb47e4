"""Rollouts go into Parquet and come out as they were; a part is never another part's content."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.store.objects import Store
from pipelines.store.rollouts import COLUMNS, SCHEMA, Rollouts

RUN = "runs/tiny.opd/seed-0"
TOKEN = st.integers(0, 2**31 - 1)
LOGPROB = st.floats(width=32, allow_nan=False, max_value=0)


def row(step, prompt_id=0, sample_id=0, **changes):
    found = {
        "step": step,
        "prompt_id": prompt_id,
        "sample_id": sample_id,
        "prompt": [1, 5, 6],
        "privileged": None,
        "tokens": [7, 8, 2],
        "logprob": [-0.5, -1.25, -0.0625],
        "version": step - 1,
        "truncated": False,
        "reward": 1.0,
        "answer": "78",
        "seed": 0,
        "engine": "hf",
        "engine_release": "5.19.0",
        "temperature": 1.0,
    }
    return found | changes


def rows(*steps, **changes):
    return [row(step, p, s, **changes) for step in steps for p in range(2) for s in range(2)]


@st.composite
def drawn(draw):
    """The rows of some steps, ragged in every way."""
    first = draw(st.integers(1, 10**7))
    found = []
    for step in range(first, first + draw(st.integers(1, 3))):
        for p in range(draw(st.integers(1, 3))):
            response = draw(st.lists(st.tuples(TOKEN, LOGPROB), max_size=4))
            found.append(
                row(
                    step,
                    p,
                    prompt=draw(st.lists(TOKEN, max_size=4)),
                    privileged=draw(st.none() | st.lists(TOKEN, max_size=4)),
                    tokens=[token for token, _ in response],
                    logprob=[logprob for _, logprob in response],
                    truncated=draw(st.booleans()),
                    reward=draw(st.none() | st.floats(allow_nan=False)),
                    answer=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
                    temperature=draw(st.floats(0.01, 10)),
                )
            )
    return found


@given(given_rows=drawn())
@settings(max_examples=40)
def test_what_was_appended_is_what_is_read(given_rows):
    store = Store("memory://rollouts-round-trip")
    store.remove(RUN)
    rollouts = Rollouts(store, RUN)
    rollouts.append(given_rows)
    rollouts.flush()
    steps = sorted({r["step"] for r in given_rows})
    fresh = Rollouts(store, RUN)
    assert fresh.steps() == steps
    for step in steps:
        assert fresh.read(step) == [r for r in given_rows if r["step"] == step]


def test_parts_are_named_by_their_steps_on_every_store(any_store):
    rollouts = Rollouts(any_store, RUN)
    assert (rollouts.steps(), rollouts.flush()) == ([], None)
    rollouts.append(rows(1))
    rollouts.append(rows(2, 3))
    assert rollouts.flush() == f"{RUN}/rollouts/steps-00000001-00000003.parquet"
    assert rollouts.flush() is None
    rollouts.append(rows(4))
    rollouts.flush()
    assert any_store.list(f"{RUN}/rollouts") == [
        "steps-00000001-00000003.parquet",
        "steps-00000004-00000004.parquet",
    ]
    assert rollouts.steps() == [1, 2, 3, 4]
    assert [rollouts.read(step) for step in (4, 2, 1)] == [rows(4), rows(2), rows(1)]


def test_what_waits_is_not_stored_yet(near):
    rollouts = Rollouts(near, RUN)
    rollouts.append(rows(1))
    assert rollouts.steps() == []
    with pytest.raises(ValueError, match=r"holds no rollouts of step 1$"):
        rollouts.read(1)


def test_a_missing_step_is_named(near):
    rollouts = Rollouts(near, RUN)
    rollouts.append(rows(3, 4))
    rollouts.flush()
    for missing in (2, 5):
        with pytest.raises(ValueError, match=rf"{RUN}/rollouts holds no rollouts of step {missing}$"):
            rollouts.read(missing)


def test_equal_rows_are_equal_bytes_and_may_be_written_again(near):
    key = ""
    for store in (near, Store("memory://rollouts-again")):
        for _ in range(2):
            rollouts = Rollouts(store, RUN)
            rollouts.append(rows(1, 2))
            key = rollouts.flush()
    assert near.read(key) == store.read(key)


def test_other_rows_of_the_same_steps_are_an_error_that_names_the_part(near):
    first = Rollouts(near, RUN)
    first.append(rows(1, 2))
    key = first.flush()
    stored = near.read(key)
    other = Rollouts(near, RUN)
    other.append(rows(1) + rows(2, logprob=[-0.5, -1.25, -0.125]))
    with pytest.raises(ValueError, match=rf"{key} holds other rollouts of steps 1 to 2; .* another OPD_STORE"):
        other.flush()
    assert near.read(key) == stored


def test_parts_that_overlap_must_agree_on_the_steps_they_share(near):
    first = Rollouts(near, RUN)
    first.append(rows(1, 2, 3))
    key = first.flush()
    again = Rollouts(near, RUN)
    again.append(rows(3, 4))
    again.flush()
    assert (again.steps(), again.read(3)) == ([1, 2, 3, 4], rows(3))
    other = Rollouts(near, RUN)
    other.append(rows(2, answer="79"))
    with pytest.raises(ValueError, match=rf"{key} holds other rollouts of steps 2 to 2"):
        other.flush()


def test_rows_of_another_release_of_arrow_are_compared_by_content(near):
    """The same rows, compressed otherwise."""
    rollouts = Rollouts(near, RUN)
    rollouts.append(rows(1))
    key = rollouts.flush()
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(near.read(key))), buffer, compression="none")
    near.write(key, buffer.getvalue())
    rollouts.append(rows(1))
    assert rollouts.flush() == key
    assert near.read(key) == buffer.getvalue()


def test_steps_follow_each_other(near):
    rollouts = Rollouts(near, RUN)
    rollouts.append(rows(5))
    for wrong in (4, 7):
        with pytest.raises(ValueError, match=f"step {wrong} came after those of step 5: a step was left out"):
            rollouts.append(rows(wrong))
    rollouts.append(rows(6))
    rollouts.flush()
    assert rollouts.steps() == [5, 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logprob": [-0.5]}, "step 1 prompt 0 sample 0 has 1 log-probabilities for 3 tokens"),
        ({"logprob": [-0.5, None, -1.0]}, "lacks logprob"),
        ({"tokens": None}, "lacks tokens"),
        ({"privileged": [1, None]}, "lacks privileged"),
        ({"extra": 1}, "missing or unknown columns: extra"),
        ({"prompt": [2**31]}, "do not fit their columns"),
        ({"seed": "one"}, "do not fit their columns"),
    ],
)
def test_rows_that_are_not_rollouts_are_refused(near, changes, message):
    rollouts = Rollouts(near, RUN)
    with pytest.raises(ValueError, match=message) as caught:
        rollouts.append([row(1, **changes)])
        rollouts.flush()
    assert "\n" not in str(caught.value)
    assert near.list(f"{RUN}/rollouts") == []


def test_a_missing_column_is_named(near):
    incomplete = row(1)
    del incomplete["version"]
    with pytest.raises(ValueError, match="missing or unknown columns: version"):
        Rollouts(near, RUN).append([incomplete])


def test_a_damaged_part_is_named(near):
    rollouts = Rollouts(near, RUN)
    rollouts.append(rows(1))
    key = rollouts.flush()
    data = near.read(key)
    for damaged in (data[:-20], b"", data.replace(b"5.19.0", b"5.19.1")):
        near.write(key, damaged)
        with pytest.raises(ValueError, match=f"{key} cannot be read") as caught:
            Rollouts(near, RUN).read(1)
        assert "\n" not in str(caught.value)


def test_changing_what_was_read_changes_nothing(near):
    rollouts = Rollouts(near, RUN)
    rollouts.append(rows(1))
    rollouts.flush()
    rollouts.read(1)[0]["reward"] = 5.0
    assert rollouts.read(1) == rows(1)


def test_the_file_says_what_its_columns_mean(near):
    rollouts = Rollouts(near, RUN)
    rollouts.append(rows(1))
    table = pq.read_table(io.BytesIO(near.read(rollouts.flush())))
    assert table.schema.equals(SCHEMA, check_metadata=True)
    for column in COLUMNS:
        metadata = table.schema.field(column.name).metadata
        assert metadata == {b"unit": column.unit.encode(), b"meaning": column.meaning.encode()}
        assert column.meaning and not column.meaning.endswith(".")
    assert table["logprob"].to_pylist()[0] == np.float32([-0.5, -1.25, -0.0625]).tolist()
