import pytest
import torch

from opd_ops.geometry.views import as_view, count_nonfinite, dtype_name, views_of_dtype


def positive_bf16() -> torch.Tensor:
    """Every positive finite bf16 number, subnormals included, ascending, as float64."""
    return torch.arange(1, 0x7F80, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).double()


def test_views_follow_the_stored_dtype():
    assert views_of_dtype(torch.bfloat16) == ("bf16",)
    for wider in (torch.float16, torch.float32, torch.float64):
        assert views_of_dtype(wider) == ("bf16", "master")
    assert [dtype_name(d) for d in (torch.bfloat16, torch.float16, torch.float32, torch.float64)] == [
        "bf16", "fp16", "fp32", "fp64",
    ]  # fmt: skip


def test_bf16_view_rounds_to_nearest_even_and_master_keeps_every_bit():
    one = 1.0 + torch.tensor([0.0, 2.0**-8, 3 * 2.0**-8, 2.0**-9])
    assert as_view(one, "bf16").tolist() == [1.0, 1.0, 1.0 + 2.0**-6, 1.0]
    assert torch.equal(as_view(one, "master"), one.double())
    assert as_view(one, "bf16").dtype == as_view(one, "master").dtype == torch.float64


def test_every_bf16_number_survives_its_view():
    numbers = positive_bf16()
    assert torch.equal(as_view(numbers.to(torch.bfloat16), "bf16"), numbers)
    assert torch.equal(as_view(numbers.float(), "bf16"), numbers)


def test_a_view_detaches_and_leaves_the_weight_alone():
    weight = torch.nn.Parameter(torch.full((2, 2), 0.1))
    assert not as_view(weight, "bf16").requires_grad
    assert torch.equal(weight.detach(), torch.full((2, 2), 0.1))


def test_relative_test_equals_equality_on_bf16():
    """The paper's eta = 1e-3 (and any eta under 2^-8) marks exactly the unequal pairs: adjacent numbers are closest."""
    numbers = positive_bf16()
    relative = (numbers[1:] - numbers[:-1]) / numbers[1:]
    assert float(relative.min()) == 2.0**-8
    generator = torch.Generator().manual_seed(0)
    a, b = (numbers[torch.randint(len(numbers), (100_000,), generator=generator)] for _ in range(2))
    b = torch.where(torch.rand(100_000, generator=generator) < 0.5, a, b)
    assert torch.equal((a - b).abs() <= 1e-3 * torch.maximum(a, b), a == b)


def test_nonfinite_counts_overflow_of_the_bf16_view():
    largest = torch.finfo(torch.float32).max
    assert count_nonfinite(torch.tensor([1.0, float("nan"), float("-inf"), largest])) == 3
    assert count_nonfinite(torch.tensor([1.0, float("nan"), float("-inf"), largest]), "master") == 2
    assert count_nonfinite(torch.zeros(3)) == 0


def test_foreign_dtypes_and_views_are_refused_by_name():
    with pytest.raises(ValueError, match="int8"):
        views_of_dtype(torch.int8)
    with pytest.raises(ValueError, match="fp8"):
        as_view(torch.zeros(1), "fp8")
