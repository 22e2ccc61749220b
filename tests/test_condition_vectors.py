"""CAST's formulas: sklearn's PCA and the code's projector as oracles, and a grid searched by brute force."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score
from torch import Tensor

from autosteer_lib.condition_vectors import (
    condition_point,
    condition_similarity,
    contrast_direction,
    is_open,
)


def states(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("centring", ["pairwise", "global"])
def test_the_direction_is_sklearns_first_component(centring: str) -> None:
    first, second = states(0, 9, 2, 6) + 0.7, states(1, 9, 2, 6)
    found = contrast_direction(first, second, centring=centring)  # type: ignore[arg-type]
    for layer in range(2):
        h = np.empty((18, 6))
        h[::2], h[1::2] = first[:, layer], second[:, layer]
        centre = np.repeat((h[::2] + h[1::2]) / 2, 2, axis=0) if centring == "pairwise" else h.mean(axis=0)
        expected = PCA(n_components=1).fit(h - centre).components_[0]
        projected = h @ expected
        if (projected[::2] < projected[1::2]).mean() > (projected[::2] > projected[1::2]).mean():
            expected = -expected
        np.testing.assert_allclose(found[layer], expected, atol=1e-5)


def test_a_layer_at_which_all_pairs_are_alike_has_no_direction() -> None:
    first, second = states(0, 4, 2, 6), states(1, 4, 2, 6)
    second[:, 0] = first[:, 0]
    direction = contrast_direction(first, second)
    assert not direction[0].any()
    assert direction[1].norm() == pytest.approx(1.0)


def test_similarity_is_the_codes() -> None:
    h, c = states(2, 5, 6), states(3, 6)
    projector = torch.outer(c, c) / torch.dot(c, c)
    for row in h:
        projected = torch.tanh(projector @ row)
        expected = torch.dot(row, projected) / (row.norm() * projected.norm())
        torch.testing.assert_close(condition_similarity(row, c), expected)
    torch.testing.assert_close(condition_similarity(h, -3 * c), condition_similarity(h, c))


def test_the_point_is_the_best_of_all_layers_sides_and_thresholds() -> None:
    positive, negative = states(4, 7, 3), states(5, 9, 3)
    positive[:, 1] -= 3.0  # told from below, at the second layer
    point = condition_point(positive, negative, layers=(0, 1, 2))
    truth = [True] * 7 + [False] * 9
    best = 0.0
    for layer in range(3):
        values = torch.cat((positive[:, layer], negative[:, layer]))
        ordered = values.sort().values
        for threshold in (ordered[1:] + ordered[:-1]) / 2:
            best = max(best, f1_score(truth, values > threshold), f1_score(truth, values < threshold))
    values = torch.cat((positive[:, point.layer], negative[:, point.layer]))
    assert point.f1 == pytest.approx(best)
    assert f1_score(truth, is_open(values, point)) == pytest.approx(best)
    assert (point.layer, point.side) == (1, "below")


def test_the_codes_grid_ends_before_six_hundredths_and_its_best_is_rounded() -> None:
    positive, negative = torch.tensor([[0.0437], [0.2]]), torch.tensor([[0.04305], [0.01]])
    point = condition_point(positive, negative, layers=(0,), grid="code")
    assert (point.layer, point.side, point.f1) == (0, "above", 1.0)
    # The first that parts them is 0.0431; rounded, it lets one in that the F1 has kept out.
    assert point.threshold == round(np.arange(0, 0.06, 1e-4)[431], 3) == 0.043
    assert is_open(negative[:, 0], point).tolist() == [True, False]
    above, below = torch.tensor([[0.0605]]), torch.tensor([[0.05995]])
    assert condition_point(above, below, layers=(0,), grid="code").f1 == pytest.approx(2 / 3)
    # Made for states of another model, it may leave no choice but all or nothing.
    assert condition_point(positive + 1, negative + 1, layers=(0,), grid="code").f1 == pytest.approx(2 / 3)
    assert condition_point(positive + 1, negative + 1, layers=(0,)).f1 == 1.0


def test_a_layer_without_a_direction_is_passed_over() -> None:
    positive, negative = states(6, 3, 2), states(7, 3, 2)
    positive[:, 0] = float("nan")
    assert condition_point(positive, negative, layers=(0, 1)).layer == 1
    with pytest.raises(ValueError, match=r"at none of the layers \[0\]"):
        condition_point(positive, negative, layers=(0,))


@pytest.mark.usefixtures("as_a_user")
def test_what_makes_no_contrast() -> None:
    with pytest.raises(ValueError, match="at least 2 pairs"):
        contrast_direction(states(0, 1, 2, 6), states(1, 1, 2, 6))
    with pytest.raises(ValueError, match="centring='none'"):
        contrast_direction(states(0, 3, 2, 6), states(1, 3, 2, 6), centring="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are 3 and 0"):
        condition_point(states(0, 3, 2), states(0, 0, 2), layers=(0,))
    with pytest.raises(ValueError, match="grid='fine'"):
        condition_point(states(0, 3, 2), states(0, 3, 2), layers=(0,), grid="fine")  # type: ignore[arg-type]
