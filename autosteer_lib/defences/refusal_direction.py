"""Refusal direction: one vector whose addition makes a model refuse and whose ablation makes it comply.

    add      x^(l*) ← x^(l*) + c r            input of block l*, every token of prompt and answer
    ablate   x ← x − r̂ r̂ᵀ x                    at every block, every token

Added, it refuses everything: as a defence it is the upper end of refusal and of over-refusal, without a gate.
Ablated it is an attack: what the gated defences must hold against. r, its layer and its token are chosen by the
criteria of the paper (refusal_candidates.py). An answer costs no further pass.

Source: Arditi et al. 2024 (arXiv 2406.11717). The official code filters the prompts by the sign of their refusal
score and keeps l < 0.8 L; both are done here (`keep`, `deepest`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.arguments import check_numbers, check_whole
from autosteer_lib.defences.fitted_defence import FittedDefence
from autosteer_lib.encoding import Encoded
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Judge, RefusalPhrases, verdict
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import OwnAnswers, ask_anew
from autosteer_lib.pooled_states import last_states
from autosteer_lib.prompts import Prompt
from autosteer_lib.refusal_candidates import (
    CandidateScores,
    candidate_directions,
    candidate_layers,
    refusal_score,
    refusal_tokens,
    select,
)
from autosteer_lib.refusal_sweeps import (
    ablation_edits,
    addition_edits,
    encode_once,
    next_logits,
    post_instruction_tokens,
    sweep,
)
from autosteer_lib.sites import Attachment, Edit, Site, resid_pre
from autosteer_lib.text_sets import FEWEST, TextSets, check_fit

Intervention: TypeAlias = Literal["add", "ablate"]


class RefusalDirection(FittedDefence):
    """Fitted values: `directions_` of all candidates, `scores_`, `position_`, `layer_`, `refusal_tokens_`."""

    name = "Refusal direction"
    kind: ClassVar[str] = "RefusalDirection"
    fit_call: ClassVar[str] = "fit(mllm, texts)"
    read_by_fit: ClassVar[frozenset[str]] = frozenset({"keep", "deepest", "coverage", "fewest"})

    def __init__(
        self,
        *,
        intervention: Intervention = "add",
        coefficient: float = 1.0,
        layer: int | None = None,
        position: int | None = None,
        least_induced: float | None = 0.0,
        most_kl: float | None = 0.1,
        deepest: float = 0.8,
        keep: Literal["score", "all"] = "score",
        coverage: float = 0.9,
        fewest: int = FEWEST,
    ) -> None:
        """Hyper-parameters.

        Args:
            intervention: "add" the direction, or "ablate" it.
            coefficient: of the addition; −1 takes refusal away.
            layer: of the direction, with `position`; None for both lets the scores choose.
            position: token that the direction is of, counted from the end (−1 is the last).
            least_induced: refusal score that the addition must reach on harmless prompts; None for no test.
            most_kl: what the ablation may change on harmless prompts; None for no test.
            deepest: candidates are below this share of the layers.
            keep: "score" leaves out harmful prompts that do not look refused and harmless ones that do, as the code
                does; "all" keeps every prompt.
            coverage: share of the refusals that the refusal tokens must begin.
            fewest: prompts that must be left of each kind.

        Raises:
            ValueError: values that mean nothing.
        """
        check_numbers(coefficient=coefficient, deepest=deepest, coverage=coverage)
        given = {"layer": layer, "position": position}
        check_whole(fewest=fewest, **{name: value for name, value in given.items() if value is not None})
        tests = {"least_induced": least_induced, "most_kl": most_kl}
        check_numbers(**{name: value for name, value in tests.items() if value is not None})
        if intervention not in ("add", "ablate") or keep not in ("score", "all"):
            raise ValueError(
                f"intervention={intervention!r}, keep={keep!r}; allowed: 'add' or 'ablate', 'score' or 'all'"
            )
        if (layer is None) != (position is None):
            raise ValueError(
                f"layer={layer}, position={position}: give both, or neither to let the scores choose"
            )
        if not 0 < deepest <= 1 or not 0 < coverage <= 1 or fewest < 1:
            raise ValueError(
                f"deepest={deepest} and coverage={coverage} are shares in (0, 1], fewest={fewest} is at least 1"
            )
        self.intervention, self.coefficient = intervention, coefficient
        self.layer, self.position = layer, position
        self.least_induced, self.most_kl, self.deepest = least_induced, most_kl, deepest
        self.keep, self.coverage, self.fewest = keep, coverage, fewest

    def fit(
        self,
        mllm: MLLM,
        texts: TextSets,
        *,
        settings: GenerationSettings | None = None,
        judge: Judge | None = None,
        answers: OwnAnswers = ask_anew,
        progress: bool = False,
    ) -> RefusalDirection:
        """Find the refusal's first tokens, all candidates, and the one to keep.

        Args:
            mllm: the model, which is not changed.
            texts: for the directions, and validation texts for their choice.
            settings: of the answers in which refusals are looked for, and the batch.
            judge: tells a refusal; `RefusalPhrases()` if left out.
            answers: the undefended model's, where they are kept; asked anew if left out.
            progress: show bars.

        Raises:
            ValueError: too few texts, prompts without the assistant's header, no refusal, or no candidate that passes.
        """
        judge = RefusalPhrases() if judge is None else judge
        settings = check_fit(mllm, texts, settings=settings, judge=judge)
        self._check_before(mllm, texts)
        size = settings.batch_size
        sets = (texts.unsafe, texts.safe, texts.validation_unsafe, texts.validation_safe)
        encoded = [encode_once(mllm, side, batch_size=size) for side in sets]
        logits = [next_logits(mllm, batches) for batches in encoded]
        answered = [*texts.unsafe, *texts.safe]
        answered_with = answers(mllm, answered, settings=settings, progress=progress)
        said = torch.cat(logits[:2]).argmax(dim=-1).tolist()
        refused = [
            verdict(judge, p, answer).refused for p, answer in zip(answered, answered_with, strict=True)
        ]
        tokens = refusal_tokens(
            [token for token, was in zip(said, refused, strict=True) if was],
            [token for token, was in zip(said, refused, strict=True) if not was],
            coverage=self.coverage,
        )
        kept = [
            self._kept(side, refusal_score(after, tokens), harmful=index % 2 == 0)
            for index, (side, after) in enumerate(zip(sets, logits, strict=True))
        ]
        self._check_kept(mllm, kept, sets)
        sites = [resid_pre(layer) for layer in range(mllm.layers)]
        states = [
            last_states(
                mllm,
                side,
                sites=sites,
                tokens=post_instruction_tokens(mllm),
                batch_size=size,
                progress=progress,
            )
            for side in kept[:2]
        ]
        directions = candidate_directions(*states)
        scores = sweep(
            mllm,
            directions,
            harmful=encode_once(mllm, kept[2], batch_size=size),
            harmless=encode_once(mllm, kept[3], batch_size=size),
            tokens=tokens,
            layers=candidate_layers(mllm.layers, share=self.deepest),
            progress=progress,
        )
        found = {"directions": directions, **_stored(scores)}
        return self._adopt(found, {"refusal_tokens": list(tokens)}, fitted_on=FittedOn.of(mllm))

    def steering(self, mllm: MLLM, encoded: Encoded) -> EveryToken | None:
        """Edits for one batch; None where the addition adds nothing."""
        self._check_model(mllm)
        if self.intervention == "ablate":
            return EveryToken(ablation_edits(self.direction, layers=mllm.layers))
        if not self.coefficient:
            return None
        return EveryToken(addition_edits(self.coefficient * self.direction, site=resid_pre(self.layer_)))

    @property
    def direction(self) -> Float[Tensor, " dim"]:
        """r, as it is: not of length 1."""
        self._check_fitted()
        return self.directions_[self.position_, self.layer_]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given."""
        names = (
            "intervention", "coefficient", "layer", "position", "least_induced", "most_kl", "deepest", "keep",
            "coverage", "fewest",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _check_before(self, mllm: MLLM, texts: TextSets) -> None:
        if not mllm.add_generation_prompt:
            raise ValueError(
                f"{mllm.name} is loaded with add_generation_prompt=False, so the next token after a prompt is the "
                "assistant's header and never a refusal's; load(…, add_generation_prompt=True)"
            )
        for name in ("unsafe", "safe", "validation_unsafe", "validation_safe"):
            count = len(getattr(texts, name))
            if count < self.fewest:
                raise ValueError(
                    f"{count} {name} texts were given; at least {self.fewest} are needed: give more, or lower fewest"
                )
        if self.layer is not None and not 0 <= self.layer < mllm.layers:
            raise ValueError(f"layer {self.layer} does not exist; {mllm.name} has layers 0…{mllm.layers - 1}")

    def _kept(self, prompts: Sequence[Prompt], scores: Tensor, *, harmful: bool) -> list[Prompt]:
        if self.keep == "all":
            return list(prompts)
        fits = scores >= 0 if harmful else scores <= 0
        return [prompt for prompt, fit in zip(prompts, fits.tolist(), strict=True) if fit]

    def _check_kept(
        self, mllm: MLLM, kept: Sequence[Sequence[Prompt]], sets: Sequence[Sequence[Prompt]]
    ) -> None:
        if min(map(len, kept)) < self.fewest:
            counts = ", ".join(f"{len(k)} of {len(s)}" for k, s in zip(kept, sets, strict=True))
            raise ValueError(
                f"of the unsafe, safe, validation unsafe and validation safe texts {mllm.name} is about to refuse the "
                f"unsafe and to answer the safe ones in {counts}; at least {self.fewest} of each are needed: give more "
                "texts, lower fewest, or keep='all'"
            )

    def _tensors(self) -> dict[str, Tensor]:
        return {"directions": self.directions_, **_stored(self.scores_)}

    def _values(self) -> dict[str, Any]:
        return {"refusal_tokens": list(self.refusal_tokens_)}

    def _answers_depend_on(self) -> dict[str, Any]:
        return {
            "intervention": self.intervention,
            "coefficient": self.coefficient if self.intervention == "add" else None,
            "layer": self.layer_,
            "position": self.position_,
        }

    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.directions_ = tensors["directions"]
        # Where there is no score there is no number that a file could hold: a mask says which are there.
        there = tensors["scored"]
        self.scores_ = CandidateScores(
            *(torch.where(there, tensors[name], float("nan")) for name in CandidateScores._fields)
        )
        self.refusal_tokens_: tuple[int, ...] = tuple(values["refusal_tokens"])
        positions, layers = self.directions_.shape[:2]
        if self.layer is None or self.position is None:
            self.position_, self.layer_ = select(
                self.scores_,
                layers=candidate_layers(layers, share=self.deepest),
                least_induced=self.least_induced,
                most_kl=self.most_kl,
            )
            return
        if not 0 <= self.layer < layers or not -positions <= self.position < 0:
            raise ValueError(
                f"layer={self.layer}, position={self.position} is no candidate; layers are 0…{layers - 1}, positions "
                f"−{positions}…−1"
            )
        self.position_, self.layer_ = self.position, self.layer
        if not self.directions_[self.position_, self.layer_].any():
            raise ValueError(
                f"there is no direction at layer={self.layer}, position={self.position}: harmful and harmless prompts "
                "have one mean state there; pick another"
            )


class EveryToken:
    """The same edits in every row and every pass of a batch; see `generation.Steering`."""

    gate_score: Float[Tensor, " batch"] | None = None
    triggered: Bool[Tensor, " batch"] | None = None

    def __init__(self, edits: Mapping[Site, Edit]) -> None:
        self._edits = edits

    def edits(self) -> Mapping[Site, Edit]:
        """What is done where."""
        return self._edits

    def bind(self, attachment: Attachment) -> None:
        """Nothing to detach: it is on for the whole answer."""


def _stored(scores: CandidateScores) -> dict[str, Tensor]:
    named = {name: getattr(scores, name).nan_to_num(0.0) for name in CandidateScores._fields}
    return {**named, "scored": ~scores.bypass.isnan()}
