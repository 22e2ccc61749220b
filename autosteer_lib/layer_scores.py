"""Where MARS steers: three scores of each layer, from texts alone, and their sum.

    consistency     S_dir    = cos(d̂, d_val)                   does a second set of texts give the same direction?
    separability    S_sep    = ½ Σ_class (share of validation texts nearer to their own centroid)
    margin          S_margin = ½ (μ_acc + μ_ref)·d̂ − mean over safe validation texts of h·d̂

Each is scaled to [0, 1] over the candidate layers; the layer of the largest sum is taken. A common centre
subtracted from states and centroids cancels in all three. States are [prompts, layers, dim].

Source: MARS (arXiv 2606.31876) §4.3, eq. 8–9. Two readings: eq. 8 with its sign factor taken at its word counts
the *errors* of the unsafe class ("as_printed"); meant is surely the balanced accuracy. And the candidates are not
stated: the plotted scores begin at layer 20, in decoders of 32, 34 and 36 blocks alike, and go to the last ("plotted").
The last block is no place to steer by this method, though: no later block reads what is added there, so it reaches the
first token's logits and nothing else. "upper" leaves it out; the paper steered none of its models there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.directions import TextCentroids

Score: TypeAlias = Literal["consistency", "separability", "margin"]
SCORES: tuple[Score, ...] = get_args(Score)
CandidateRule: TypeAlias = Literal["upper", "plotted", "all"]
Separability: TypeAlias = Literal["balanced", "as_printed"]
Scaling: TypeAlias = Literal["candidates", "all_layers", "none"]

FIRST_PLOTTED, SHALLOWEST, DEEPEST = 20, 32, 36  # MARS Fig. 5: layer 20 in every model, of 32 to 36 blocks


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerScores:
    """The three scores of every layer, unscaled."""

    consistency: Float[Tensor, " layers"]
    separability: Float[Tensor, " layers"]
    margin: Float[Tensor, " layers"]

    def scaled(self, candidates: Sequence[int], *, scaling: Scaling) -> dict[Score, Float[Tensor, " layers"]]:
        """Each score in [0, 1] over the candidates (or over all layers, or as it is)."""
        _check_choice("scaling", scaling, get_args(Scaling))
        found: dict[Score, Tensor] = {}
        for name in SCORES:
            score: Tensor = getattr(self, name)
            over = score if scaling == "all_layers" else score[list(candidates)]
            spread = over.max() - over.min()
            # A score that is the same everywhere prefers no layer.
            scaled = (score - over.min()) / spread if spread > 0 else torch.zeros_like(score)
            found[name] = score if scaling == "none" else scaled
        return found

    def select(
        self,
        candidates: Sequence[int],
        *,
        scaling: Scaling = "candidates",
        without: Sequence[Score] = (),
    ) -> int:
        """The candidate of the largest sum, the lowest of equals.

        Raises:
            ValueError: no candidates, one that does not exist, a score of another name, or none left to choose by.
        """
        layers = len(self.consistency)
        if not candidates or not all(0 <= layer < layers for layer in candidates):
            raise ValueError(f"candidate layers {list(candidates)}: give some of 0…{layers - 1}")
        used = scores_without(without)
        scaled = self.scaled(candidates, scaling=scaling)
        total = torch.stack([scaled[name] for name in used]).sum(0)
        return max(candidates, key=lambda layer: (float(total[layer]), -layer))


def scores_without(left_out: Sequence[Score]) -> tuple[Score, ...]:
    """The scores that a layer is chosen by.

    Raises:
        ValueError: a score of another name, or none left.
    """
    used = tuple(name for name in SCORES if name not in left_out)
    if isinstance(left_out, str) or not used or not set(left_out) <= set(SCORES):
        raise ValueError(
            f"without={left_out!r}: scores that can be left out are {', '.join(map(repr, SCORES))}, and at least "
            "one must remain to choose a layer by"
        )
    return used


def steering_candidates(layers: int, *, rule: CandidateRule = "upper") -> tuple[int, ...]:
    """Decoder blocks whose output may be steered.

    "plotted" is the window that the paper plots; of a decoder that is shallower or deeper than its models', the
    blocks above the same share of 20 in 36. "upper" is that window without the last block.
    """
    _check_choice("candidate rule", rule, get_args(CandidateRule))
    if rule == "all":
        return tuple(range(layers))
    plotted = SHALLOWEST <= layers <= DEEPEST
    first = FIRST_PLOTTED if plotted else -(-FIRST_PLOTTED * layers // DEEPEST)  # rounded up
    end = layers if rule == "plotted" else max(layers - 1, 1)
    return tuple(range(min(first, end - 1), end))


def layer_scores(
    centroids: TextCentroids,
    *,
    unsafe: Float[Tensor, "unsafe layers dim"],
    safe: Float[Tensor, "safe layers dim"],
    separability: Separability = "balanced",
) -> LayerScores:
    """Score every layer.

    Args:
        centroids: of the texts that the direction was found on.
        unsafe: states of other unsafe texts, for validation.
        safe: states of other safe texts.
        separability: which reading of eq. 8.

    Raises:
        ValueError: shapes that do not fit together, an empty side, or an unknown reading.
    """
    _check_choice("separability", separability, get_args(Separability))
    expected = list(centroids.refused.shape)
    for name, states in (("unsafe", unsafe), ("safe", safe)):
        if list(states.shape[1:]) != expected or not len(states):
            raise ValueError(
                f"{name} validation states are {list(states.shape)}; they must be [prompts, layers, dim] with at "
                f"least one prompt, and [layers, dim] = {expected} as of the direction"
            )
    d_val = unsafe.double().mean(0) - safe.double().mean(0)
    unsafe_right = _nearer_to_refused(unsafe, centroids).float().mean(0)
    safe_right = 1 - _nearer_to_refused(safe, centroids).float().mean(0)
    counted = unsafe_right if separability == "balanced" else 1 - unsafe_right
    boundary = ((centroids.accepted + centroids.refused) / 2 * centroids.direction).sum(-1)
    return LayerScores(
        consistency=torch.cosine_similarity(centroids.direction.double(), d_val, dim=-1).float(),
        separability=(counted + safe_right) / 2,
        margin=boundary - torch.einsum("nld,ld->nl", safe, centroids.direction).mean(0),
    )


def _nearer_to_refused(
    states: Float[Tensor, "prompts layers dim"], centroids: TextCentroids
) -> Bool[Tensor, "prompts layers"]:
    to_refused = (states - centroids.refused).norm(dim=-1)
    return to_refused < (states - centroids.accepted).norm(dim=-1)


def _check_choice(what: str, received: str, allowed: Sequence[str]) -> None:
    if received not in allowed:
        raise ValueError(f"{what} {received!r} is not known; allowed: {', '.join(map(repr, allowed))}")
