"""MARS' step: how far a state is pushed along the refusal direction, and whether at all.

    p = ⟨h_c, d̂⟩                     h_c = h − μ, the re-centred state
    s = ReLU(p) d̂                    zero where the projection is not positive: such inputs stay as they are
    r = min(‖h_c − μ_acc‖, ‖h_c − μ_ref‖)
    step = r / (‖s‖ + ε) · s

The length of s cancels: up to ε the step is r d̂ where p > 0, and nothing elsewhere. So the projection is a
gate, and the distance to the nearest centroid of the texts is the strength.

Source: MARS (arXiv 2606.31876) §4.1 eq. 5, §4.2 eq. 6–7.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-6  # "tiny" in the paper, without a value; far below any ‖s‖ that matters


class Step(NamedTuple):
    """One step a state."""

    vector: Float[Tensor, "batch tokens dim"]
    """What is added to the state."""
    projection: Float[Tensor, "batch tokens"]
    """p."""
    moves: Bool[Tensor, "batch tokens"]
    """Whether the state is pushed at all: p > 0, or without the ReLU p ≠ 0."""


def trust_region_step(
    centred: Float[Tensor, "batch tokens dim"],
    *,
    direction: Float[Tensor, " dim"],
    refused: Float[Tensor, "*batch dim"],
    accepted: Float[Tensor, "*batch dim"],
    rectified: bool = True,
) -> Step:
    """MARS' step for each re-centred state.

    Args:
        centred: h_c.
        direction: d̂, of length 1.
        refused: μ_ref, centred too (on what: `MarsReading.text_centre`); one for all rows, or one a row.
        accepted: μ_acc, likewise.
        rectified: False leaves the ReLU out (the ablation): a negative projection then steps backwards.
    """
    projection = centred @ direction
    kept = projection.relu() if rectified else projection
    s = kept.unsqueeze(-1) * direction
    centroids = (_per_row(accepted), _per_row(refused))
    radius = torch.minimum(*((centred - centroid).norm(dim=-1) for centroid in centroids))
    vector = (radius / (s.norm(dim=-1) + EPSILON)).unsqueeze(-1) * s
    return Step(vector, projection, kept != 0)


def _per_row(centroid: Tensor) -> Tensor:
    """[dim] and [batch, dim] → what broadcasts with [batch, tokens, dim]."""
    return centroid.unsqueeze(-2)
