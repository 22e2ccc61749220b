"""MARS: the refusal direction of texts, carried to pictures and clips by re-centring.

    h_c = h − μ(modality)             μ: mean state of neutral pictures, of neutral clips, of the texts
    h̄   = h + r d̂  if ⟨h_c, d̂⟩ > 0     r: distance of h_c to the nearest of the texts' two centroids,
          h        otherwise               themselves centred (trust_region.py; the sign is the gate)

The prompt's last token decides, and its step is added to every token of the prompt.
One layer, chosen on texts (layer_scores.py), one pass: the prefill. Nothing is trained, no unsafe picture is seen,
and an answer costs no further forward pass. What the paper leaves open is named in mars_readings.py.

Source: MARS (arXiv 2606.31876) §3–4.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from jaxtyping import Float
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.arguments import check_flags, check_given, check_names, check_whole
from autosteer_lib.defences.base import SteeringDefence
from autosteer_lib.defences.prefill_shift import PrefillShift
from autosteer_lib.directions import TextCentroids
from autosteer_lib.encoding import Encoded, check_prompts
from autosteer_lib.fitted_state import FittedOn, load_state, restoring, save_state, state_hash
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Judge
from autosteer_lib.layer_scores import (
    SCORES,
    LayerScores,
    Score,
    layer_scores,
    scores_without,
    steering_candidates,
)
from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import OwnAnswers, ask_anew
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post
from autosteer_lib.tensor_cache import check_cache
from autosteer_lib.text_sets import FEWEST, TextSets, check_fit, keep_by_behaviour
from autosteer_lib.trust_region import Step, trust_region_step

KIND = "MARS"


class Mars(SteeringDefence):
    """Fitted values end in an underscore: `layer_`, `scores_`, `centroids_`, `neutral_`."""

    name = "MARS"

    def __init__(
        self,
        *,
        reading: MarsReading | None = None,
        layer: int | None = None,
        recentre: bool = True,
        rectified: bool = True,
        every_layer: bool = False,
        without: Sequence[Score] = (),
        fewest: int = FEWEST,
    ) -> None:
        """Hyper-parameters; all but the first two and the last are the paper's ablations (Table 8).

        Args:
            reading: what the paper leaves open.
            layer: the block whose output is steered; None lets the scores choose.
            recentre: False leaves states and centroids where they are.
            rectified: False steps backwards where the projection is negative.
            every_layer: True steers each layer by its own direction and centres.
            without: scores left out of the layer's choice.
            fewest: texts that must be left on each side of the filter.

        Raises:
            ValueError: `without` names no score or all of them, or `fewest` is below 1.
        """
        check_whole(fewest=fewest, **({} if layer is None else {"layer": layer}))
        check_flags(recentre=recentre, rectified=rectified, every_layer=every_layer)
        check_given(without, Sequence, name="without", remedy="a list of scores, as in ['margin']")
        check_given(
            reading, (MarsReading, NoneType), name="reading", remedy="MarsReading(…), or leave it out"
        )
        scores_without(without)
        if fewest < 1:
            raise ValueError(f"fewest = {fewest}; a mean needs at least 1 text on each side")
        self.reading = MarsReading() if reading is None else reading
        self.layer, self.recentre, self.rectified = layer, recentre, rectified
        self.every_layer, self.without, self.fewest = every_layer, tuple(without), fewest

    def fit(
        self,
        mllm: MLLM,
        texts: TextSets,
        *,
        pictures: Sequence[Prompt],
        clips: Sequence[Prompt] = (),
        settings: GenerationSettings | None = None,
        judge: Judge | None = None,
        answers: OwnAnswers = ask_anew,
        cache: Path | None = None,
        progress: bool = False,
    ) -> Mars:
        """Find direction, centres and layer; the model itself stays as it is.

        Args:
            mllm: the model to defend.
            texts: unsafe and safe, for the direction and for validation.
            pictures: prompts with neutral pictures (`neutral_pictures`; the paper takes 128).
            clips: prompts with neutral clips; needed to defend prompts with clips, unless the reading says
                otherwise.
            settings: of the answers that the texts are filtered by, and the batch.
            judge: what counts as a refusal there; `RefusalPhrases()` if left out.
            answers: the undefended model's, where they are kept; asked anew if left out.
            cache: folder in which states are kept.
            progress: show bars.

        Raises:
            ValueError: a layer that does not exist, neutral prompts of another kind, or too few texts left by the
                filter (the message has the counts).
        """
        settings = check_fit(mllm, texts, settings=settings, judge=judge)
        _check_layer(self.layer, FittedOn.of(mllm))
        neutral = {
            "image": check_prompts(mllm, pictures, name="pictures"),
            "video": check_prompts(mllm, clips, name="clips"),
        }
        for modality, prompts in neutral.items():
            _check_neutral(prompts, modality)
        check_cache(cache)
        refused, accepted = keep_by_behaviour(
            mllm,
            texts,
            settings=settings,
            judge=judge,
            fewest=self.fewest,
            answers=answers,
            progress=progress,
        )

        def states(prompts: Sequence[Prompt]) -> Tensor:
            sites = [resid_post(layer) for layer in range(mllm.layers)]
            size = settings.batch_size
            return collect(mllm, prompts, sites=sites, batch_size=size, cache=cache, progress=progress)

        centroids = TextCentroids.of(states(refused), states(accepted))
        scores = layer_scores(
            centroids,
            unsafe=states(texts.validation_unsafe),
            safe=states(texts.validation_safe),
            separability=self.reading.separability,
        )
        centres = {m: states(prompts).double().mean(0).float() for m, prompts in neutral.items() if prompts}
        return self._adopt(centroids=centroids, scores=scores, neutral=centres, fitted_on=FittedOn.of(mllm))

    def steering(self, mllm: MLLM, encoded: Encoded) -> PrefillShift:
        """Edits for this batch."""
        self._check_fitted()
        self.fitted_on_.check(mllm)
        layers = range(mllm.layers) if self.every_layer else (self.layer_,)
        shifts = {
            layer: partial(self._step, layer, self.centres(encoded.prompts, layer=layer)) for layer in layers
        }
        return PrefillShift(shifts, positions=self.reading.positions)

    def retuned(self, **changes: Any) -> Mars:
        """The same fit with other hyper-parameters; nothing is computed again.

        Raises:
            TypeError: no hyper-parameter of this defence.
            ValueError: a layer that does not exist, or another reading of `separability`, which the fit has used
                already.
        """
        self._check_fitted()
        check_names(changes, self._hyperparameters(), of=KIND)
        other = type(self)(**{**self._hyperparameters(), **changes})
        if other.reading.separability != self.reading.separability:
            raise ValueError(
                f"separability={other.reading.separability!r} needs a fit of its own: the scores at hand were "
                f"computed with {self.reading.separability!r}"
            )
        return other._adopt(
            centroids=self.centroids_, scores=self.scores_, neutral=self.neutral_, fitted_on=self.fitted_on_
        )

    def recentred_on(self, neutral: Mapping[str, Float[Tensor, "layers dim"]]) -> Mars:
        """The same fit with other centres ("image", and "video" for clips), to study how much they matter.

        Raises:
            ValueError: no "image", another key, or centres of other layers or width.
        """
        self._check_fitted()
        shapes, expected = {m: list(c.shape) for m, c in neutral.items()}, list(self._direction.shape)
        if (
            "image" not in shapes
            or not set(shapes) <= {"image", "video"}
            or any(shape != expected for shape in shapes.values())
        ):
            raise ValueError(
                f'centres {shapes} were given; allowed are "image", and "video" if there are clips, each '
                f"[layers, dim] = {expected}"
            )
        other = copy.copy(self)
        return other._adopt(
            centroids=self.centroids_, scores=self.scores_, neutral=dict(neutral), fitted_on=self.fitted_on_
        )

    @property
    def direction(self) -> Float[Tensor, "layers dim"]:
        """d̂ of every layer; 0 where there is none."""
        self._check_fitted()
        return self._direction

    def centres(self, prompts: Sequence[Prompt], *, layer: int) -> Float[Tensor, "prompts dim"]:
        """μ of each prompt at a layer, by what there is to see in it; zero without re-centring.

        Raises:
            ValueError: a prompt with a clip, where the fit had no neutral clips.
        """
        self._check_fitted()
        if not self.recentre:
            return torch.zeros(len(prompts), self.fitted_on_.dim)
        return torch.stack([self._centre_of(prompt.modality)[layer] for prompt in prompts])

    @property
    def candidates(self) -> tuple[int, ...]:
        """Layers that the scores may choose from: the reading's, where there is a direction."""
        self._check_fitted()
        within = steering_candidates(self.fitted_on_.layers, rule=self.reading.candidates)
        return tuple(layer for layer in within if self._direction[layer].any())

    @property
    def fingerprint(self) -> str:
        """Hash of all that an answer depends on."""
        self._check_fitted()
        settings = {
            "defence": KIND,
            "layer": self.layer_,
            "recentre": self.recentre,
            "rectified": self.rectified,
            "every_layer": self.every_layer,
            "text_centre": self.reading.text_centre,
            "text_inputs": self.reading.text_inputs,
            "video_centre": self.reading.video_centre,
            "positions": self.reading.positions,
            "fitted_on": self.fitted_on_.facts(),
            "parts": self._parts_hash,
        }
        return state_hash({}, settings)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted defence; `load` reads it back."""
        self._check_fitted()
        stored = self._hyperparameters()
        settings = {
            **stored,
            "reading": asdict(self.reading),
            "without": list(self.without),
            "refusals": self.centroids_.refusals,
            "acceptances": self.centroids_.acceptances,
        }
        return save_state(
            folder, kind=KIND, tensors=self._tensors(), settings=settings, fitted_on=self.fitted_on_
        )

    @classmethod
    def load(cls, folder: str | Path, mllm: MLLM) -> Mars:
        """Read a fitted defence for the model it was fitted on."""
        state = load_state(folder, mllm, kind=KIND)
        with restoring(folder):
            stored, tensors = dict(state.settings), state.tensors
            refusals, acceptances = stored.pop("refusals"), stored.pop("acceptances")
            defence = cls(**{**stored, "reading": MarsReading(**stored["reading"])})
            return defence._adopt(
                centroids=TextCentroids(
                    refused=tensors["refused"],
                    accepted=tensors["accepted"],
                    pooled=tensors["pooled"],
                    refusals=refusals,
                    acceptances=acceptances,
                ),
                scores=LayerScores(**{name: tensors[name] for name in SCORES}),
                neutral={
                    name.removeprefix("neutral."): tensor
                    for name, tensor in tensors.items()
                    if name.startswith("neutral.")
                },
                fitted_on=state.fitted_on,
            )

    def _step(
        self, layer: int, centre: Float[Tensor, "batch dim"], hidden: Float[Tensor, "batch tokens dim"]
    ) -> Step:
        centre, direction, refused, accepted, pooled = (
            tensor.to(hidden.device)
            for tensor in (centre, self._direction[layer], *(t[layer] for t in self._text_states()))
        )
        of_texts = {"pooled": pooled, "neutral": centre, "none": torch.zeros_like(pooled)}
        text_centre = of_texts[self.reading.text_centre if self.recentre else "none"]
        return trust_region_step(
            hidden - centre.unsqueeze(1),
            direction=direction,
            refused=refused - text_centre,
            accepted=accepted - text_centre,
            rectified=self.rectified,
        )

    def _centre_of(self, modality: str) -> Float[Tensor, "layers dim"]:
        if modality == "text" and self.reading.text_inputs == "pooled":
            return self.centroids_.pooled
        if modality == "video" and self.reading.video_centre == "clips":
            if "video" not in self.neutral_:
                raise ValueError(
                    "this MARS was fitted without neutral clips and the batch holds clips; fit it with "
                    "clips=neutral_clips(…), or with MarsReading(video_centre='pictures')"
                )
            return self.neutral_["video"]
        return self.neutral_["image"]

    def _text_states(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.centroids_.refused, self.centroids_.accepted, self.centroids_.pooled

    def _adopt(
        self,
        *,
        centroids: TextCentroids,
        scores: LayerScores,
        neutral: dict[str, Tensor],
        fitted_on: FittedOn,
    ) -> Mars:
        _check_layer(self.layer, fitted_on)
        self.centroids_, self.scores_, self.neutral_, self.fitted_on_ = centroids, scores, neutral, fitted_on
        self._direction = centroids.direction
        self.layer_: int = (
            scores.select(self.candidates, scaling=self.reading.scaling, without=self.without)
            if self.layer is None
            else self.layer
        )
        if not self._direction[self.layer_].any():
            raise ValueError(
                f"there is no refusal direction at layer {self.layer_}: refused and accepted texts have one mean state "
                "there; pick another layer, or leave layer=None to let the scores choose"
            )
        self._parts_hash = state_hash(self._tensors(), {})
        return self

    def _tensors(self) -> dict[str, Tensor]:
        parts = {"refused": self.centroids_.refused, "accepted": self.centroids_.accepted}
        scores: dict[str, Tensor] = {name: getattr(self.scores_, name) for name in SCORES}
        neutral = {f"neutral.{modality}": centre for modality, centre in self.neutral_.items()}
        return {**parts, "pooled": self.centroids_.pooled, **scores, **neutral}

    def _hyperparameters(self) -> dict[str, Any]:
        names = ("reading", "layer", "recentre", "rectified", "every_layer", "without", "fewest")
        return {name: getattr(self, name) for name in names}

    def _check_fitted(self) -> None:
        if not hasattr(self, "fitted_on_"):
            raise NotFittedError("this MARS is not fitted; call fit(mllm, texts, pictures=…), or Mars.load")


def _check_layer(layer: int | None, fitted_on: FittedOn) -> None:
    if layer is not None and not 0 <= layer < fitted_on.layers:
        raise ValueError(
            f"layer {layer} does not exist; {fitted_on.name} has layers 0…{fitted_on.layers - 1}; pick one of them, "
            "or leave layer=None to let the scores choose"
        )


def _check_neutral(prompts: Sequence[Prompt], modality: str) -> None:
    name = {"image": "pictures", "video": "clips"}[modality]
    if modality == "image" and not prompts:
        raise ValueError("pictures is empty; give neutral ones: neutral_pictures(128, words=…, side=…)")
    for prompt in prompts:
        if prompt.modality != modality:
            raise ValueError(
                f"{name} holds prompt {prompt.id!r} of modality {prompt.modality!r}; give neutral {name} only "
                f"(neutral_{name})"
            )
