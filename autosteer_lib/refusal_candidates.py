"""Refusal direction of Arditi et al.: candidates, how refusal is scored, and which candidate is kept.

    r[i, l]  = mean over harmful of x_i^(l) − mean over harmless of x_i^(l)     x^(l): input of block l,
                                                                              i: tokens after the instruction
    score    = log P(R) − log(1 − P(R))         P(R): the next token is one that the model's refusals begin with
    bypass   = mean score of harmful prompts with r ablated            low is good; the least is taken, among those with
    induced  = mean score of harmless prompts with r added             ≥ 0
    kl       = mean KL(plain ‖ ablated) on harmless prompts             ≤ 0.1
    l < 0.8 L

    ablation  x ← x − r̂ r̂ᵀ x        addition  x ← x + r

The refusal's first tokens are written by hand for each family in the official code; here they are found in what
the model itself answers.

Source: Arditi et al. 2024 (arXiv 2406.11717) §2.3, §3, app. B–C; thresholds and rules of the official code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from autosteer_lib.directions import RESOLUTION

SCORE_FLOOR, KL_FLOOR = 1e-8, 1e-6  # added to probabilities before their logarithm, as in the official code


class CandidateScores(NamedTuple):
    """What each candidate does on validation prompts; NaN where there is no direction."""

    bypass: Float[Tensor, "positions layers"]
    induced: Float[Tensor, "positions layers"]
    kl: Float[Tensor, "positions layers"]


class Candidate(NamedTuple):
    """One of the candidates."""

    position: int
    """Counted from the end of the prompt: −1 is its last token."""
    layer: int


def refusal_tokens(
    refused: Sequence[int], accepted: Sequence[int], *, coverage: float = 0.9, most: int = 5
) -> tuple[int, ...]:
    """First tokens that tell a refusal: the most frequent ones, until they begin this share of the refusals.

    Args:
        refused: the first token of each refusal.
        accepted: the first token of each answer that is none. A token that begins as many of these (in share)
            tells nothing and is left out.
        coverage: share of refusals that is enough.
        most: no more tokens than these; a refusal that begins in many ways is better told by the most common.

    Raises:
        ValueError: no refusals, or no token that is more frequent in them.
    """
    if not refused:
        raise ValueError(
            "the model refused nothing, so the first tokens of its refusals are unknown; give harmful "
            "prompts that it refuses, or a judge that knows its refusals"
        )
    in_refusals, in_others = Counter(refused), Counter(accepted)
    chosen: list[int] = []
    covered = 0
    # By frequency, then by id, so that equals come in one order.
    for token, count in sorted(in_refusals.items(), key=lambda item: (-item[1], item[0])):
        if count / len(refused) <= in_others[token] / max(len(accepted), 1):
            continue
        chosen.append(token)
        covered += count
        if covered >= coverage * len(refused) or len(chosen) == most:
            break
    if not chosen:
        raise ValueError(
            f"none of the {len(in_refusals)} first tokens of {len(refused)} refusals is more frequent there than in "
            f"{len(accepted)} other answers, so the next token does not tell a refusal; give prompts that the model "
            "answers in other ways, or another judge"
        )
    return tuple(chosen)


def refusal_score(logits: Float[Tensor, "rows vocabulary"], tokens: Sequence[int]) -> Float[Tensor, " rows"]:
    """Log odds that the next token begins a refusal."""
    refusing = logits.double().softmax(dim=-1)[:, list(tokens)].sum(dim=-1)
    return torch.log(refusing + SCORE_FLOOR) - torch.log(1 - refusing + SCORE_FLOOR)


def next_token_kl(
    plain: Float[Tensor, "rows vocabulary"], changed: Float[Tensor, "rows vocabulary"]
) -> Float[Tensor, " rows"]:
    """KL(plain ‖ changed) of the next token's distribution."""
    p, q = plain.double().softmax(dim=-1), changed.double().softmax(dim=-1)
    return (p * (torch.log(p + KL_FLOOR) - torch.log(q + KL_FLOOR))).sum(dim=-1)


def candidate_directions(
    harmful: Float[Tensor, "harmful layers positions dim"],
    harmless: Float[Tensor, "harmless layers positions dim"],
) -> Float[Tensor, "positions layers dim"]:
    """r of every position and layer; exactly 0 where both means are the same up to rounding.

    At the input of the first block a template's token is one and the same in every prompt.
    """
    means = [side.double().mean(0).transpose(0, 1) for side in (harmful, harmless)]
    difference = means[0] - means[1]
    there = difference.norm(dim=-1, keepdim=True) > RESOLUTION * means[1].norm(dim=-1, keepdim=True)
    return torch.where(there, difference, 0.0).float()


def ablated(
    hidden: Float[Tensor, "batch tokens dim"], unit: Float[Tensor, " dim"]
) -> Float[Tensor, "batch tokens dim"]:
    """x − r̂ r̂ᵀ x, computed in float32."""
    states = hidden.float()
    return (states - (states @ unit).unsqueeze(-1) * unit).to(hidden.dtype)


def candidate_layers(layers: int, *, share: float) -> tuple[int, ...]:
    """Layers below this share of the depth: a direction from the last ones is near the unembedding."""
    return tuple(range(int(layers * share)))


def select(
    scores: CandidateScores,
    *,
    layers: Sequence[int],
    least_induced: float | None,
    most_kl: float | None,
) -> Candidate:
    """The candidate of the lowest bypass score among those that pass.

    Raises:
        ValueError: none passes; the message says how many fail which test.
    """
    positions, depth = scores.bypass.shape
    failed: Counter[str] = Counter()
    passed: list[tuple[float, Candidate]] = []
    for index in range(positions):
        for layer in range(depth):
            bypass, induced, kl = (float(score[index, layer]) for score in scores)
            if layer not in layers:
                failed["layer too deep"] += 1
            elif any(math.isnan(value) for value in (bypass, induced, kl)):
                failed["no direction there"] += 1
            elif most_kl is not None and kl > most_kl:
                failed[f"kl above {most_kl}"] += 1
            elif least_induced is not None and induced < least_induced:
                failed[f"induced below {least_induced}"] += 1
            else:
                passed.append((bypass, Candidate(index - positions, layer)))
    if not passed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in failed.items())
        raise ValueError(
            f"none of {positions * depth} candidate directions passes ({reasons}); give more texts, or loosen "
            "most_kl or least_induced (None drops the test)"
        )
    return min(passed)[1]
