"""AdaSteer: two directions at every layer, each with a strength that is read off the prompt itself.

    h'_l = h_l + λ_r(x) v_RD,l + λ_c(x) v_HD,l        every block's output, every token of the prompt, prefill only

    v_RD   mean of refused harmful prompts − mean of answered harmful prompts              towards refusal
    v_HD   mean of answered harmless − mean of answered harmful prompts, its part along v_RD alone
    λ_r    high where the prompt lies with answered harmful ones, 0 where it would be refused anyway
    λ_c    0 where it looks harmful, high where it looks harmless         (adaptive_strength.py, one layer each)

The code's literals agree with that in part. Between the two class means λ_r stands at its cap for Qwen2.5 and at its floor
of 0.08 for Llama 3.1, so nearly every prompt is pushed to refuse; for Gemma 2 it changes its sign on the way. λ_c of
Qwen2.5 falls below 0 for what looks harmful, which then is pushed away from the harmless.

Both readings are of the unsteered prompt, so an answer costs one further prefill (counted in `model_calls`). v_HD
being along v_RD, a layer has one degree of freedom: the two strengths pull at one rope. Signs are the paper's: the
code's vectors point the other way, so a push to refuse is a negative strength there.

How lines, layers and strengths were found is not published; the code has literals. Here: layers by how far the
classes lie apart on held-out prompts, lines by logistic regression there, and the two strengths by a grid of
answers to held-out prompts (share of harmful ones refused and harmless ones answered).

Source: AdaSteer (arXiv 2504.09466) §3–4 and its code (prefill only; paper says "steering").
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from types import NoneType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from autosteer_lib.activations import collect
from autosteer_lib.adaptive_strength import (
    ClippedLine,
    along,
    line_at,
    position,
    scaled,
    widest_layer,
)
from autosteer_lib.arguments import check_given, check_list, check_numbers, check_whole
from autosteer_lib.defences.fitted_defence import FittedDefence
from autosteer_lib.defences.prefill_shift import PrefillShift
from autosteer_lib.encoding import Encoded, batches
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.generation import GenerationSettings, Response, generate
from autosteer_lib.judges import Judge, RefusalPhrases, verdict
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import OwnAnswers, ask_anew
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Edit, attach, resid_post
from autosteer_lib.text_sets import FEWEST, TextSets, check_fit
from autosteer_lib.trust_region import Step

STRENGTHS = (0.05, 0.1, 0.2, 0.4)  # the code's strengths at its clips lie between 0.02 and 0.75
CLASSES = ("refused", "harmful", "harmless")
"""Harmful prompts that the model refuses, harmful ones that it answers, harmless ones that it answers."""


class AdaSteer(FittedDefence):
    """Fitted values: `means_` of the three classes, `rejection_line_`, `compliance_line_`, `logic_layers_`."""

    name = "AdaSteer"
    kind: ClassVar[str] = "AdaSteer"
    fit_call: ClassVar[str] = "fit(mllm, texts)"
    read_by_fit: ClassVar[frozenset[str]] = frozenset(
        {"rejection_strengths", "compliance_strengths", "fewest"}
    )

    def __init__(
        self,
        *,
        rejection: ClippedLine | Mapping[str, float] | None = None,
        compliance: ClippedLine | Mapping[str, float] | None = None,
        logic_layers: Sequence[int] | None = None,
        rejection_strengths: Sequence[float] = STRENGTHS,
        compliance_strengths: Sequence[float] = STRENGTHS,
        fewest: int = FEWEST,
    ) -> None:
        """Hyper-parameters.

        Args:
            rejection: λ_r as it is, like the code's literals; None fits it.
            compliance: λ_c, likewise.
            logic_layers: blocks at whose outputs p is read for λ_r and for λ_c; None chooses them.
            rejection_strengths: candidates for the height of a fitted λ_r; one alone is not tried, but taken.
            compliance_strengths: for λ_c; 0 leaves v_HD out.
            fewest: prompts that must be in each of the three classes, also of those held out.

        Raises:
            TypeError: a value of another type.
            ValueError: no strength or a negative one, not two layers, or a line without its four numbers.
        """
        for name, strengths in (
            ("rejection_strengths", rejection_strengths),
            ("compliance_strengths", compliance_strengths),
        ):
            check_list(strengths, (int, float), name=name, remedy="a list of numbers, as in [0.1, 0.2]")
            check_numbers(**{f"{name}[{place}]": strength for place, strength in enumerate(strengths)})
            if not strengths or min(strengths) < 0:
                raise ValueError(f"{name} = {list(strengths)}; give at least one, none below 0")
        if logic_layers is not None:
            remedy = "two layers, as in (3, 5), or None to let held-out prompts choose"
            check_list(logic_layers, int, name="logic_layers", remedy=remedy)
        check_whole(fewest=fewest)
        if logic_layers is not None and len(logic_layers) != 2:
            raise ValueError(f"logic_layers = {list(logic_layers)}; give two: one for λ_r and one for λ_c")
        if fewest < 1:
            raise ValueError(f"fewest = {fewest}; a mean needs at least 1 prompt of each class")
        self.rejection, self.compliance = (
            _line(rejection, name="rejection"),
            _line(compliance, name="compliance"),
        )
        self.logic_layers = None if logic_layers is None else (int(logic_layers[0]), int(logic_layers[1]))
        self.rejection_strengths = tuple(rejection_strengths)
        self.compliance_strengths = tuple(compliance_strengths)
        self.fewest = fewest

    def fit(
        self,
        mllm: MLLM,
        texts: TextSets,
        *,
        settings: GenerationSettings | None = None,
        judge: Judge | None = None,
        answers: OwnAnswers = ask_anew,
        progress: bool = False,
    ) -> AdaSteer:
        """Find directions, layers, lines and strengths; the model itself stays as it is.

        Args:
            mllm: the model to defend.
            texts: `unsafe` must hold prompts that the model refuses and others (jailbreaks, say) that it answers;
                the validation texts too, as the lines are fitted on them.
            settings: of the answers that tell these apart, and the batch.
            judge: tells a refusal; `RefusalPhrases()` if left out.
            answers: the undefended model's, where they are kept; asked anew if left out.
            progress: show bars.

        Raises:
            TypeError: model, texts, settings or judge are none.
            ValueError: a layer that does not exist, too few prompts of a class, or classes that cannot be told apart.
        """
        judge = RefusalPhrases() if judge is None else judge
        settings = check_fit(mllm, texts, settings=settings, judge=judge)
        self._check_layers(FittedOn.of(mllm))
        groups = {
            part: self._classes(
                mllm,
                unsafe,
                safe,
                part=part,
                settings=settings,
                judge=judge,
                answers=answers,
                progress=progress,
            )
            for part, unsafe, safe in (
                ("fitting", texts.unsafe, texts.safe),
                ("validation", texts.validation_unsafe, texts.validation_safe),
            )
        }

        def states(prompts: Sequence[Prompt]) -> Tensor:
            sites = [resid_post(layer) for layer in range(mllm.layers)]
            return collect(mllm, prompts, sites=sites, batch_size=settings.batch_size, progress=progress)

        means = {
            name: states(prompts).double().mean(0).float() for name, prompts in groups["fitting"].items()
        }
        held_out = {name: states(prompts) for name, prompts in groups["validation"].items()}
        layers = self.logic_layers or (
            widest_layer(held_out, means, second="refused"),
            widest_layer(held_out, means, second="harmless"),
        )
        rejection = self.rejection or line_at(layers[0], held_out, means, second="refused", rises=False)
        compliance = self.compliance or line_at(layers[1], held_out, means, second="harmless", rises=True)

        def with_strengths(pair: tuple[float, float]) -> AdaSteer:
            lines = (
                rejection if self.rejection else scaled(rejection, pair[0]),
                compliance if self.compliance else scaled(compliance, pair[1]),
            )
            values = {"lines": [asdict(line) for line in lines], "layers": list(layers)}
            unfitted = type(self)(**self.hyperparameters)
            return unfitted._adopt(means, values, fitted_on=FittedOn.of(mllm))

        best = self._best(mllm, texts, with_strengths, settings=settings, judge=judge, progress=progress)
        return self._adopt(best._tensors(), best._values(), fitted_on=FittedOn.of(mllm))

    @torch.no_grad()
    def strengths(self, mllm: MLLM, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """(λ_r, λ_c, p of λ_r) of each row, from one pass over the unsteered prompts.

        Raises:
            ValueError: a state that is not finite, or another model.
        """
        self._check_model(mllm)
        read: dict[int, Tensor] = {}

        def reader(layer: int) -> Edit:
            def edit(hidden: Tensor) -> None:
                read[layer] = hidden[:, -1].to(mllm.device, torch.float32)

            return edit

        with mllm.lock, attach(mllm, {resid_post(layer): reader(layer) for layer in self.logic_layers_}):
            mllm.forward(encoded.inputs)
        means = {name: mean.to(mllm.device) for name, mean in self.means_.items()}
        layer_r, layer_c = self.logic_layers_
        p_r = position(read[layer_r], means["harmful"][layer_r], means["refused"][layer_r])
        p_c = position(read[layer_c], means["harmful"][layer_c], means["harmless"][layer_c])
        broken = (~(p_r.isfinite() & p_c.isfinite())).nonzero().flatten().tolist()
        if broken:
            raise ValueError(
                f"the readings of rows {broken} of the batch are not finite: the states overflowed or are broken, and "
                "such a prompt must not pass as safe; load the model in bfloat16 or float32"
            )
        return self.rejection_line_(p_r), self.compliance_line_(p_c), p_r

    def steering(self, mllm: MLLM, encoded: Encoded) -> PrefillShift:
        """Edits for one batch; reads it in a pass of its own first."""
        rejection, compliance, p = self.strengths(mllm, encoded)
        moves = ((rejection != 0) | (compliance != 0)).unsqueeze(1)

        def shift(push: Tensor, pull: Tensor, seen: Tensor) -> Step:
            vector = torch.outer(rejection, push.to(p.device)) + torch.outer(compliance, pull.to(p.device))
            return Step(*(part.to(seen.device) for part in (vector.unsqueeze(1), p.unsqueeze(1), moves)))

        directions = enumerate(zip(self.v_rd, self.v_hd, strict=True))
        shifts = {layer: partial(shift, push, pull) for layer, (push, pull) in directions}
        return PrefillShift(shifts, positions="last_to_all")

    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        """Answer one encoded batch; the pass that reads it is counted."""
        start = time.perf_counter()
        steering = self.steering(mllm, encoded)
        reading = (time.perf_counter() - start) / len(encoded.prompts)
        responses = generate(mllm, encoded, settings=settings, steering=steering)
        return [
            replace(
                response,
                model_calls=response.model_calls + 1,
                prompt_tokens=response.prompt_tokens + length,
                seconds=response.seconds + reading,
            )
            for response, length in zip(responses, encoded.lengths, strict=True)
        ]

    def _respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[Response]:
        """Answer any number of prompts, in their order."""
        self._check_model(mllm)
        found: dict[int, Response] = {}
        with tqdm(total=len(prompts), desc="answers", disable=not progress) as bar:
            for rows, encoded in batches(mllm, prompts, batch_size=settings.batch_size):
                found.update(zip(rows, self.answer(mllm, encoded, settings=settings), strict=True))
                bar.update(len(rows))
        return [found[index] for index in range(len(prompts))]

    @property
    def v_rd(self) -> Float[Tensor, "layers dim"]:
        """v_RD."""
        self._check_fitted()
        return self.means_["refused"] - self.means_["harmful"]

    @property
    def v_hd(self) -> Float[Tensor, "layers dim"]:
        """v_HD, what of it lies along v_RD."""
        return along(self.means_["harmless"] - self.means_["harmful"], self.v_rd)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given."""
        return {
            "rejection": None if self.rejection is None else asdict(self.rejection),
            "compliance": None if self.compliance is None else asdict(self.compliance),
            "logic_layers": None if self.logic_layers is None else list(self.logic_layers),
            "rejection_strengths": list(self.rejection_strengths),
            "compliance_strengths": list(self.compliance_strengths),
            "fewest": self.fewest,
        }

    def _classes(
        self,
        mllm: MLLM,
        unsafe: Sequence[Prompt],
        safe: Sequence[Prompt],
        *,
        part: str,
        settings: GenerationSettings,
        judge: Judge,
        answers: OwnAnswers,
        progress: bool,
    ) -> dict[str, list[Prompt]]:
        if len(unsafe) < 2 * self.fewest or len(safe) < self.fewest:
            raise ValueError(
                f"{len(unsafe)} unsafe and {len(safe)} safe {part} texts were given; with fewest={self.fewest} at least "
                f"{2 * self.fewest} and {self.fewest} are needed: give more, or lower fewest"
            )
        found: dict[str, list[Prompt]] = {name: [] for name in CLASSES}
        prompts = [*unsafe, *safe]
        said = answers(mllm, prompts, settings=settings, progress=progress)
        for prompt, answer in zip(prompts, said, strict=True):
            refused = verdict(judge, prompt, answer).refused
            if prompt.harmful:
                found["refused" if refused else "harmful"].append(prompt)
            elif not refused:
                found["harmless"].append(prompt)
        counts = {name: len(members) for name, members in found.items()}
        if min(counts.values()) < self.fewest:
            raise ValueError(
                f"of the {part} texts {mllm.name} refuses {counts['refused']} unsafe ones, answers {counts['harmful']} "
                f"unsafe and {counts['harmless']} safe ones; at least {self.fewest} of each are needed. Give more, and "
                "among the unsafe ones some that get through (jailbreaks) and some that do not"
            )
        return found

    def _best(
        self,
        mllm: MLLM,
        texts: TextSets,
        with_strengths: Callable[[tuple[float, float]], AdaSteer],
        *,
        settings: GenerationSettings,
        judge: Judge,
        progress: bool,
    ) -> AdaSteer:
        """The strengths with the most right answers to held-out prompts, each side counting half; of equals the least."""
        grid = sorted(
            itertools.product(
                (0.0,) if self.rejection else self.rejection_strengths,
                (0.0,) if self.compliance else self.compliance_strengths,
            )
        )
        candidates: list[AdaSteer] = [with_strengths(pair) for pair in grid]
        if len(candidates) == 1:
            return candidates[0]

        def share(defence: AdaSteer, prompts: Sequence[Prompt]) -> float:
            responses = defence.respond(mllm, prompts, settings=settings)
            right = [
                verdict(judge, p, r.text).refused == p.harmful
                for p, r in zip(prompts, responses, strict=True)
            ]
            return sum(right) / len(right)

        scores = [
            share(defence, texts.validation_unsafe) + share(defence, texts.validation_safe)
            for defence in tqdm(candidates, desc="strengths", disable=not progress)
        ]
        return candidates[scores.index(max(scores))]

    def _check_layers(self, fitted_on: FittedOn) -> None:
        for layer in self.logic_layers or ():
            if not 0 <= layer < fitted_on.layers:
                raise ValueError(
                    f"logic layer {layer} does not exist; {fitted_on.name} has layers 0…{fitted_on.layers - 1}"
                )

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.means_)

    def _values(self) -> dict[str, Any]:
        lines = [asdict(self.rejection_line_), asdict(self.compliance_line_)]
        return {"lines": lines, "layers": list(self.logic_layers_)}

    def _answers_depend_on(self) -> dict[str, Any]:
        return self._values()

    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.means_ = {name: tensors[name] for name in CLASSES}
        fitted = [ClippedLine(**line) for line in values["lines"]]
        self.rejection_line_ = self.rejection or fitted[0]
        self.compliance_line_ = self.compliance or fitted[1]
        first, second = self.logic_layers or values["layers"]
        self.logic_layers_ = (int(first), int(second))


def _line(given: ClippedLine | Mapping[str, float] | None, *, name: str) -> ClippedLine | None:
    remedy = "ClippedLine(slope=…, offset=…, low=…, high=…), or None to fit it"
    check_given(given, (ClippedLine, Mapping, NoneType), name=name, remedy=remedy)
    if not isinstance(given, Mapping):
        return given
    if set(given) != (wanted := {entry.name for entry in fields(ClippedLine)}):
        raise ValueError(f"{name} has {sorted(map(str, given))}, a line has {sorted(wanted)}; give {remedy}")
    return ClippedLine(**given)
