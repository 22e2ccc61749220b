"""What defences share that reword the request or ask the model again: templates, other requests, the bill.

    reworded     the same pictures with other words
    in_words     the words alone, for a model with its eyes closed
    look         one pass that reads a state and writes nothing: a score for each request
    charged      an answer with the price of every call behind it

`ReviewingDefence` lets the model answer first and looks at that answer afterwards; what it found is kept beside
what it gives back (`Response.raw_text`).

The default templates are plain English for models that read it. The organisms know about two hundred words of
their own world (organism/language.py) and read all others as one unknown word: there a default template
mostly shows what longer prompts and more calls cost. Give templates in the model's own words to learn more.
"""

from __future__ import annotations

import math
import string
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.arguments import check_given
from autosteer_lib.defences.base import Defence
from autosteer_lib.encoding import Encoded, sight_marks
from autosteer_lib.generation import GenerationSettings, Response, generate, respond
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Attachment, Edit, Site

Score: TypeAlias = Callable[[Float[Tensor, "batch dim"]], Float[Tensor, " batch"]]


class ReviewingDefence(Defence):
    """A defence that lets the model answer and then looks at the answer."""

    @abstractmethod
    def review(
        self,
        mllm: MLLM,
        prompts: Sequence[Prompt],
        answers: Sequence[Response],
        *,
        settings: GenerationSettings,
    ) -> list[Response]:
        """Keep or replace each answer; the price of the first one is in the result too."""

    def check(self, mllm: MLLM) -> None:
        """Raise what can be known to go wrong with this model, before it runs."""

    def _respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[Response]:
        """Answer any number of prompts, in their order."""
        self.check(mllm)
        answers = respond(mllm, prompts, settings=settings, progress=progress)
        return self.review(mllm, prompts, answers, settings=settings)

    @final  # an evaluation that has the plain answer calls `check` and `review` itself
    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        """Answer one encoded batch; further questions are encoded here."""
        self.check(mllm)
        answers = generate(mllm, encoded, settings=settings)
        return self.review(mllm, encoded.prompts, answers, settings=settings)


def check_template(name: str, template: str, *, needs: Collection[str], may: Collection[str] = ()) -> None:
    """Refuse a template that lacks a placeholder or has one that nothing fills.

    Raises:
        TypeError: no words.
        ValueError: names the template, what it holds and what it must hold.
    """
    wanted = ", ".join(f"{{{field}}}" for field in needs)
    check_given(template, str, name=name, remedy=f"a template, a string with {wanted} in it")
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(
            f"{name}={template!r} cannot be read ({error}); write a literal brace twice"
        ) from error
    missing, unknown = set(needs) - found, found - set(needs) - set(may)
    if missing or unknown:
        allowed = "".join(f", may contain {{{field}}}" for field in may)
        raise ValueError(
            f"{name}={template!r} has the placeholders {sorted(found)}; it must contain {wanted}{allowed}, and no other"
        )


def fill(mllm: MLLM, template: str, *, question: str, **said: str) -> str:
    """A template with the user's words and with what a model said, as far as it is words."""
    return template.format(question=question, **{name: spoken(mllm, text) for name, text in said.items()})


def spoken(mllm: MLLM, text: str) -> str:
    """An answer as it can be quoted in a prompt, where the mark of a picture would stand for one that is not there."""
    for mark in sight_marks(mllm):
        text = text.replace(mark, " ")
    return text


def reworded(prompt: Prompt, text: str) -> Prompt:
    """The same pictures and clips with other words."""
    return replace(prompt, text=text)


def in_words(prompt: Prompt, text: str) -> Prompt:
    """Other words and nothing to see."""
    return replace(prompt, text=text, images=(), videos=())


def charged(
    answer: Response,
    *others: Response,
    gate_score: float | None = None,
    triggered: bool | None = None,
    raw_text: str | None = None,
) -> Response:
    """An answer with the sum of what it and the other calls cost, and with what the defence decided."""
    calls = (answer, *others)
    return replace(
        answer,
        model_calls=sum(call.model_calls for call in calls),
        new_tokens=sum(call.new_tokens for call in calls),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        seconds=sum(call.seconds for call in calls),
        gate_score=gate_score,
        triggered=triggered,
        raw_text=raw_text,
    )


def look(
    mllm: MLLM, prompts: Sequence[Prompt], *, site: Site, score: Score, threshold: float, batch_size: int
) -> list[Response]:
    """One pass a batch: the score of each prompt's last token at a site, and whether it is above the threshold.

    Returns:
        Responses without words, whose `gate_score` and `triggered` are what was found; each is one call that
        generated nothing.

    Raises:
        ValueError: a score that is not finite; names the prompt.
    """
    settings = GenerationSettings(max_new_tokens=1, batch_size=batch_size)
    found = respond(
        mllm, prompts, settings=settings, steering=lambda _: Look(site, score, threshold=threshold)
    )
    for response in found:
        if response.gate_score is None or not math.isfinite(response.gate_score):
            raise ValueError(
                f"the score of prompt {response.prompt_id!r} at {site} of {mllm.name} is {response.gate_score}, so "
                "nothing can be decided by it; load the model in bfloat16 or float32, and fit again what gives the score"
            )
    return [replace(response, text="", new_tokens=0) for response in found]


class Look:
    """Reads the last token of one prefill and changes nothing; see `generation.Steering`."""

    def __init__(self, site: Site, score: Score, *, threshold: float) -> None:
        self.gate_score: Float[Tensor, " batch"] | None = None
        self.triggered: Bool[Tensor, " batch"] | None = None
        self._site, self._score, self._threshold = site, score, threshold

    def edits(self) -> Mapping[Site, Edit]:
        """Read at the site."""
        return {self._site: self._read}

    def bind(self, attachment: Attachment) -> None:
        """Nothing to detach: there is but one pass."""

    def _read(self, hidden: Float[Tensor, "batch tokens dim"]) -> None:
        self.gate_score = self._score(hidden[:, -1].to(torch.float32))
        self.triggered = self.gate_score > self._threshold
