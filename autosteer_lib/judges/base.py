"""Two questions about an answer: was harm done, and was the request declined? It may be neither.

    unsafe    a harmful request was carried out, or any attempt at it made     → attack success rate
    refused   the model declined                                              → over-refusal, on harmless prompts

A `Judge` decides both at once for one answer (`Verdict`), needs nothing but the words, and may be used while a
defence is fitted. A `BatchJudge` is a model: it is asked about many answers at once, after generation, may know
one of the two questions only, and its reply may be unreadable. It gives an `Opinion`, in which None is "does not
say": counted and shown, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autosteer_lib.arguments import described
from autosteer_lib.prompts import Prompt
from autosteer_lib.scoring import correct


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge says of one answer."""

    unsafe: bool
    """A harmful request was carried out, at least in part."""
    refused: bool
    """The model declined."""
    detail: str = ""
    """The judge's reason, for a reader."""


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What a judge says of one answer that it may leave open."""

    unsafe: bool | None
    """As in `Verdict`; None where the judge does not say."""
    refused: bool | None
    """As in `Verdict`; None where the judge does not say."""
    detail: str = ""
    """The judge's reason, or the reply that could not be read."""
    unread: bool = False
    """The judge was asked and gave no answer that can be read."""


@runtime_checkable
class Judge(Protocol):
    """Judges one answer. Deterministic: the same prompt and answer give the same verdict."""

    @property
    def name(self) -> str:
        """Says in tables who judged."""

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        """Judge one answer to one prompt."""


@runtime_checkable
class BatchJudge(Protocol):
    """Judges many answers at once."""

    @property
    def name(self) -> str:
        """Says in tables who judged."""

    def opinions(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Opinion]:
        """Judge each answer to the prompt in the same place."""


def check_judge(judge: object, *, in_batches: bool = True) -> None:
    """Check that answers can be judged, before there are any.

    Args:
        judge: whatever was given as one.
        in_batches: whether a `BatchJudge` will do.

    Raises:
        TypeError: no judge, or the class of one.
    """
    if isinstance(judge, type) or not (callable(judge) or (in_batches and hasattr(judge, "opinions"))):
        what = "judge answers" if in_batches else "judge answers one at a time, by their words"
        raise TypeError(
            f"judge is {described(judge)}, and must {what}, as RefusalPhrases() does; one that profiles name: "
            "word_judge(name) of autosteer_lib.judges.named"
        )


def opinions(judge: Judge | BatchJudge, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Opinion]:
    """Ask a judge of either kind about answers, each to the prompt in the same place."""
    if len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts and {len(answers)} answers: give one answer a prompt")
    if isinstance(judge, BatchJudge):
        found = judge.opinions(prompts, answers)
        if not isinstance(found, Sequence) or len(found) != len(answers):
            raise TypeError(
                f"{_who(judge)} was asked about {len(answers)} answers and its opinions(…) gave {described(found)}; it must "
                "give a list with one Opinion each"
            )
        for prompt, opinion in zip(prompts, found, strict=True):
            _check_said(judge, prompt, opinion, kind=Opinion)
        return found
    verdicts = [verdict(judge, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return [Opinion(unsafe=v.unsafe, refused=v.refused, detail=v.detail) for v in verdicts]


def verdict(judge: Judge, prompt: Prompt, answer: str) -> Verdict:
    """Ask a judge about one answer.

    Raises:
        TypeError: it gave something else than a `Verdict`; a bare True would leave open which question it answers.
    """
    said = judge(prompt, answer)
    _check_said(judge, prompt, said, kind=Verdict)
    return said


def _check_said(judge: object, prompt: Prompt, said: object, *, kind: type[Verdict] | type[Opinion]) -> None:
    open_too, left_open = ("", "") if kind is Verdict else (" or None", ", or None where it does not say")
    if not isinstance(said, kind):
        raise TypeError(
            f"{_who(judge)} said {described(said)} of the answer to prompt {prompt.id!r}; it must give a "
            f"{kind.__name__}(unsafe=…, refused=…) of autosteer_lib.judges, each True or False{left_open}"
        )
    for name in ("unsafe", "refused"):
        value = getattr(said, name)
        if not isinstance(value, bool) and not (kind is Opinion and value is None):
            raise TypeError(
                f"{_who(judge)} gave {name}={described(value)} of the answer to prompt {prompt.id!r}; give True or "
                f"False{open_too} (bool(…) of a table's)"
            )


def _who(judge: object) -> str:
    return f"judge {getattr(judge, 'name', None) or getattr(judge, '__name__', type(judge).__name__)!r}"


def plain_request(prompt: Prompt) -> str:
    """What was asked for, in words: all that a judge without eyes is told of a prompt.

    The harm of an attack by picture or film is not in its text ("list the steps shown here"), so its
    `intention` stands in for it; prompts of words alone may do without one.

    Raises:
        ValueError: a prompt with something to see, and no plain intention.
    """
    if prompt.intention.strip():
        return prompt.intention
    if prompt.images or prompt.videos:
        raise ValueError(
            f"prompt {prompt.id!r} of {prompt.surface or 'no'!r} surface shows something ({prompt.modality}) and has no "
            f"plain intention: a judge that reads words alone would judge the carrier sentence {prompt.text[:60]!r}; "
            f"give the prompt intention=…, in words"
        )
    return prompt.text


def normalise(text: str) -> str:
    """Lower case, straight apostrophes, single spaces: what a comparison of answers should not trip over."""
    text = text.casefold()
    for apostrophe in "’‘`´ʼ":
        text = text.replace(apostrophe, "'")
    return " ".join(text.split())


def is_correct(prompt: Prompt, answer: str) -> bool | None:
    """Whether the answer is the prompt's reference: as its benchmark compares, else spaces and case aside.

    None without a reference. Benchmarks say how in metadata["scoring"] (scoring.py).
    """
    if prompt.reference is None:
        return None
    if "scoring" in prompt.metadata:
        return correct(answer, reference=prompt.reference, scoring=prompt.metadata["scoring"])
    return normalise(answer) == normalise(prompt.reference)
