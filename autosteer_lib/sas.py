"""Safety Awareness Score: how consistently a layer tells a toxic prompt from its safe twin.

    δ_i    = h_l(toxic_i) − h_l(safe_i)
    SAS(l) = mean over i < j of cos(δ_i, δ_j)
           = (‖Σ u_i‖² − N) / (N (N − 1)),       u_i = δ_i / ‖δ_i‖

The second form is exact: it needs the N unit vectors once and no N×N matrix, so the cost is
O(N·layers·dim) and the memory one block of pairs. Differences are taken in float32 (exact for
half-precision states) and summed in float64, since ‖Σ u_i‖² and N nearly cancel at a layer that
knows nothing. Swapping the two sides flips every δ and leaves the score as it is.

What a score says: 1 if all pairs differ along one direction, 0 if along unrelated ones. It does
not say that the direction means harm; a constant difference of wording scores as high.

Source: AutoSteer (arXiv 2507.13255) §3.2, eq. 7–8.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

CandidateRule = Literal["all", "multiples_of_4"]

# 4 MiB of float64 a block: it stays in the cache between its three passes (2 to 3 × faster than 32 MiB).
BLOCK_ELEMENTS = 1 << 19


def safety_awareness_score(
    toxic: Float[Tensor, "pairs layers dim"],
    safe: Float[Tensor, "pairs layers dim"],
    *,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, " layers"]:
    """Score each layer; the highest is where AutoSteer probes.

    Args:
        toxic: last-prompt-token states of the toxic prompts.
        safe: those of their twins, in the same order.
        layers: what the columns are called in an error message; their positions if left out.

    Returns:
        One float64 score a layer, in [−1/(pairs−1), 1], on the CPU.

    Raises:
        ValueError: sides of unequal shape, fewer than two pairs, a state that is not finite, or a
            pair whose two states are equal (its direction is undefined; the message names the pair
            and the layer).
    """
    return sas_by_pair_count(toxic, safe, counts=[toxic.shape[0]], layers=layers)[0]


def sas_by_pair_count(
    toxic: Float[Tensor, "pairs layers dim"],
    safe: Float[Tensor, "pairs layers dim"],
    *,
    counts: Sequence[int],
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "counts layers"]:
    """The score of the first n pairs for each n in `counts`, in one pass: how many pairs are enough?

    Args:
        toxic: last-prompt-token states of the toxic prompts.
        safe: those of their twins, in the same order.
        counts: numbers of pairs, each between 2 and all of them, in any order.
        layers: what the columns are called in an error message.

    Returns:
        One row of scores for each count, in the order of `counts`.
    """
    names = _check_sides(toxic, safe, layers)
    pairs = toxic.shape[0]
    for count in counts:
        if not 2 <= count <= pairs:
            raise ValueError(
                f"SAS over {count} pairs: a mean over pairs of pairs needs 2…{pairs} of the pairs given"
            )
    ordered = sorted(set(counts))
    total = torch.zeros(toxic.shape[1:], dtype=torch.float64)
    by_count: dict[int, Tensor] = {}
    done = 0
    for count in ordered:
        for contrast, length in _contrasts(toxic[done:count], safe[done:count], names=names, first=done):
            # Σ u_i as one product, without writing the unit vectors out.
            total += torch.einsum("pl,pld->ld", length.reciprocal(), contrast).to(total.device)
        done = count
        by_count[count] = (total.square().sum(dim=-1) - count) / (count * (count - 1))
    return torch.stack([by_count[count] for count in counts])


def contrast_cosines(
    toxic: Float[Tensor, "pairs dim"],
    safe: Float[Tensor, "pairs dim"],
    *,
    double_cosine: bool = False,
) -> Float[Tensor, "pairs pairs"]:
    """cos(δ_i, δ_j) for every two pairs at one layer: the heat-map whose upper triangle SAS averages.

    Args:
        toxic: states of a readable number of toxic prompts (the figure shows 200 at most).
        safe: those of their twins.
        double_cosine: apply the cosine once more, to the rows of the first result, as the published
            heat-map script does; that shows how alike the pairs' *profiles* are and is not what SAS
            averages. See difference 9 in `readings.DIFFERENCES`.
    """
    if toxic.ndim != 2:
        raise ValueError(
            f"a heat-map shows one layer: states must be [pairs, dim], received {list(toxic.shape)}"
        )
    names = _check_sides(toxic[:, None], safe[:, None], None)
    blocks = _contrasts(toxic[:, None], safe[:, None], names=names, first=0)
    units = torch.cat([(contrast / length.unsqueeze(-1))[:, 0] for contrast, length in blocks])
    cosines = (units @ units.T).clamp(-1.0, 1.0)
    if double_cosine:
        rows = torch.nn.functional.normalize(cosines, dim=-1)
        cosines = (rows @ rows.T).clamp(-1.0, 1.0)
    return cosines.float()


def candidate_layers(layers: int, *, rule: CandidateRule = "all") -> tuple[int, ...]:
    """The layers among which SAS chooses: inputs of block 1 … layers − 1.

    Layer 0 is left out: it is the embedding of one and the same template token in both twins, so
    every δ is zero there. The published scripts look at multiples of four only.
    """
    step = {"all": 1, "multiples_of_4": 4}.get(rule)
    if step is None:
        raise ValueError(f"candidate rule {rule!r} is unknown; use 'all' or 'multiples_of_4'")
    candidates = tuple(range(step, layers, step))
    if not candidates:
        raise ValueError(
            f"no candidate layer in a decoder of {layers} blocks under the rule {rule!r}; use 'all' or name a layer"
        )
    return candidates


def select_layer(scores: Float[Tensor, " layers"], candidates: Sequence[int]) -> int:
    """The candidate of the highest score; the shallowest of several that tie (its gate is known earliest)."""
    if len(scores) != len(candidates) or not candidates:
        raise ValueError(
            f"{len(scores)} scores for {len(candidates)} candidate layers: give one score for each, and at least one"
        )
    if bool(torch.isnan(scores).any()):
        missing = [layer for layer, score in zip(candidates, scores.tolist(), strict=True) if score != score]
        raise ValueError(f"SAS is not a number at layers {missing}; leave them out of the candidates")
    _, best = min((-score, layer) for layer, score in zip(candidates, scores.tolist(), strict=True))
    return best


def _check_sides(toxic: Tensor, safe: Tensor, layers: Sequence[int] | None) -> Sequence[int]:
    if toxic.ndim != 3 or toxic.shape != safe.shape:
        raise ValueError(
            f"toxic states {list(toxic.shape)} and safe states {list(safe.shape)} must have one shape [pairs, layers, dim], "
            "row i of each side being one pair"
        )
    if toxic.shape[0] < 2:
        raise ValueError(f"{toxic.shape[0]} pair: SAS compares pairs with one another and needs at least 2")
    names = range(toxic.shape[1]) if layers is None else layers
    if len(names) != toxic.shape[1]:
        raise ValueError(f"{len(names)} layer names for states of {toxic.shape[1]} layers")
    return names


def _contrasts(
    toxic: Tensor, safe: Tensor, *, names: Sequence[int], first: int
) -> Iterator[tuple[Float[Tensor, "rows layers dim"], Float[Tensor, "rows layers"]]]:
    """δ_i and ‖δ_i‖ of a block of pairs at a time, so that half-precision states are never copied as floats whole."""
    rows = max(1, BLOCK_ELEMENTS // max(1, toxic.shape[1] * toxic.shape[2]))
    for start in range(0, toxic.shape[0], rows):
        left, right = toxic[start : start + rows], safe[start : start + rows]
        if left.device.type == "mps":  # has no float64, in which the blocks are summed
            left, right = left.cpu(), right.cpu()
        precision = torch.float64 if left.dtype == torch.float64 else torch.float32
        contrast = (left.to(precision) - right.to(device=left.device, dtype=precision)).double()
        length = torch.linalg.vector_norm(contrast, dim=-1)
        usable = (length > 0) & length.isfinite()
        if not bool(usable.all()):
            pair, layer = (~usable).nonzero()[0].tolist()
            _explain(float(length[pair, layer]), pair=first + start + pair, layer=names[layer])
        yield contrast, length


def _explain(length: float, *, pair: int, layer: int) -> None:
    if length == 0.0:
        raise ValueError(
            f"pair {pair}: its toxic and its safe prompt have equal states at layer {layer}, so their contrast has "
            "no direction; the twins are the same prompt, "
            "or the layer is the embedding of a template token: drop the pair or the layer"
        )
    raise ValueError(
        f"pair {pair}: the contrast at layer {layer} has length {length}; states must be finite "
        "(half-precision models can overflow: compute them in bfloat16 or float32)"
    )
