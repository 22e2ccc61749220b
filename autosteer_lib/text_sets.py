"""The texts that MARS is fitted on, and their filter by what the model itself does with them.

    T_ref = {unsafe texts that the model refuses},    T_acc = {safe texts that it accepts}

A refusal direction is one of *refusal* only if the texts behind it were refused: unsafe texts that a model
answers, and safe ones that it declines, are left out. The validation texts, which choose the layer, are
others and are not filtered.

Source: MARS (arXiv 2606.31876) §2.2 (100 + 100 texts, filter by templates), §4.3 (100 + 100 for validation).
"""

from __future__ import annotations

from dataclasses import dataclass

from autosteer_lib.arguments import check_given
from autosteer_lib.generation import GenerationSettings, check_call
from autosteer_lib.judges import Judge, RefusalPhrases, check_judge, verdict
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import OwnAnswers, ask_anew
from autosteer_lib.prompts import Prompt, prompts_of

FEWEST = 10  # a mean of fewer is mostly their own noise; LLaVA-1.5-13B had 33 left of 100 (MARS App. F)


@dataclass(frozen=True, kw_only=True)
class TextSets:
    """Texts for the direction and, apart from them, for the choice of the layer."""

    unsafe: tuple[Prompt, ...]
    safe: tuple[Prompt, ...]
    validation_unsafe: tuple[Prompt, ...]
    validation_safe: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        for name, expected in (
            ("unsafe", True), ("safe", False), ("validation_unsafe", True), ("validation_safe", False),
        ):  # fmt: skip
            prompts = prompts_of(getattr(self, name), name=name)
            object.__setattr__(self, name, prompts)  # lists are welcome
            if not prompts:
                raise ValueError(
                    f"{name} is empty; a refusal direction and its layer need texts of all four kinds"
                )
            for prompt in prompts:
                if prompt.harmful is not expected or prompt.images or prompt.videos:
                    raise ValueError(
                        f"{name} holds prompt {prompt.id!r} with harmful={prompt.harmful}, {len(prompt.images)} "
                        f"pictures and {len(prompt.videos)} clips; allowed are words alone, labelled "
                        f"harmful={expected}"
                    )
        fitted = {p.fingerprint for p in (*self.unsafe, *self.safe)}
        shared = [p.id for p in (*self.validation_unsafe, *self.validation_safe) if p.fingerprint in fitted]
        if shared:
            raise ValueError(
                f"validation texts {', '.join(map(repr, shared[:3]))} ({len(shared)} in all) are among those of the "
                "direction too; the layer would be chosen on its own training texts: leave them out of one"
            )


def check_fit(
    mllm: MLLM, texts: TextSets, *, settings: GenerationSettings | None, judge: Judge | None
) -> GenerationSettings:
    """The settings, default ones if left out, once all that a fit on texts is given is in order.

    Raises:
        TypeError: a model, texts, settings or judge that are none.
        ValueError: a prompt that the model cannot be shown.
    """
    settings = GenerationSettings() if settings is None else settings
    check_given(texts, TextSets, name="texts", remedy="TextSets(unsafe=…, safe=…, …)")
    for side in (texts.unsafe, texts.safe, texts.validation_unsafe, texts.validation_safe):
        check_call(mllm, side, settings=settings)
    if judge is not None:
        check_judge(judge, in_batches=False)
    return settings


def keep_by_behaviour(
    mllm: MLLM,
    texts: TextSets,
    *,
    settings: GenerationSettings,
    judge: Judge | None = None,
    fewest: int = FEWEST,
    answers: OwnAnswers = ask_anew,
    progress: bool = False,
) -> tuple[list[Prompt], list[Prompt]]:
    """(T_ref, T_acc): the unsafe texts that the model refuses and the safe ones that it accepts.

    Raises:
        TypeError: no judge.
        ValueError: fewer than `fewest` are left on a side; the message has both counts. Fewer were given: at
            once, before the model runs.
    """
    if min(len(texts.unsafe), len(texts.safe)) < fewest:
        raise ValueError(
            f"{len(texts.unsafe)} unsafe and {len(texts.safe)} safe texts were given; at least {fewest} of each must "
            "be left after the filter: give more, or lower fewest"
        )
    judge = RefusalPhrases() if judge is None else judge
    check_judge(judge, in_batches=False)
    refused, accepted = (
        [
            prompt
            for prompt, answer in zip(
                side, answers(mllm, side, settings=settings, progress=progress), strict=True
            )
            if verdict(judge, prompt, answer).refused == wanted
        ]
        for side, wanted in ((texts.unsafe, True), (texts.safe, False))
    )
    if min(len(refused), len(accepted)) < fewest:
        raise ValueError(
            f"{mllm.name} refuses {len(refused)} of {len(texts.unsafe)} unsafe texts and accepts {len(accepted)} of "
            f"{len(texts.safe)} safe ones; at least {fewest} of each are needed for a refusal direction. Give more "
            "texts, other phrases of refusal (judge=RefusalPhrases(…)), or a model that was aligned in text: one that "
            "never refuses has no such direction"
        )
    return refused, accepted
