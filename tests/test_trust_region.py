"""MARS' step: equations 5 to 7 as printed, and what they come to."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autosteer_lib.trust_region import EPSILON, Step, trust_region_step

seeds = st.integers(0, 9999)
scales = st.sampled_from([1e-3, 1.0, 50.0])


def draw(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(dim: int, *, seed: int) -> Tensor:
    direction = draw(dim, seed=seed)
    return direction / direction.norm()


def as_printed(h_c: Tensor, d: Tensor, mu_ref: Tensor, mu_acc: Tensor) -> list[float]:
    """Eq. 5–7 for one state, in plain numbers."""
    h, unit_d, ref, acc = (tensor.tolist() for tensor in (h_c, d, mu_ref, mu_acc))
    projection = sum(x * y for x, y in zip(h, unit_d, strict=True))
    s = [max(0.0, projection) * y for y in unit_d]
    r = min(math.dist(h, acc), math.dist(h, ref))
    alpha = r / (math.hypot(*s) + EPSILON)
    return [alpha * x for x in s]


@settings(max_examples=40, deadline=None)
@given(seed=seeds, scale=scales, dim=st.integers(1, 40), batch=st.integers(1, 4), tokens=st.integers(1, 5))
def test_equals_the_printed_equations(seed: int, scale: float, dim: int, batch: int, tokens: int) -> None:
    h, d = draw(batch, tokens, dim, seed=seed, scale=scale), unit(dim, seed=seed + 1)
    refused, accepted = (draw(dim, seed=seed + i, scale=scale) for i in (2, 3))
    step = trust_region_step(h, direction=d, refused=refused, accepted=accepted)
    for row in range(batch):
        for token in range(tokens):
            expected = as_printed(h[row, token], d, refused, accepted)
            torch.testing.assert_close(
                step.vector[row, token], torch.tensor(expected), rtol=1e-4, atol=1e-3 * scale
            )


@settings(max_examples=60, deadline=None)
@given(seed=seeds, scale=scales, dim=st.integers(2, 40))
def test_a_positive_projection_steps_by_r_along_d_and_any_other_not_at_all(
    seed: int, scale: float, dim: int
) -> None:
    h, d = draw(6, 1, dim, seed=seed, scale=scale), unit(dim, seed=seed + 1)
    refused, accepted = (draw(dim, seed=seed + i, scale=scale) for i in (2, 3))
    step = trust_region_step(h, direction=d, refused=refused, accepted=accepted)
    radius = torch.minimum((h - refused).norm(dim=-1), (h - accepted).norm(dim=-1))
    p = (h * d).sum(-1)
    torch.testing.assert_close(step.projection, p, rtol=1e-5, atol=1e-5 * scale)
    opened, shut = step.projection > 0, step.projection <= 0
    assert torch.equal(step.moves, opened)
    assert torch.equal(step.vector[shut], torch.zeros_like(step.vector[shut]))
    # ε takes p/(p + ε) of the step's length, and nothing of its direction.
    length = (radius * step.projection / (step.projection + EPSILON))[opened]
    torch.testing.assert_close(step.vector[opened], length[:, None] * d, rtol=1e-4, atol=1e-6 * scale)


def one(h: Tensor, *, rectified: bool = True, shift: float = 0.0) -> Step:
    """A state in three dimensions, d̂ along the first; centroids at ±1 there, moved by `shift`."""
    axis = torch.tensor([1.0, 0.0, 0.0])
    return trust_region_step(
        h[None, None], direction=axis, refused=(1 + shift) * axis, accepted=(-1 + shift) * axis, rectified=rectified
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "length"),
    [
        ((3.0, 0.0, 0.0), 2.0),  # beyond the refused centroid: away from it by as much again
        ((0.5, 0.0, 0.0), 0.5),  # short of it: onto it
        ((0.25, 0.0, 4.0), math.hypot(0.75, 4.0)),  # what lies across d̂ counts towards the distance
        ((1.0, 0.0, 0.0), 0.0),  # on it: stays
        ((0.0, 2.0, 0.0), 0.0),  # neither: stays
        ((-0.5, 0.0, 0.0), 0.0),  # among the accepted: stays
    ],
)
def test_examples_that_can_be_drawn(state: tuple[float, ...], length: float) -> None:
    vector = one(torch.tensor(state)).vector[0, 0]
    torch.testing.assert_close(vector, torch.tensor([length, 0.0, 0.0]), rtol=1e-5, atol=0)


def test_the_nearer_centroid_counts_whichever_it_is() -> None:
    state = torch.tensor([0.5, 0.0, 0.0])
    assert one(state, shift=0.9).vector[0, 0, 0].item() == pytest.approx(0.6, rel=1e-5)  # accepted, at −0.1
    assert one(state, shift=-0.9).vector[0, 0, 0].item() == pytest.approx(0.4, rel=1e-5)  # refused, at 0.1


def test_without_the_relu_a_negative_projection_steps_backwards() -> None:
    state = torch.tensor([-0.25, 1.0, 0.0])
    back, forth = (one(sign * state, rectified=False) for sign in (1, -1))
    torch.testing.assert_close(back.vector, -forth.vector)
    assert back.vector[0, 0, 0].item() == pytest.approx(-math.hypot(0.75, 1.0), rel=1e-5)
    assert back.moves.item()
    assert not one(state).moves.item()
    across = one(torch.tensor([0.0, 1.0, 0.0]), rectified=False)
    assert not across.moves.item()
    assert torch.equal(across.vector, torch.zeros(1, 1, 3))


def test_far_below_epsilon_the_gate_is_soft() -> None:
    step = one(torch.tensor([EPSILON, 0.0, 0.0]))
    assert step.vector[0, 0, 0].item() == pytest.approx(0.5, rel=1e-3)


def test_centroids_may_differ_from_row_to_row() -> None:
    h, d = draw(4, 3, 8, seed=1), unit(8, seed=2)
    refused, accepted = draw(4, 8, seed=3), draw(4, 8, seed=4)
    together = trust_region_step(h, direction=d, refused=refused, accepted=accepted)
    for row in range(4):
        alone = trust_region_step(h[row : row + 1], direction=d, refused=refused[row], accepted=accepted[row])
        for mine, of_batch in zip(alone, together, strict=True):
            torch.testing.assert_close(mine[0], of_batch[row])


def test_a_common_centre_is_taken_from_states_and_centroids_alike() -> None:
    """The radius does not see it, so only the gate depends on it."""
    h, d, centre = draw(5, 1, 8, seed=5), unit(8, seed=6), draw(8, seed=7)
    refused, accepted = draw(8, seed=8), draw(8, seed=9)
    step = trust_region_step(h - centre, direction=d, refused=refused - centre, accepted=accepted - centre)
    radius = torch.minimum((h - refused).norm(dim=-1), (h - accepted).norm(dim=-1))
    assert 0 < int(step.moves.sum()) < 5
    torch.testing.assert_close(step.vector.norm(dim=-1), radius * step.moves, rtol=1e-4, atol=1e-5)


def test_nothing_is_recorded_for_gradients_and_nothing_widens() -> None:
    step = one(torch.tensor([0.5, 0.0, 0.0]))
    assert (step.vector.dtype, step.projection.dtype, step.moves.dtype) == (
        torch.float32,
        torch.float32,
        torch.bool,
    )
    assert not step.vector.requires_grad
