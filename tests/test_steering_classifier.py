"""K-Steering's gradient and its two algorithms against autograd, and the classifier's training."""

from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.steering_classifier import (
    Algorithm,
    ClassifierWeights,
    Objective,
    label_logits,
    steered,
    train_classifier,
)

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
AVOID, TARGET = [0, 2], [1]


@pytest.fixture(scope="module")
def weights() -> ClassifierWeights:
    g = torch.Generator().manual_seed(0)
    shapes = ((5, 4), (5,), (5, 5), (5,), (3, 5), (3,))
    return ClassifierWeights(*(torch.randn(*shape, generator=g) for shape in shapes))


@pytest.fixture(scope="module")
def states() -> Tensor:
    return torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))


def autograd(w: ClassifierWeights, h: Tensor) -> Tensor:
    """∇L of one state, through the classifier itself."""
    with torch.enable_grad():
        leaf = h.detach().requires_grad_(True)
        g = label_logits(w, leaf)
        (gradient,) = torch.autograd.grad(g[AVOID].mean() - g[TARGET].mean(), leaf)
    return gradient


def test_the_gradient_is_each_tokens_own(weights: ClassifierWeights, states: Tensor) -> None:
    objective = Objective.of(weights, avoid=AVOID, target=TARGET)
    rows = states.flatten(0, 1)
    expected = torch.stack([autograd(weights, h) for h in rows])
    found = objective.gradient(rows)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert found.any(dim=-1).sum() > 1
    # However many tokens and rows there are: nothing is divided by them.
    torch.testing.assert_close(objective.gradient(rows[3:4]), found[3:4], **CLOSE)


def test_products_read_weights_as_they_lie(weights: ClassifierWeights) -> None:
    # A transposed view gives the same numbers and slows the rest of a decoding step (bench/README.md).
    objective = Objective.of(weights, avoid=AVOID, target=TARGET)
    assert all(tensor.is_contiguous() for tensor in objective)


def test_algorithm_1(weights: ClassifierWeights, states: Tensor) -> None:
    h = states[0, 0]
    for step in range(3):
        h = h - 0.7 * 0.9**step * autograd(weights, h)
    options: dict[str, Any] = {"alpha": 0.7, "decay": 0.9, "steps": 3}
    found = steered(Objective.of(weights, avoid=AVOID, target=TARGET), states, algorithm="descent", **options)
    torch.testing.assert_close(found[0, 0], h, **CLOSE)


def test_algorithm_2_mirrors(weights: ClassifierWeights, states: Tensor) -> None:
    found = steered(Objective.of(weights, avoid=AVOID, target=TARGET), states, algorithm="reflection")
    for h, mirrored in zip(states.flatten(0, 1), found.flatten(0, 1), strict=True):
        gradient = autograd(weights, h)
        n = gradient / gradient.norm() if gradient.any() else gradient
        torch.testing.assert_close(mirrored, h - 2 * (h @ n) * n, **CLOSE)
    torch.testing.assert_close(found.norm(dim=-1), states.norm(dim=-1), **CLOSE)


def test_only_what_is_named_counts(weights: ClassifierWeights, states: Tensor) -> None:
    only_avoid = Objective.of(weights, avoid=[0], target=[]).gradient(states[0])
    only_target = Objective.of(weights, avoid=[], target=[0]).gradient(states[0])
    torch.testing.assert_close(only_avoid, -only_target, **CLOSE)
    off = ClassifierWeights(*(torch.zeros_like(w) for w in weights))
    algorithms: tuple[Algorithm, ...] = ("descent", "reflection")
    for algorithm in algorithms:
        moved = steered(Objective.of(off, avoid=AVOID, target=TARGET), states, algorithm=algorithm)
        assert torch.equal(moved, states)


def test_training_tells_the_labels_and_several_of_one_state() -> None:
    g = torch.Generator().manual_seed(2)
    states = torch.randn(80, 6, generator=g)
    labels = torch.stack((states[:, 0] > 0, states[:, 1] > 0, states[:, 0] + states[:, 1] > 0), dim=1)
    before = torch.random.get_rng_state()
    weights = train_classifier(states, labels, width=32, epochs=60, lr=1e-2, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert ((label_logits(weights, states) > 0) == labels).float().mean() > 0.95
    again = train_classifier(states, labels, width=32, epochs=60, lr=1e-2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert not any(tensor.requires_grad for tensor in weights)
    # A step of Alg. 1 does what it is for.
    objective = Objective.of(weights, avoid=[0], target=[1])
    moved = steered(objective, states, algorithm="descent", alpha=0.3)
    change = (label_logits(weights, moved) - label_logits(weights, states)).mean(0)
    assert change[0] < 0 < change[1]


@pytest.mark.parametrize("labels", [torch.zeros(4, 2, dtype=torch.bool), torch.ones(4, 2, dtype=torch.bool)])
def test_a_label_that_tells_nothing(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="each must be held by some and not by all"):
        train_classifier(torch.randn(4, 6), labels)
