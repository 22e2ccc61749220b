"""Refusal direction and separation score against equations 1 and 3 as printed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autosteer_lib.directions import RESOLUTION, TextCentroids, separation


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mean(rows: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@settings(max_examples=25, deadline=None)
@given(
    refusals=st.integers(1, 12), acceptances=st.integers(1, 12), dim=st.integers(1, 9), seed=st.integers(0, 999)
)  # fmt: skip
def test_direction_is_equation_1(refusals: int, acceptances: int, dim: int, seed: int) -> None:
    refused, accepted = (
        draw(refusals, 3, dim, seed=seed) + 1.0,
        draw(acceptances, 3, dim, seed=seed + 1) - 1.0,
    )
    centroids = TextCentroids.of(refused, accepted)
    for layer in range(3):
        mu_ref, mu_acc = mean(refused[:, layer].tolist()), mean(accepted[:, layer].tolist())
        d = [r - a for r, a in zip(mu_ref, mu_acc, strict=True)]
        unit = [x / math.hypot(*d) for x in d]
        assert centroids.refused[layer].tolist() == pytest.approx(mu_ref, abs=1e-6)
        assert centroids.accepted[layer].tolist() == pytest.approx(mu_acc, abs=1e-6)
        assert centroids.difference[layer].tolist() == pytest.approx(d, abs=1e-6)
        assert centroids.direction[layer].tolist() == pytest.approx(unit, abs=1e-5)
    assert (centroids.refusals, centroids.acceptances) == (refusals, acceptances)


def test_the_pooled_mean_is_over_texts_and_not_over_the_two_means() -> None:
    refused, accepted = draw(3, 2, 5, seed=0) + 4.0, draw(9, 2, 5, seed=1)
    pooled = TextCentroids.of(refused, accepted).pooled
    torch.testing.assert_close(pooled, torch.cat((refused, accepted)).mean(0))
    assert (pooled - (refused.mean(0) + accepted.mean(0)) / 2).abs().max() > 0.5


def test_the_order_of_the_texts_does_not_matter() -> None:
    refused, accepted = 100 + draw(200, 2, 16, seed=2), 100 + draw(150, 2, 16, seed=3)
    one, other = TextCentroids.of(refused, accepted), TextCentroids.of(refused.flip(0), accepted.flip(0))
    for name in ("refused", "accepted", "pooled", "direction"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_half_precision_states_give_float32_centroids() -> None:
    refused, accepted = draw(5, 2, 8, seed=4).bfloat16(), draw(5, 2, 8, seed=5).bfloat16()
    centroids = TextCentroids.of(refused, accepted)
    assert centroids.direction.dtype == centroids.pooled.dtype == torch.float32
    torch.testing.assert_close(centroids.refused, refused.float().mean(0))


def test_where_the_means_are_the_same_up_to_rounding_there_is_no_direction() -> None:
    refused, accepted = draw(6, 3, 8, seed=6), draw(6, 3, 8, seed=7)
    accepted[:, 0] = refused[:, 0]
    accepted[:, 1] = refused[:, 1] * (1 + RESOLUTION / 2)
    lengths = TextCentroids.of(refused, accepted).direction.norm(dim=-1)
    assert lengths.tolist() == pytest.approx([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="6 refused and 6 accepted texts have one and the same mean state"):
        TextCentroids.of(refused, refused.flip(0))


@pytest.mark.usefixtures("as_a_user")
def test_sides_that_do_not_fit_are_refused() -> None:
    for refused, accepted in (
        (torch.ones(0, 2, 4), torch.ones(3, 2, 4)),
        (torch.ones(3, 2, 4), torch.ones(0, 2, 4)),
        (torch.ones(3, 2, 4), torch.ones(3, 3, 4)),
        (torch.ones(3, 2, 4), torch.ones(3, 2, 5)),
    ):
        with pytest.raises(ValueError, match=r"\[prompts, layers, dim\] with at least one prompt each"):
            TextCentroids.of(refused, accepted)
    direction = torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"harmful states are \[0, 2, 4\]"):
        separation(torch.ones(0, 2, 4), torch.ones(3, 2, 4), direction)
    with pytest.raises(ValueError, match=r"harmless states are \[3, 1, 4\]; .* \[layers, dim\] = \[2, 4\]"):
        separation(torch.ones(3, 2, 4), torch.ones(3, 1, 4), direction)


@settings(max_examples=25, deadline=None)
@given(harmful=st.integers(1, 9), harmless=st.integers(1, 9), dim=st.integers(1, 9), seed=st.integers(0, 999))
def test_separation_is_equation_3(harmful: int, harmless: int, dim: int, seed: int) -> None:
    unsafe, safe, d = (
        draw(harmful, 2, dim, seed=seed),
        draw(harmless, 2, dim, seed=seed + 1),
        draw(2, dim, seed=7),
    )
    expected = [
        math.fsum(cosine(h, d[layer].tolist()) for h in unsafe[:, layer].tolist()) / harmful
        - math.fsum(cosine(h, d[layer].tolist()) for h in safe[:, layer].tolist()) / harmless
        for layer in range(2)
    ]
    assert separation(unsafe, safe, d).tolist() == pytest.approx(expected, abs=1e-5)


def test_separation_runs_from_minus_two_to_two() -> None:
    d = draw(1, 6, seed=8)
    along = d.expand(3, 1, 6)
    assert separation(along, -along, d).item() == pytest.approx(2.0)
    assert separation(-along, along, d).item() == pytest.approx(-2.0)
    assert separation(along, along, d).item() == 0.0
