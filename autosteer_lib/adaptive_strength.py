"""AdaSteer's strengths: where a prompt lies between two classes, and a clipped line from there to a strength.

    p(h)  = 100 ⟨h − μ_a, d⟩ / ⟨d, d⟩,   d = μ_b − μ_a         0 at the mean of class a, 100 at that of class b
    λ(p)  = clip(slope (p − offset), low, high)

The paper calls the second a logistic regression; its code has a literal for each of slope, offset and clips, for
three models, and no program that found them. Here the line is fitted on held-out prompts of both classes:

    σ(s (p − m))                      logistic regression, P(class b) at p
    clip(½ ± s (p − m) / 4, 0, 1)     its tangent at the midpoint, clipped: + rises towards b, − falls
    × strength                        how far at most, chosen by what the model then answers (defences/adasteer.py)

Source: AdaSteer (arXiv 2504.09466) §4; the form of p and λ as in its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from autosteer_lib.arguments import check_numbers

_FIRST = "harmful"  # class a of both readings: harmful prompts that the model answers


@dataclass(frozen=True, kw_only=True)
class ClippedLine:
    """λ(p)."""

    slope: float
    offset: float
    """Where the line crosses zero."""
    low: float
    high: float

    def __post_init__(self) -> None:
        check_numbers(slope=self.slope, offset=self.offset, low=self.low, high=self.high)
        if not self.low <= self.high:
            raise ValueError(
                f"a line clipped to [{self.low}, {self.high}] has no values; low must not exceed high"
            )

    def __call__(self, p: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The strength at each position."""
        return (self.slope * (p - self.offset)).clamp(self.low, self.high)


def position(
    states: Float[Tensor, "*rows dim"], start: Float[Tensor, " dim"], end: Float[Tensor, " dim"]
) -> Float[Tensor, "*rows"]:
    """p of each state: 0 at `start`, 100 at `end`; NaN where the two are the same."""
    direction = end - start
    return 100 * ((states - start) @ direction) / (direction @ direction)


def along(
    vector: Float[Tensor, "layers dim"], direction: Float[Tensor, "layers dim"]
) -> Float[Tensor, "layers dim"]:
    """The component of each layer's vector along its direction; 0 where there is no direction."""
    length = direction.square().sum(-1, keepdim=True)
    share = (vector * direction).sum(-1, keepdim=True) / length
    return torch.where(length > 0, share * direction, 0.0)


def separation(first: Float[Tensor, " first"], second: Float[Tensor, " second"]) -> float:
    """How far the second class lies above the first, in pooled standard deviations; −inf if it cannot be told."""
    if not (first.isfinite().all() and second.isfinite().all()):
        return float("-inf")
    spread = ((first.var(correction=0) + second.var(correction=0)) / 2).sqrt()
    gap = second.mean() - first.mean()
    # Without any spread the gap alone decides; it is the same for all layers, 100 of p.
    return float(gap / spread) if spread > 0 else float(gap) * 1e6


def fitted_line(
    first: Float[Tensor, " first"], second: Float[Tensor, " second"], *, rises: bool
) -> ClippedLine:
    """A line in [0, 1] from held-out positions of both classes; multiply it with `scaled`.

    Args:
        first: positions of class a, which should be the lower ones.
        second: of class b.
        rises: from 0 on the side of a to 1 on the side of b; False is the other way round.

    Raises:
        ValueError: a class without prompts, or held-out prompts that lie the other way round.
    """
    if not len(first) or not len(second):
        raise ValueError(
            f"a line needs held-out prompts of both classes; there are {len(first)} and {len(second)}"
        )
    p = torch.cat((first, second)).double().numpy()
    labels = np.repeat([0, 1], [len(first), len(second)])
    # In units of the distance between the classes, so that the usual penalty means the same for every model.
    regression = LogisticRegression(class_weight="balanced").fit(p[:, None] / 100, labels)
    steepness = float(regression.coef_[0, 0]) / 100
    if steepness <= 0:
        raise ValueError(
            f"on held-out prompts the classes lie the other way round (means {first.mean():.1f} and "
            f"{second.mean():.1f} of 100), so this reading does not carry over; give more texts, or another layer"
        )
    midpoint = -float(regression.intercept_[0]) / steepness
    sign = 1.0 if rises else -1.0
    return ClippedLine(slope=sign * steepness / 4, offset=midpoint - sign * 2 / steepness, low=0.0, high=1.0)


def widest_layer(
    held_out: Mapping[str, Float[Tensor, "_ layers dim"]],
    means: Mapping[str, Float[Tensor, "layers dim"]],
    *,
    second: str,
) -> int:
    """The layer at which held-out "harmful" prompts and those of the second class lie farthest apart; of equals the lowest.

    Raises:
        ValueError: at none of them does the second class lie on its own side.
    """
    depth = len(means[_FIRST])
    scores = [separation(*_positions(layer, held_out, means, second=second)) for layer in range(depth)]
    if max(scores) <= 0:
        raise ValueError(
            f"at no layer do held-out prompts of {second!r} lie on their own side of those of {_FIRST!r}; give more "
            "texts, or texts that are more like each other"
        )
    return scores.index(max(scores))


def line_at(
    layer: int,
    held_out: Mapping[str, Float[Tensor, "_ layers dim"]],
    means: Mapping[str, Float[Tensor, "layers dim"]],
    *,
    second: str,
    rises: bool,
) -> ClippedLine:
    """`fitted_line` from "harmful" to the second class, by their held-out states at a layer."""
    return fitted_line(*_positions(layer, held_out, means, second=second), rises=rises)


def _positions(
    layer: int, held_out: Mapping[str, Tensor], means: Mapping[str, Tensor], *, second: str
) -> tuple[Tensor, Tensor]:
    start, end = means[_FIRST][layer], means[second][layer]
    return position(held_out[_FIRST][:, layer], start, end), position(held_out[second][:, layer], start, end)


def scaled(line: ClippedLine, strength: float) -> ClippedLine:
    """The line times a strength of 0 or more."""
    return ClippedLine(
        slope=line.slope * strength, offset=line.offset, low=line.low * strength, high=line.high * strength
    )
