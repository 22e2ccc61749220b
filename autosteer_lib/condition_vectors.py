"""CAST's parts: a direction from contrasts by PCA, how much a prompt has of it, and from where on that counts.

    c       first principal component of contrast pairs, of length 1
    sim(h)  = cos(h, tanh(ĉ ĉᵀ h))
    open    sim > t, or sim < t: layer, t and side of the highest F1, over a grid

centring    "pairwise": each pair's own mean is taken from both, so what a pair shares is gone (the code's default, but
            for some weeks of 2025, and by its README the nearer one to the paper); "global": the mean of all (what it
            did in those weeks). A PCA of the differences, centred once more as the code's third way does it, loses the
            mean difference, which is what is looked for; it is left out.
grid        "data": midpoints between neighbouring similarities, so the best F1 there is; "code": 0 … 0.0599 by 1e-4,
            and the best of them rounded to three decimals. That is the tutorial's grid, for states of its own model.

The sign of c cancels in sim; in a vector that is added it does not, and is set so that most pairs' first sides
lie higher.

Source: CAST (arXiv 2409.05907) §3 and IBM/activation-steering, where states are read after a block and met again
before it; here they are the same ones.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Centring: TypeAlias = Literal["pairwise", "global"]
Grid: TypeAlias = Literal["data", "code"]
Side: TypeAlias = Literal["above", "below"]

STEP, STEPS, DECIMALS = 1e-4, 600, 3  # np.arange(0, 0.06, 0.0001), and what is left of the best of them


class ConditionPoint(NamedTuple):
    """When a row is steered."""

    layer: int
    threshold: float
    side: Side
    f1: float
    """On the prompts that chose it."""


def contrast_direction(
    positive: Float[Tensor, "pairs layers dim"],
    negative: Float[Tensor, "pairs layers dim"],
    *,
    centring: Centring = "pairwise",
) -> Float[Tensor, "layers dim"]:
    """The first principal component of the pairs at each layer, of length 1, towards the positive side.

    0 at a layer where the two sides of all pairs are the same.

    Raises:
        ValueError: sides of other shape, fewer than two pairs, or an unknown centring.
    """
    if centring not in ("pairwise", "global"):
        raise ValueError(f"centring={centring!r} is not known; allowed: 'pairwise', 'global'")
    if positive.shape != negative.shape or len(positive) < 2:
        raise ValueError(
            f"positive states {list(positive.shape)} and negative states {list(negative.shape)} must be [pairs, layers, "
            "dim] alike, with at least 2 pairs"
        )
    first, second = positive.double().transpose(0, 1), negative.double().transpose(0, 1)
    both = torch.cat((first, second), dim=1)
    # ± half a difference has mean 0 already; of the two, one is enough.
    rows = (first - second) / 2 if centring == "pairwise" else both - both.mean(dim=1, keepdim=True)
    component = torch.linalg.svd(rows, full_matrices=False).Vh[:, 0]
    higher = ((first - second) @ component.unsqueeze(-1)).squeeze(-1).sign().sum(dim=1)
    component = torch.where(higher.unsqueeze(-1) < 0, -component, component)
    alike = (first == second).flatten(1).all(dim=1)
    return torch.where(alike.unsqueeze(-1), 0.0, component).float()


def condition_similarity(
    states: Float[Tensor, "*rows dim"], direction: Float[Tensor, " dim"]
) -> Float[Tensor, "*rows"]:
    """sim of each state, in float32."""
    states = states.float()
    unit = direction / direction.norm()
    projected = torch.tanh((states @ unit).unsqueeze(-1) * unit)
    return torch.cosine_similarity(states, projected, dim=-1)


def is_open(similarity: Float[Tensor, " rows"], point: ConditionPoint) -> Tensor:
    """Whether each row is steered."""
    return similarity > point.threshold if point.side == "above" else similarity < point.threshold


def condition_point(
    positive: Float[Tensor, "positive layers"],
    negative: Float[Tensor, "negative layers"],
    *,
    layers: tuple[int, ...],
    grid: Grid = "data",
) -> ConditionPoint:
    """The layer, threshold and side that tell positive from negative prompts best, by F1; the first of equals.

    Args:
        positive: similarities of prompts that are to be steered, at every layer; NaN where there is no direction.
        negative: of prompts that are not.
        layers: candidates.
        grid: which thresholds are tried.

    Raises:
        ValueError: an empty side, an unknown grid, or no layer at which the prompts differ.
    """
    if grid not in ("data", "code"):
        raise ValueError(f"grid={grid!r} is not known; allowed: 'data', 'code'")
    if not len(positive) or not len(negative):
        raise ValueError(
            f"a threshold needs prompts of both kinds; there are {len(positive)} and {len(negative)}"
        )
    best: ConditionPoint | None = None
    for layer in layers:
        yes, no = positive[:, layer].double(), negative[:, layer].double()
        thresholds = _thresholds(torch.cat((yes, no)), grid)
        for sign in (1, -1):
            if not len(thresholds):
                continue
            hits = (sign * (yes - thresholds[:, None]) > 0).sum(dim=1)
            false = (sign * (no - thresholds[:, None]) > 0).sum(dim=1)
            f1 = 2 * hits / (hits + false + len(yes))
            place = int(f1.argmax())
            if best is None or float(f1[place]) > best.f1:
                at: Side = "above" if sign > 0 else "below"
                best = ConditionPoint(layer, float(thresholds[place]), at, float(f1[place]))
    if best is not None and grid == "code":
        best = best._replace(threshold=round(best.threshold, DECIMALS))  # after the F1, as there
    if best is None:
        raise ValueError(
            f"at none of the layers {list(layers)} do the prompts differ in their similarity to the condition, so no "
            "threshold parts them; choose other layers, or texts that differ"
        )
    return best


def _thresholds(values: Float[Tensor, " prompts"], grid: Grid) -> Float[Tensor, " thresholds"]:
    if not values.isfinite().all():
        return values[:0]
    if grid == "code":
        return torch.arange(STEPS, dtype=torch.float64) * STEP
    ordered = values.unique()
    return (ordered[1:] + ordered[:-1]) / 2
