import hashlib
import json
import struct
import uuid

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from pipelines.store.objects import Store
from pipelines.store.tensors import Pieces, list_tensors, read, read_header, serialise, sha256

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def weights():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    found = {"b.weight": draw(5, 7), "a.weight": draw(3).double(), "c.bias": draw(2, 3, 4).bfloat16()}
    return found | {"d": draw(1).half(), "empty": draw(0, 3)}


@pytest.fixture
def memory():
    return Store(f"memory://{uuid.uuid4().hex}")


def packed(entries, data=b"", length=None):
    """A file of this header, as JSON or as bytes."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_tensors_come_back_bit_for_bit_by_name(any_store):
    any_store.write("x/w.safetensors", serialise(weights()))
    refs = list_tensors(any_store, "x/w.safetensors")
    assert refs.keys() == weights().keys()
    for name, tensor in weights().items():
        assert refs[name].shape == tuple(tensor.shape)
        assert DTYPES[refs[name].dtype] == tensor.dtype
        assert torch.equal(refs[name].read(), tensor)


def test_tensors_read_side_by_side_are_those_read_one_by_one(any_store):
    tensors = {f"{n}.weight": torch.full((3, n), float(n)) for n in range(1, 40)}
    any_store.write("x/w.safetensors", serialise(tensors))
    refs = list_tensors(any_store, "x/w.safetensors")
    found = read(refs)
    assert list(found) == list(refs)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_of_tensors_read_side_by_side_the_first_that_fails_is_named(any_store):
    tensors = {f"{n}.weight": torch.full((8,), float(n)) for n in range(10, 40)}
    whole = serialise(tensors)
    any_store.write("w", whole)
    refs = list_tensors(any_store, "w")
    any_store.write("w", whole[: refs["20.weight"].begin])  # cut short after its header was read
    with pytest.raises(ValueError, match=r"tensor 20\.weight has 0 of 32 bytes"):
        read(refs)


def test_what_was_read_may_be_written_to(memory):
    memory.write("w", serialise(weights()))
    ref = list_tensors(memory, "w")["b.weight"]
    ref.read().zero_()
    assert torch.equal(ref.read(), weights()["b.weight"])


def test_special_values_survive(memory):
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, torch.finfo(torch.float32).max])
    memory.write("w", serialise({"x": values}))
    found = list_tensors(memory, "w")["x"].read()
    assert found.view(torch.int32).tolist() == values.view(torch.int32).tolist()


def test_equal_tensors_give_equal_bytes(memory):
    one = weights()
    other = {name: one[name].clone() for name in reversed(one)}
    other["b.weight"] = one["b.weight"].T.contiguous().T  # the same values, strided
    assert serialise(one) == serialise(other)
    other["d"] = -other["d"]
    assert serialise(one) != serialise(other)


NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 3), max_size=3)


@settings(max_examples=150)
@given(st.dictionaries(NAMES, st.tuples(st.sampled_from([*DTYPES, "U8"]), SHAPES), max_size=6))
def test_pieces_are_the_file_which_is_not_made(kinds):
    whole = {"BF16": torch.int16, "F16": torch.int16, "F32": torch.int32, "F64": torch.int64, "U8": torch.int8}
    tensors = {
        name: torch.randint(-(2**7), 2**7, shape, dtype=whole[dtype]).view(DTYPES.get(dtype, torch.uint8))
        for name, (dtype, shape) in kinds.items()
    }
    file = Pieces.from_tensors(tensors)
    assert b"".join(file.buffers) == serialise(tensors) and file.size == len(serialise(tensors))
    strided = {
        name: torch.stack([x.reshape(-1), x.reshape(-1)], 1)[:, 0].reshape(x.shape) for name, x in tensors.items()
    }
    assert b"".join(Pieces.from_tensors(strided).buffers) == serialise(tensors)
    assert sha256(tensors) == file.sha256 == hashlib.sha256(serialise(tensors)).hexdigest()
    turned = {name: tensor.T.contiguous().T if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    assert sha256(turned) == sha256(tensors)


def test_a_read_touches_the_tensors_own_bytes_only(memory, monkeypatch):
    memory.write("w", serialise(weights()))
    asked = []
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key, *span: (asked.append(span), read(self, key, *span))[1])
    refs = list_tensors(memory, "w")
    end = max(end for _, end in asked)
    assert all(ref.begin >= end for ref in refs.values()), "the header is read, and no data"
    asked.clear()
    refs["b.weight"].read()
    assert asked == [(refs["b.weight"].begin, refs["b.weight"].begin + 5 * 7 * 4)]


def test_integer_tensors_and_metadata_are_passed_over(memory):
    memory.write("w", save({"w": torch.ones(2), "ids": torch.ones(2, dtype=torch.int64)}, metadata={"format": "pt"}))
    assert list(list_tensors(memory, "w")) == ["w"]
    whole = read_header(memory, "w")
    assert {name: ref.dtype for name, ref in whole.tensors.items()} == {"w": "F32", "ids": "I64"}
    assert whole.size == memory.size("w")
    assert whole.data == memory.read("w", 8, 8 + len(whole.data)) and json.loads(whole.data)["ids"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"\(0 bytes\); pickled \.bin and \.pt weights are not read, convert them first"),
        (b"1234567", r"\(7 bytes\)"),
        (b"PK\x03\x04" + bytes(100), "or is truncated: its header claims"),
        (packed({"a": entry()}, length=2**63), "its header claims 9223372036854775808 of"),
        (packed({"a": entry()}, length=10_000), "its header claims 10000 of"),
        (packed(b"{}}"), "Extra data"),
        (packed(b"not json"), "Expecting value"),
        (packed(b'{"\xff": 1}'), "can't decode byte"),
        (packed([1, 2]), "is not a safetensors file: "),
        (packed({"a": 3}), "is not a safetensors file: "),
        (packed({"a": None}), "is not a safetensors file: "),
        (packed({"a": {"dtype": "F32", "shape": [1]}}), "data_offsets"),
        (packed({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "dtype"),
        (packed({"a": entry() | {"data_offsets": [0]}}), "is not a safetensors file: "),
        (packed({"a": entry() | {"data_offsets": ["x", "y"]}}), "is not a safetensors file: "),
        (packed({"a": entry() | {"shape": "x"}}, bytes(4)), "is not a safetensors file: "),
        (packed(b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}'), r"shape \(inf,\)"),
        (packed(b"[" * 100_000), "nested too deep"),
        (packed({"a": entry(begin=8, end=4)}, bytes(8)), r"tensor a has offsets 8\.\.4 and shape \(1,\)"),
        (packed({"a": entry(begin=-4, end=0)}, bytes(8)), r"tensor a has offsets -4\.\.0"),
        (packed({"a": entry(shape=(-1, -1))}, bytes(8)), r"tensor a has offsets 0\.\.4 and shape \(-1, -1\)"),
        (packed({"a": entry(shape=(2,))}, bytes(8)), r"tensor a of shape \(2,\) and dtype F32 spans 4 bytes"),
        (packed({"a": entry(dtype="F64")}, bytes(8)), r"tensor a of shape \(1,\) and dtype F64 spans 4 bytes"),
        (packed({"a": entry(begin=4, end=8)}, bytes(7)), r"is truncated: tensor a ends at byte \d+ of \d+"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_a_one_line_error_that_names_it(data, message, memory):
    memory.write("models/x.safetensors", data)
    with pytest.raises(ValueError, match=message) as caught:
        list_tensors(memory, "models/x.safetensors")
    assert f"{memory.uri}/models/x.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_not_found(any_store):
    with pytest.raises(FileNotFoundError):
        list_tensors(any_store, "none.safetensors")


STORE = Store("memory://tensors-under-hypothesis")


@settings(max_examples=60)
@given(st.data())
def test_a_file_cut_anywhere_is_named_as_truncated(data):
    whole = serialise(weights())
    STORE.write("cut", whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(
        ValueError, match=r"memory://tensors-under-hypothesis/cut (is truncated|is not a safe)"
    ) as caught:
        list_tensors(STORE, "cut")
    assert "\n" not in str(caught.value)


@settings(max_examples=200)
@given(st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_byte_is_a_value_error_or_other_weights_never_another_failure(position, mask):
    whole = bytearray(serialise(weights()))
    whole[position % len(whole)] ^= mask
    STORE.write("flipped", bytes(whole))
    try:
        for ref in list_tensors(STORE, "flipped").values():
            ref.read()
    except ValueError as error:
        assert "\n" not in str(error)


def test_a_file_cut_after_its_header_was_read_names_file_and_tensor(any_store):
    whole = serialise(weights())
    any_store.write("w", whole)
    refs = list_tensors(any_store, "w")
    last = max(refs.values(), key=lambda ref: ref.end)
    any_store.write("w", whole[: last.end - 1])
    with pytest.raises(ValueError, match=rf"^w is truncated: tensor {last.name} has \d+ of \d+ bytes$"):
        last.read()
