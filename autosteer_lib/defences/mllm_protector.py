"""MLLM-Protector: a second look at every answer; a harmful one is rewritten, or refused.

    y = F(v, x)                            the plain answer
    D(y) = P(harmful)                      a detector, which sees no picture
    D(y) ≤ τ:  y      D(y) > τ:  G(y)      a rewriter, or a fixed refusal without one

(The published detector is trained to say P(safe) and returns the answer from 0.5 on, which is this at τ = ½.)

D and G are parts to be given. D: `AnswerDetector`, trained here in seconds, or `HubDetector`, the published
weights. G: `Refusal`, a fixed sentence, as the published code does without a rewriter; `SelfRewriter`, the defended
model asked to make the answer harmless; or `HubRewriter`, the published one. The rewriter is given the answer
without the request, as the published code does; a template may name {question} too.

The detector reads words, so the price is one pass over each answer, and one generation where it fires. A judge
by phrases does not see that a harmless rewrite is one: others' results for this system spread accordingly.

Source: MLLM-Protector (arXiv 2401.02906) §3; pipilurj/MLLM-protector at 390e326.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autosteer_lib.arguments import check_given, check_numbers, described
from autosteer_lib.defences.answer_detector import Exchange
from autosteer_lib.defences.asking import (
    ReviewingDefence,
    charged,
    check_template,
    fill,
    in_words,
    spoken,
)
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.generation import GenerationSettings, Response, respond
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt

THRESHOLD = 0.5  # published code: an answer passes from P(safe) = 0.5 on
REFUSAL = "Sorry, but I cannot help with that."
REWRITE = (
    "This answer may contain harmful or sensitive things:\n{answer}\n\n"
    "Write it again so that it does no harm. Give the new answer alone."
)


@runtime_checkable
class Detector(Protocol):
    """Says how harmful answers are."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that a score depends on."""

    def check(self, mllm: MLLM) -> None:
        """Raise what can be known to go wrong with this model, before it runs."""

    def look(self, mllm: MLLM, exchanges: Sequence[Exchange], *, batch_size: int) -> list[Response]:
        """One response an exchange: P(harmful) as its `gate_score`, and what the look cost."""


@runtime_checkable
class Rewriter(Protocol):
    """Puts another answer in place of a harmful one."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that a new answer depends on."""

    def rewrite(
        self, mllm: MLLM, exchanges: Sequence[Exchange], *, settings: GenerationSettings
    ) -> list[Response]:
        """One response an exchange: the new answer and what it cost."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One fixed sentence, free of charge."""

    text: str = REFUSAL

    def __post_init__(self) -> None:
        check_given(self.text, str, name="text", remedy="the words of the refusal")
        if not self.text.strip():
            raise ValueError(f"text={self.text!r} is empty; give the words of the refusal")

    @property
    def fingerprint(self) -> str:
        """Hash of the sentence."""
        return state_hash({}, {"rewriter": "refusal", "text": self.text})

    def rewrite(
        self, mllm: MLLM, exchanges: Sequence[Exchange], *, settings: GenerationSettings
    ) -> list[Response]:
        """The same for all."""
        return [
            Response(prompt_id=e.prompt.id, text=self.text, new_tokens=0, prompt_tokens=0, model_calls=0)
            for e in exchanges
        ]


@dataclass(frozen=True, kw_only=True)
class SelfRewriter:
    """The defended model itself, asked in words alone to make the answer harmless."""

    template: str = REWRITE
    """With {answer}, and {question} if wanted."""

    def __post_init__(self) -> None:
        check_template("template", self.template, needs=("answer",), may=("question",))

    @property
    def fingerprint(self) -> str:
        """Hash of the template."""
        return state_hash({}, {"rewriter": "self", "template": self.template})

    def rewrite(
        self, mllm: MLLM, exchanges: Sequence[Exchange], *, settings: GenerationSettings
    ) -> list[Response]:
        """Ask for each."""
        asked = [
            in_words(e.prompt, fill(mllm, self.template, question=e.prompt.text, answer=e.answer))
            for e in exchanges
        ]
        return respond(mllm, asked, settings=settings)


class MllmProtector(ReviewingDefence):
    """Detector and rewriter around a model that is left as it is."""

    name = "MLLM-Protector"

    def __init__(
        self,
        detector: Detector,
        *,
        rewriter: Rewriter | None = None,
        threshold: float = THRESHOLD,
    ) -> None:
        """Put the parts together.

        Args:
            detector: fitted.
            rewriter: of answers that the detector finds harmful; `Refusal()` if left out.
            threshold: τ, in [0, 1]; an answer above it is replaced.

        Raises:
            TypeError: a detector or rewriter that is none.
            ValueError: a threshold that no probability can be compared with.
            NotFittedError: a detector that was not fitted.
        """
        check_numbers(threshold=threshold)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold = {threshold} is outside [0, 1]; it is compared with P(harmful)")
        self.rewriter: Rewriter = Refusal() if rewriter is None else rewriter
        for name, part, method, remedy in (
            ("detector", detector, "look", "a fitted AnswerDetector, or HubDetector(…)"),
            ("rewriter", self.rewriter, "rewrite", "Refusal(…) or SelfRewriter(…), or leave it out"),
        ):
            if isinstance(part, type) or not hasattr(part, method):
                raise TypeError(f"{name} is {described(part)}; give {remedy}")
        self.detector, self.threshold = detector, threshold
        parts = {"detector": detector.fingerprint, "rewriter": self.rewriter.fingerprint}
        self._parts = parts

    @property
    def fingerprint(self) -> str:
        """Hash of detector, rewriter and τ."""
        return state_hash({}, {"defence": "MLLM-Protector", "threshold": self.threshold, **self._parts})

    def check(self, mllm: MLLM) -> None:
        """Refuse a model that the detector cannot judge."""
        self.detector.check(mllm)

    def review(
        self,
        mllm: MLLM,
        prompts: Sequence[Prompt],
        answers: Sequence[Response],
        *,
        settings: GenerationSettings,
    ) -> list[Response]:
        """Look at all answers, rewrite those that are harmful; one without words harms nobody and is not looked at."""
        exchanges = {
            row: Exchange(prompt=prompt, answer=answer.text)
            for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
            if spoken(mllm, answer.text).strip()
        }
        seen = self._look(mllm, list(exchanges.values()), batch_size=settings.batch_size)
        looks = dict(zip(exchanges, seen, strict=True))
        harmful = [row for row, found in looks.items() if _probability(found) > self.threshold]
        rewritten = self.rewriter.rewrite(mllm, [exchanges[row] for row in harmful], settings=settings)
        again = dict(zip(harmful, rewritten, strict=True))
        return [
            charged(
                again.get(row, first),
                *([looks[row]] if row in looks else []),
                *([first] if row in again else []),
                gate_score=looks[row].gate_score if row in looks else 0.0,
                triggered=row in again,
                raw_text=first.text,
            )
            for row, first in enumerate(answers)
        ]

    def _look(self, mllm: MLLM, exchanges: Sequence[Exchange], *, batch_size: int) -> list[Response]:
        looks = self.detector.look(mllm, exchanges, batch_size=batch_size)
        name = type(self.detector).__name__
        if len(looks) != len(exchanges):
            raise ValueError(
                f"{name} gave {len(looks)} scores for {len(exchanges)} answers; it must give one each"
            )
        for exchange, found in zip(exchanges, looks, strict=True):
            score = found.gate_score
            if score is None or not math.isfinite(score) or not 0 <= score <= 1:
                raise ValueError(
                    f"{name} gave P(harmful) = {score} for the answer to prompt {exchange.prompt.id!r}; it must be a "
                    "probability. An answer that nobody has judged must not pass as safe: mend or fit the detector again"
                )
        return looks


def _probability(found: Response) -> float:
    assert found.gate_score is not None  # _look
    return found.gate_score
