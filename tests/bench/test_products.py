"""Matrix products of a call: each is found with its shapes, and nothing else is."""

from collections import Counter

import torch

from tests.bench.products import products, seconds


def test_products_are_found_forward_and_backward():
    x, w = torch.rand(5, 7), torch.rand(3, 7, requires_grad=True)

    def call():
        (x @ w.t()).tanh().sum().backward()

    found = products(call)
    shapes = Counter({(left[0], right[0]): count for (left, right), count in found.items()})
    forward, backward = ((5, 7), (7, 3)), {((3, 5), (5, 7)), ((7, 5), (5, 3))}
    assert shapes.pop(forward) == 1 and sum(shapes.values()) == 1 and shapes.keys() <= backward
    assert seconds(found) > 0


def test_layers_without_gradients_are_products_too():
    layer, x = torch.nn.Linear(4, 6), torch.rand(2, 3, 4)
    with torch.inference_mode():
        found = products(lambda: [layer(x), layer(x)])
    assert found == Counter({(((6, 4), False), ((4, 6), True)): 2})


def test_what_multiplies_no_matrices_has_none():
    found = products(lambda: torch.rand(4, 4).mul(2).cumsum(0))
    assert not found and seconds(found) == 0
