"""Which sign of the probe's score steers towards refusals? Asked of the model, on prompts kept out of the fit.

    refused_high, refused_low    of the held-out attacks, every one re-ranked, with high or with low scores winning
    sign                         that of the larger number; 1, as eq. 6 has it, where there is no difference

The alignment vector is left out, so that the answer is about re-ranking alone.

Source: SafeSteer (arXiv 2605.11716) §3.2 and eq. 6 contradict the labels of the group's earlier code, which itself takes
both ends (safesteer_readings.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autosteer_lib.activations import collect
from autosteer_lib.decoding_probe import DecodingProbe
from autosteer_lib.defences.reranking import Reranking
from autosteer_lib.generation import GenerationSettings, respond
from autosteer_lib.judges import Judge, verdict
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Site


@dataclass(frozen=True, kw_only=True)
class HeldOutCheck:
    """What the fit saw on the prompts that it kept back."""

    attacks: int
    harmless: int
    attacks_judged_harmful: int
    """By the probe, at the threshold of the fit."""
    harmless_judged_harmful: int
    refused_plain: int
    """Of the attacks, by the model itself."""
    refused_high: int
    """When candidates with high scores win."""
    refused_low: int
    """When those with low scores win."""

    @property
    def sign(self) -> int:
        """1 or −1."""
        return 1 if self.refused_high >= self.refused_low else -1


def check_sign(
    mllm: MLLM,
    probe: DecodingProbe,
    *,
    attacks: Sequence[Prompt],
    harmless: Sequence[Prompt],
    site: Site,
    threshold: float,
    k: int,
    steps: int,
    settings: GenerationSettings,
    judge: Judge,
    progress: bool = False,
) -> HeldOutCheck:
    """Judge the held-out prompts by the probe, and answer the attacks plainly and under both signs."""
    probe = probe.to(mllm.device)

    def judged_harmful(prompts: Sequence[Prompt]) -> int:
        states = collect(mllm, prompts, sites=[site], batch_size=settings.batch_size, progress=progress)
        return int((probe.score(states[:, 0]).sigmoid() > threshold).sum())

    def refused(sign: int | None) -> int:
        def steering(_: object) -> Reranking | None:
            if sign is None:
                return None
            return Reranking(
                probe, site=site, threshold=threshold, shift=None, k=k, steps=steps, sign=sign, gated=False
            )

        answers = respond(mllm, attacks, settings=settings, steering=steering, progress=progress)
        return sum(verdict(judge, prompt, a.text).refused for prompt, a in zip(attacks, answers, strict=True))

    return HeldOutCheck(
        attacks=len(attacks),
        harmless=len(harmless),
        attacks_judged_harmful=judged_harmful(attacks),
        harmless_judged_harmful=judged_harmful(harmless),
        refused_plain=refused(None),
        refused_high=refused(1),
        refused_low=refused(-1),
    )
