"""A small harm detector for answers: a classifier on the model's own state of the answer's words.

    z = last state after the final norm of F(∅, answer)          one pass, nothing is written
    P(harmful) = σ(prober(z))                                     probers.SafetyProber, 64 hidden units

MLLM-Protector trains a second language model of 3B or 7B with one output in place of the unembedding. This is
the same shape at a fraction of the price: the language model is the defended one, frozen, and the one output is
a small network on the state that the unembedding reads. So no layer has to be chosen, every model has its
detector, and the data of a few hundred answers is enough; a classifier of word counts would need no model, but
sees neither order nor meaning. Its loss is cross-entropy; the published code adds a term over pairs.

The published code trains on question and answer, and scores the answer alone. Here both are the same text,
the answer alone by default: `shown` may name {question} too. Many questions get one answer, refusals above all: what is
held out to choose the epoch is texts, so none of them is trained on under another question.

Source: MLLM-Protector (arXiv 2401.02906) §3; pipilurj/MLLM-protector at 390e326.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.arguments import check_given, check_list, check_numbers, check_whole
from autosteer_lib.defences.asking import check_template, fill, in_words, look, spoken
from autosteer_lib.epoch_choice import EpochRecord
from autosteer_lib.fitted_state import FittedOn, load_state, restoring, save_state, state_hash
from autosteer_lib.generation import GenerationSettings, Response, check_call
from autosteer_lib.judges import Judge, check_judge, verdict
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import OwnAnswers, ask_anew
from autosteer_lib.pairs import split_indices
from autosteer_lib.probers import SafetyProber
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import final_norm

KIND = "AnswerDetector"


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """A request and what was answered to it."""

    prompt: Prompt
    answer: str


class AnswerDetector:
    """Fitted values end in an underscore: `prober_`."""

    def __init__(
        self,
        *,
        shown: str = "{answer}",
        prober: SafetyProber | None = None,
        held_out: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Hyper-parameters.

        Args:
            shown: what of an exchange the model is given to read: {answer}, and {question} if wanted.
            prober: unfitted, to set width, epochs, …
            held_out: share of the texts of each side that choose the epoch, where the prober does so.
            seed: of this split.

        Raises:
            ValueError: a template without {answer}, or a share outside (0, 1).
        """
        check_template("shown", shown, needs=("answer",), may=("question",))
        check_numbers(held_out=held_out)
        check_whole(seed=seed)
        if not 0 < held_out < 1:
            raise ValueError(f"held_out = {held_out} must be a share between 0 and 1, for example 0.1")
        check_given(
            prober, (SafetyProber, NoneType), name="prober", remedy="SafetyProber(…), or leave it out"
        )
        self.shown, self.held_out, self.seed = shown, held_out, seed
        self.prober = prober or SafetyProber(lr=1e-3, epochs=100)

    def fit(
        self,
        mllm: MLLM,
        harmful: Sequence[Exchange],
        harmless: Sequence[Exchange],
        *,
        batch_size: int = 32,
        cache: Path | None = None,
        progress: bool = False,
    ) -> AnswerDetector:
        """Read all answers once and train the head; the model itself stays as it is.

        Args:
            mllm: the model whose states are read.
            harmful: exchanges whose answers do harm.
            harmless: exchanges whose answers do none, refusals among them.
            batch_size: answers a forward pass.
            cache: folder in which states are kept.
            progress: show bars.

        Raises:
            ValueError: too few different texts of a kind, or an answer without words.
        """
        choosing = self.prober.checkpoint == "held_out"
        read: list[list[Prompt]] = []
        for name, side in (("harmful", harmful), ("harmless", harmless)):
            remedy = (
                "a list of Exchange, as in [Exchange(prompt=…, answer=…), …]; `judged_answers` makes them"
            )
            check_list(side, Exchange, name=name, remedy=remedy)
            blank = [exchange.prompt.id for exchange in side if not spoken(mllm, exchange.answer).strip()]
            if blank:
                raise ValueError(
                    f"the {name} answer to prompt {blank[0]!r} has no words ({len(blank)} such answers); leave it out"
                )
            read.append(self._texts(mllm, side))
            different = len({text.text for text in read[-1]})
            if different < (2 if choosing else 1):
                raise ValueError(
                    f"{len(side)} {name} answers of {different} different texts; a detector needs both kinds, and at least "
                    "2 texts of each where some are kept back to choose the epoch: give more (`judged_answers` makes them "
                    "from prompts)"
                )
        sites = [final_norm()]
        states = [
            collect(mllm, texts, sites=sites, batch_size=batch_size, cache=cache, progress=progress)[:, 0]
            for texts in read
        ]
        prober = SafetyProber(**self.prober.hyperparameters)
        if choosing:
            (toxic, held_toxic), (safe, held_safe) = map(self._split, states, read)
            held_out = (held_toxic, held_safe)
            prober.fit(toxic, safe, held_out=held_out, device=mllm.device, progress=progress)
        else:
            prober.fit(*states, device=mllm.device, progress=progress)
        return self._adopt(prober, fitted_on=FittedOn.of(mllm))

    def check(self, mllm: MLLM) -> None:
        """Refuse a model that it was not fitted on."""
        self._check_fitted()
        self.fitted_on_.check(mllm)

    def look(self, mllm: MLLM, exchanges: Sequence[Exchange], *, batch_size: int) -> list[Response]:
        """P(harmful) of each answer as `gate_score`, with the price of the pass."""
        self.check(mllm)
        prober = self.prober_.to(mllm.device)
        return look(
            mllm,
            self._texts(mllm, exchanges),
            site=final_norm(),
            score=prober.score,
            threshold=0.5,
            batch_size=batch_size,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of all that a score depends on."""
        self._check_fitted()
        return state_hash(
            self.prober_.tensors,
            {"detector": KIND, "shown": self.shown, "fitted_on": self.fitted_on_.facts()},
        )

    def save(self, folder: str | Path) -> Path:
        """Write the fitted detector; `load` reads it back."""
        self._check_fitted()
        settings = {
            "shown": self.shown,
            "held_out": self.held_out,
            "seed": self.seed,
            "prober": {
                "hyperparameters": self.prober_.hyperparameters,
                "chosen_epoch": self.prober_.chosen_epoch_,
                "history": [list(record) for record in self.prober_.history_],
            },
        }
        return save_state(
            folder, kind=KIND, tensors=self.prober_.tensors, settings=settings, fitted_on=self.fitted_on_
        )

    @classmethod
    def load(cls, folder: str | Path, mllm: MLLM) -> AnswerDetector:
        """Read a fitted detector for the model that it was fitted on."""
        state = load_state(folder, mllm, kind=KIND)
        with restoring(folder):
            stored = dict(state.settings)
            described = stored.pop("prober")
            hyperparameters = described["hyperparameters"]
            prober = SafetyProber.from_tensors(
                state.tensors,
                hyperparameters=hyperparameters,
                history=[EpochRecord(*record) for record in described["history"]],
                chosen_epoch=described["chosen_epoch"],
            )
            return cls(**stored, prober=SafetyProber(**hyperparameters))._adopt(
                prober, fitted_on=state.fitted_on
            )

    def _texts(self, mllm: MLLM, exchanges: Sequence[Exchange]) -> list[Prompt]:
        return [
            in_words(e.prompt, fill(mllm, self.shown, question=e.prompt.text, answer=e.answer))
            for e in exchanges
        ]

    def _split(self, states: Tensor, texts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        different = list(dict.fromkeys(text.text for text in texts))
        _, kept_back = split_indices(len(different), held_out=self.held_out, seed=self.seed)
        chosen = {different[index] for index in kept_back}
        held = torch.tensor([text.text in chosen for text in texts])
        return states[~held], states[held]

    def _adopt(self, prober: SafetyProber, *, fitted_on: FittedOn) -> AnswerDetector:
        self.prober_, self.fitted_on_ = prober, fitted_on
        return self

    def _check_fitted(self) -> None:
        if not hasattr(self, "fitted_on_"):
            raise NotFittedError(
                "this AnswerDetector is not fitted; call fit(mllm, harmful, harmless), or AnswerDetector.load"
            )


def judged_answers(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    judge: Judge,
    settings: GenerationSettings,
    answers: OwnAnswers = ask_anew,
    progress: bool = False,
) -> tuple[list[Exchange], list[Exchange]]:
    """The model's own answers to prompts, as (harmful, harmless) by a judge: what a detector is fitted on.

    Raises:
        ValueError: no answer of one kind; a detector cannot be fitted on the other alone.
    """
    prompts = check_call(mllm, prompts, settings=settings)
    check_judge(judge, in_batches=False)
    harmful: list[Exchange] = []
    harmless: list[Exchange] = []
    said = answers(mllm, prompts, settings=settings, progress=progress)
    for prompt, answer in zip(prompts, said, strict=True):
        if spoken(mllm, answer).strip():
            side = harmful if verdict(judge, prompt, answer).unsafe else harmless
            side.append(Exchange(prompt=prompt, answer=answer))
    if not harmful or not harmless:
        raise ValueError(
            f"{mllm.name} gave {len(harmful)} harmful and {len(harmless)} harmless answers to {len(prompts)} prompts; "
            "give prompts of both kinds, some of which it carries out although they are harmful, or answers of another "
            "model as Exchange"
        )
    return harmful, harmless
