"""SafeSteer fitted on a tiny random model, and what it does computed again without a cache, pass by pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from autosteer_lib.defences import SafeSteer
from autosteer_lib.encoding import Encoded
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.models import MLLM
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Edit, Site, attach, final_norm, logits, resid_post
from tests.conftest import Sights
from tests.mars_on_tiny import ByLabel
from tests.test_battery import one_more

SETTINGS = GenerationSettings(max_new_tokens=6)
K, STEP = 3, 2


def _prompts(name: str, count: int, *, harmful: bool, seen: bool) -> tuple[Prompt, ...]:
    sights, things = Sights(), ("knife", "poison") if harmful else ("sun", "word")
    return tuple(
        Prompt(
            id=f"{name} {i}",
            text=f"{verb} {things[i % 2]} {('one', 'two', 'three', '?')[i % 4]} {name}",
            images=(sights.picture(),) if seen else (),
            harmful=harmful,
        )
        for i, verb in zip(range(count), ("make", "buy", "use", "describe") * count, strict=False)
    )


@cache
def sets() -> ProbeSets:
    return ProbeSets(
        image_attacks=_prompts("picture", 6, harmful=True, seen=True),
        text_attacks=_prompts("word", 6, harmful=True, seen=False),
        harmless=(
            *_prompts("picture", 6, harmful=False, seen=True),
            *_prompts("word", 4, harmful=False, seen=False),
        ),
    )


def fit(defence: SafeSteer, mllm: MLLM) -> SafeSteer:
    return defence.fit(mllm, sets(), settings=GenerationSettings(max_new_tokens=2), judge=ByLabel())


def half_open(defence: SafeSteer, mllm: MLLM, prompts: Sequence[Prompt]) -> SafeSteer:
    """With a threshold in the widest gap between these prompts' scores, so that some open and some do not."""
    scores = defence.score(mllm, prompts).sort().values
    gap = int(scores.diff()[1:-1].argmax()) + 1
    return defence.retuned(threshold=float(scores[gap : gap + 2].mean()))


@dataclass
class ByHand:
    """What the method says of a batch."""

    scores: Tensor
    """s₀ of each row."""
    opened: Tensor
    first: Tensor
    """Logits of the first token."""
    ranked: list[tuple[Tensor, Tensor, Tensor]]
    """(candidates, their scores, which is taken) of each re-ranked token."""
    said: Tensor
    """Tokens of the answers."""


@torch.no_grad()
def by_hand(mllm: MLLM, defence: SafeSteer, encoded: Encoded, *, tokens: int) -> ByHand:
    """The papers' equations, one candidate and one whole sequence a pass, nothing kept between passes."""
    reading, probe, alignment = defence.reading, defence.probe_, defence.alignment_
    site = final_norm() if reading.norm == "post" else resid_post(mllm.layers - 1)
    inputs = encoded.inputs
    width = inputs["input_ids"].shape[1]

    def passed(edit: Edit | None, where: Site = site) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def look(hidden: Tensor) -> Tensor | None:
            seen.append(hidden[:, -1].clone())
            return None if edit is None else edit(hidden)

        said: list[Tensor] = []
        with attach(mllm, {where: look, logits(): lambda h: said.append(h[:, -1].clone())}):
            mllm.forward(inputs)
        return seen[0], said[0]

    h, plain = passed(None)
    scores = torch.stack(
        [((row - probe.mean_) @ probe.components_.T) @ probe.weight_ + probe.bias_ for row in h]
    )
    harmful = scores.sigmoid() > defence.threshold
    opened = torch.ones_like(harmful) if reading.gate == "always" and defence.rerank else harmful
    first = plain
    if defence.align:
        assert alignment is not None
        mu = alignment.image_centroid - alignment.text_centroid
        mu = -mu if reading.direction == "towards_text" else mu
        mu = mu / mu.norm() if reading.scale == "unit" else mu
        shift = [torch.dist(row, alignment.text_centroid) * mu for row in h]

        def edit(hidden: Tensor) -> Tensor:
            moved = hidden.clone()
            for row in harmful.nonzero().flatten().tolist():
                moved[row, -1] += shift[row]
            return moved

        first = passed(edit)[1]
    ranked = []
    following = first
    for step in range(tokens):
        likeliest = following.argmax(dim=-1)
        if defence.rerank and step < defence.step:
            candidates = following.topk(defence.k).indices
            of_each = []
            before = inputs
            for k in range(defence.k):
                inputs = one_more(before, candidates[:, k : k + 1])
                of_each.append(probe.score(passed(None)[0]))
            inputs = before
            found = torch.stack(of_each, dim=1)
            choice = torch.where(opened, (defence.sign_ * found).argmax(dim=1), 0)
            ranked.append((candidates, found, choice))
            likeliest = candidates.gather(1, choice[:, None])[:, 0]
        inputs = one_more(inputs, likeliest[:, None])
        if step + 1 < tokens:
            following = passed(None)[1]
    return ByHand(
        scores=scores, opened=opened, first=first, ranked=ranked, said=inputs["input_ids"][:, width:]
    )
