from collections import Counter

from opd_ops.roles import PROJECTIONS, role
from tests.bench.shapes import qwen3_8b, qwen_like


def test_the_ten_matrices_are_69_million_weights():
    shapes = qwen_like()
    assert len(shapes) == 10 and sum(shape.numel for shape in shapes) == 69_206_016
    assert [role(shape.name) for shape in shapes] == [
        *((0, part) for part in PROJECTIONS), (1, "q"), (1, "v"), (1, "gate"),
    ]  # fmt: skip
    assert [shape.extents for shape in shapes[:7]] == [
        (2048, 2048), (1024, 2048), (1024, 2048), (2048, 2048), (6144, 2048), (6144, 2048), (2048, 6144),
    ]  # fmt: skip


def test_qwen3_8b_has_252_projections():
    shapes = qwen3_8b()
    assert len({shape.name for shape in shapes}) == 252
    assert sum(shape.numel for shape in shapes) == 6_945_767_424
    assert Counter(shape.extents for shape in shapes) == {
        (4096, 4096): 72, (1024, 4096): 72, (12288, 4096): 72, (4096, 12288): 36,
    }  # fmt: skip
