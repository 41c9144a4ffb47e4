"""Codes of tensors: every bit of the lossless one comes back, and of an update what it promises, in any part."""

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.store import codec
from pipelines.store.byteplanes import CHUNK, MAGIC, BytePlanes

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor):
    return tensor.contiguous().view(WHOLE[tensor.dtype.itemsize])


def at_hand(code, count, width):
    return BytePlanes.from_bytes(code, count, width)


def again(tensor, base=None, begin=0, end=None):
    """What comes back of the lossless code, flat."""
    code = codec.encode_delta(tensor, base)
    assert codec.encode_delta(tensor.clone(), base) == code
    end = tensor.numel() if end is None else end
    other = None if base is None else base.reshape(-1)[begin:end].clone()
    return codec.decode_delta(at_hand(code, tensor.numel(), tensor.dtype.itemsize), tensor.dtype, begin, end, other)


def noise(shape, dtype, seed):
    """Every bit pattern: NaNs, infinities, subnormals and both zeros among them."""
    whole = WHOLE[dtype.itemsize]
    info = torch.iinfo(whole)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(info.min, info.max, shape, dtype=whole, generator=generator).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 5), (1,), (), (0, 3), (3, 4, 5)])
@pytest.mark.parametrize("based", [True, False])
def test_every_bit_comes_back(dtype, shape, based):
    tensor, base = noise(shape, dtype, 1), noise(shape, dtype, 2) if based else None
    found = again(tensor, base).reshape(shape)
    assert found.dtype == dtype and torch.equal(bits(found), bits(tensor))


@settings(max_examples=60)
@given(arrays("int32", 24, elements=st.integers(-(2**31), 2**31 - 1)), arrays("int32", 24))
def test_differences_wrap_around(one, other):
    tensor, base = (torch.from_numpy(x.copy()).view(torch.float32) for x in (one, other))
    assert torch.equal(bits(again(tensor, base)), bits(tensor))


def test_every_number_of_bf16_is_kept_as_it_and_nothing_else_is():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    whole = (every << 16).view(torch.float32).reshape(256, 256)
    found = codec.as_exact_bf16(whole.T)
    assert found is not None and (found.dtype, found.shape) == (torch.bfloat16, (256, 256))
    assert torch.equal(bits(found), bits(whole.T) >> 16)
    assert torch.equal(bits(found.float()), bits(whole.T)), "NaN with all of its bits"
    for at in (0, 1, 40000, 65535):
        other = (every << 16).index_fill(0, torch.tensor([at]), 1).view(torch.float32)
        assert codec.as_exact_bf16(other) is None
    assert (
        codec.as_exact_bf16(torch.zeros(3, dtype=torch.float64))
        is codec.as_exact_bf16(torch.zeros(3).bfloat16())
        is None
    )


def test_a_view_is_coded_as_what_it_shows():
    whole = noise((6, 8), torch.float32, 3)
    for part in (whole.T, whole[::2], whole[:, 1:4]):
        assert torch.equal(bits(again(part, torch.zeros_like(part))), bits(part.reshape(-1)))


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_any_part_comes_back_by_itself(count):
    tensor, base = noise((count,), torch.bfloat16, 4), noise((count,), torch.bfloat16, 5)
    for begin, end in [
        (0, count),
        (0, 1),
        (count - 1, count),
        (CHUNK - 2, min(CHUNK + 1, count)),
        (7, 7),
        (count, count),
    ]:
        assert torch.equal(bits(again(tensor, base, begin, end)), bits(tensor[begin:end]))


def test_a_part_reads_its_chunks_alone():
    tensor, spans = noise((5 * CHUNK,), torch.float32, 6), []
    code = codec.encode_delta(tensor)
    read = lambda begin, end: (spans.append(end - begin), code[begin:end])[1]
    codec.decode_delta(BytePlanes(read, len(code), tensor.numel(), 4), torch.float32, 2 * CHUNK + 3, 3 * CHUNK)
    assert len(spans) == 2 and sum(spans) < 1.01 * len(code) / 5


def test_what_hardly_moved_is_small_and_noise_is_hardly_more_than_itself():
    generator = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(512, 512, generator=generator)).bfloat16().float()
    near = base + 1e-6 * torch.randn(512, 512, generator=generator)
    assert len(codec.encode_delta(near, base)) < 0.45 * near.nbytes
    assert len(codec.encode_delta(near.bfloat16(), base.bfloat16())) < 0.05 * 2 * near.numel()
    assert len(codec.encode_delta(base, base)) < 0.001 * base.nbytes
    wild = noise((512, 512), torch.float32, 5)
    assert len(codec.encode_delta(wild, base)) <= wild.nbytes + 64


@pytest.mark.parametrize(("other", "words"), [((3, 4), r"\(3, 4\)"), ((4, 3), "bfloat16")])
def test_a_base_of_another_kind_is_refused(other, words):
    base = torch.zeros(other, dtype=torch.float32 if other == (3, 4) else torch.bfloat16)
    for code in (codec.encode_delta, codec.encode_update):
        with pytest.raises(ValueError, match=words):
            code(torch.zeros(4, 3), base)


def restored(w, base):
    """w' of an update from its codes, which is what was said when they were made."""
    *codes, said = codec.encode_update(w, base)
    r, v = (at_hand(code, w.numel(), 2) for code in codes)
    found = codec.apply_update(r, v, 0, w.numel(), base.reshape(-1).clone())
    assert torch.equal(bits(said).reshape(-1), bits(found))
    return found


@settings(max_examples=200)
@given(arrays("int32", 16, elements=st.integers(-(2**31), 2**31 - 1)), arrays("int32", 16), st.floats(0, 1))
def test_the_view_of_an_update_is_exact_for_every_pattern(one, other, share):
    w, base = (torch.from_numpy(x.copy()).view(torch.float32) for x in (one, other))
    near = torch.where(torch.rand(16, generator=torch.Generator().manual_seed(0)) < share, base * (1 + 1e-4), w)
    found = restored(near, base)
    number = ~torch.isnan(near)
    assert torch.equal(bits(found.bfloat16())[number], bits(near.bfloat16())[number])
    assert torch.isnan(found[~number]).all()


@settings(max_examples=200)
@given(
    arrays("float32", 16, elements=st.floats(-4, 4, width=32)),
    arrays("float32", 16, elements=st.floats(-1, 1, width=32)),
    st.integers(0, 24),
)
def test_an_update_is_within_its_bound(start, direction, exponent):
    base = torch.from_numpy(start.copy())
    w = base + torch.from_numpy(direction.copy()) * 2.0**-exponent
    found = restored(w, base)
    wide, near = w.double(), found.double()
    bound = codec.BOUND * (wide - base.double()).abs() + 2.0**-24 * wide.abs() + 2.0**-133
    assert ((near - wide).abs() <= bound).all()


def test_holding_to_the_view_makes_no_error_larger():
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(4000, generator=generator)
    w = base + 0.01 * base.abs() * torch.randn(4000, generator=generator)
    found = restored(w, base)
    plain = base + (w - base).bfloat16().float()
    assert ((found.double() - w.double()).abs() <= (plain.double() - w.double()).abs()).all()
    moved = (plain.bfloat16() != w.bfloat16()).sum()
    assert moved > 0, "some would have rounded elsewhere"


def test_an_update_costs_a_third():
    generator = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(512, 512, generator=generator)).bfloat16().float()
    w = base + 1e-6 * torch.randn(512, 512, generator=generator)
    r, v, _ = codec.encode_update(w, base)
    assert len(r) < 0.36 * w.nbytes and len(v) < 0.01 * w.nbytes / 2


def test_any_part_of_an_update_comes_back_by_itself():
    generator = torch.Generator().manual_seed(2)
    base = torch.randn(CHUNK + 9, generator=generator)
    w = base + 1e-3 * torch.randn(CHUNK + 9, generator=generator)
    r, v = (at_hand(code, w.numel(), 2) for code in codec.encode_update(w, base)[:2])
    whole = codec.apply_update(r, v, 0, w.numel(), base.clone())
    part = codec.apply_update(r, v, CHUNK - 3, CHUNK + 4, base[CHUNK - 3 : CHUNK + 4].clone())
    assert torch.equal(part, whole[CHUNK - 3 : CHUNK + 4])


def damaged():
    code = codec.encode_delta(torch.arange(12.0).reshape(3, 4))
    head = len(MAGIC) + 8
    lengths = list(struct.unpack_from("<4I", code, head))
    swapped = struct.pack("<4I", lengths[0] - 1, lengths[1] + 1, *lengths[2:])
    return {
        "empty": b"",
        "foreign": b"PK" + code[2:],
        "cut": code[:-1],
        "longer": code + b"x",
        "huge": code[:head] + struct.pack("<4I", *[2**32 - 1] * 4) + code[head + 16 :],
        "another width": MAGIC + struct.pack("<Q", 2) + code[head:],
        "other lengths": code[:head] + swapped + code[head + 16 :],
    }


@pytest.mark.parametrize("name", damaged())
def test_what_is_no_code_is_refused_in_one_line(name):
    code = damaged()[name]
    with pytest.raises(ValueError, match="code") as caught:
        codec.decode_delta(at_hand(code, 12, 4), torch.float32, 0, 12)
    assert "\n" not in str(caught.value)


def test_a_plane_that_does_not_decompress_is_named():
    code = codec.encode_delta(torch.zeros(3000))
    with pytest.raises(ValueError, match="plane 3 does not decompress") as caught:
        codec.decode_delta(at_hand(code[:-8] + bytes(8), 3000, 4), torch.float32, 0, 3000)
    assert "\n" not in str(caught.value)


def test_a_claim_of_many_entries_costs_no_memory():
    with pytest.raises(ValueError, match="no code of 1152921504606846976 entries"):
        codec.decode_delta(at_hand(MAGIC + bytes(100), 2**60, 4), torch.float32, 0, 2**60)
