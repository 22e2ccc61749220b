"""SafeSteer: choose the first tokens of an answer by what a probe of the last layer says they lead to.

    s₀ = probe(h₀)                      h₀: the prompt's last token; harmful where σ(s₀) > threshold
    h̄₀ = h₀ + α μ                       there, so that a picture's harm looks like a text's (modal_alignment.py)
    x_t = best of ± probe(hᵏ)           hᵏ: the state that the k-th of the K likeliest tokens leads to; for the first
                                        `step` tokens (reranking.py, look_ahead.py)

The model stays as it is: five numbers are fitted, four directions and two centroids. A harmless prompt is answered
by the plain model; an answer under re-ranking costs `step` wider passes and no further one. What the paper leaves
open is named in safesteer_readings.py. Which sign of the score steers towards refusals the fit finds out by itself,
on attacks that it keeps back (`check_`).

Source: SafeSteer (arXiv 2605.11716) §4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
from autosteer_lib.arguments import check_flags, check_given, check_names, check_numbers, check_whole
from autosteer_lib.decoding_probe import DecodingProbe, check_sides
from autosteer_lib.defences.base import SteeringDefence
from autosteer_lib.defences.reranking import Reranking
from autosteer_lib.defences.sign_check import HeldOutCheck, check_sign
from autosteer_lib.encoding import Encoded
from autosteer_lib.fitted_state import FittedOn, load_state, restoring, save_state, state_hash
from autosteer_lib.generation import GenerationSettings, check_call
from autosteer_lib.judges import Judge, RefusalPhrases, check_judge
from autosteer_lib.modal_alignment import ModalAlignment
from autosteer_lib.models import MLLM
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.prompts import Prompt
from autosteer_lib.safesteer_readings import SafeSteerReading
from autosteer_lib.sites import Site, final_norm, resid_post
from autosteer_lib.tensor_cache import check_cache

KIND = "SafeSteer"
CANDIDATES = 5  # K: the paper's sweep begins here and finds small K best; it does not say which it took
STEPS = 5  # likewise; "larger step gives no clear gain"
THRESHOLD = 0.5  # not stated; the probe's own boundary
_HYPERPARAMETERS = ("k", "step", "threshold", "rerank", "align", "reading", "held_out", "seed")


class SafeSteer(SteeringDefence):
    """Fitted values end in an underscore: `probe_`, `alignment_`, `check_`."""

    name = "SafeSteer"

    def __init__(
        self,
        *,
        k: int = CANDIDATES,
        step: int = STEPS,
        threshold: float = THRESHOLD,
        rerank: bool = True,
        align: bool = True,
        reading: SafeSteerReading | None = None,
        held_out: float = 0.2,
        seed: int = 0,
    ) -> None:
        """Hyper-parameters.

        Args:
            k: candidates for each token; 1 leaves no choice.
            step: how many of the answer's first tokens are re-ranked.
            threshold: of σ(s₀), in [0, 1].
            rerank: False is the ablation without the probe's choice; the probe still judges the prompt.
            align: False is the ablation without the alignment vector.
            reading: what the paper leaves open.
            held_out: share of each kind of prompt that is kept back for `check_`.
            seed: of that split, of the solver "rds" and of drawn candidates.

        Raises:
            ValueError: a value outside its range, or neither part asked for.
        """
        check_whole(k=k, step=step, seed=seed)
        check_numbers(threshold=threshold, held_out=held_out)
        check_flags(rerank=rerank, align=align)
        remedy = "SafeSteerReading(…), or leave it out"
        check_given(reading, (SafeSteerReading, NoneType), name="reading", remedy=remedy)
        if k < 1:
            raise ValueError(f"k = {k} candidates; give at least 1 (the paper tries 5 to 20)")
        if step < 1:
            raise ValueError(
                f"step = {step} re-ranks no token; give at least 1, or rerank=False for SafeSteer without re-ranking"
            )
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold = {threshold} is outside [0, 1]; it is compared with a probability")
        if not rerank and not align:
            raise ValueError(
                "rerank=False and align=False leave nothing of SafeSteer; take Undefended for the plain model"
            )
        if not 0 < held_out < 1:
            raise ValueError(f"held_out = {held_out} must be a share between 0 and 1, for example 0.2")
        self.reading = SafeSteerReading() if reading is None else reading
        self.k, self.step, self.threshold = k, step, threshold
        self.rerank, self.align, self.held_out, self.seed = rerank, align, held_out, seed

    def fit(
        self,
        mllm: MLLM,
        sets: ProbeSets,
        *,
        settings: GenerationSettings | None = None,
        judge: Judge | None = None,
        cache: Path | None = None,
        progress: bool = False,
    ) -> SafeSteer:
        """Fit the probe, find the centroids and check the sign; the model itself stays as it is.

        Args:
            mllm: the model to defend.
            sets: attacks of all kinds and harmless prompts, a share of which is kept back.
            settings: of the answers that the sign is checked by, and the batch.
            judge: what counts as a refusal there; `RefusalPhrases()` if left out.
            cache: folder in which states are kept.
            progress: show bars.

        Raises:
            TypeError: a model, sets, settings or judge that are none.
            ValueError: one class is missing or too small, no attacks in pictures or in words where the alignment
                vector needs both, or a model that cannot be re-ranked; before the model runs.
        """
        settings = GenerationSettings() if settings is None else settings
        check_given(
            sets, ProbeSets, name="sets", remedy="ProbeSets(harmless=…, image_attacks=…, text_attacks=…)"
        )
        for side in (sets.attacks, sets.harmless):
            check_call(mllm, side, settings=settings)
        judge = RefusalPhrases() if judge is None else judge
        check_judge(judge, in_batches=False)
        check_cache(cache)
        for name, prompts in (("image_attacks", sets.image_attacks), ("text_attacks", sets.text_attacks)):
            if self.align and not prompts:
                raise ValueError(
                    f"{name} is empty, and the alignment vector leads from attacks in pictures to attacks in words; "
                    "give some of both, or SafeSteer(align=False)"
                )
        check_sides(len(sets.attacks), len(sets.harmless))
        train, kept_back = sets.split(held_out=self.held_out, seed=self.seed)
        check_sides(len(train.attacks), len(train.harmless))
        self._check_decoding(mllm)

        def states(prompts: Sequence[Prompt]) -> Tensor:
            if not prompts:
                return torch.empty(0, mllm.dim)
            found = collect(
                mllm,
                prompts,
                sites=[self._site(mllm.layers)],
                batch_size=settings.batch_size,
                cache=cache,
                progress=progress,
            )
            return found[:, 0]

        images, texts, others = map(states, (train.image_attacks, train.text_attacks, train.other_attacks))
        probe = DecodingProbe(solver=self.reading.solver, seed=self.seed)
        probe.fit(torch.cat((images, texts, others)), states(train.harmless))
        alignment = ModalAlignment.of(images, texts) if len(images) and len(texts) else None
        check = check_sign(
            mllm,
            probe,
            attacks=kept_back.attacks,
            harmless=kept_back.harmless,
            site=self._site(mllm.layers),
            threshold=self.threshold,
            k=self.k,
            steps=self.step,
            settings=settings,
            judge=judge,
            progress=progress,
        )
        return self._adopt(probe=probe, alignment=alignment, check=check, fitted_on=FittedOn.of(mllm))

    def steering(self, mllm: MLLM, encoded: Encoded) -> Reranking:
        """Edits and choice of tokens for this batch."""
        self._check_fitted()
        self.fitted_on_.check(mllm)
        self._check_decoding(mllm)
        reading, alignment = self.reading, self.alignment_
        shift = None
        if self.align:
            assert alignment is not None  # _adopt
            shift = partial(alignment.shift, direction=reading.direction, scale=reading.scale)
        return Reranking(
            self.probe_.to(mllm.device),
            site=self._site(mllm.layers),
            threshold=self.threshold,
            shift=shift,
            k=self.k,
            steps=self.step if self.rerank else 0,
            sign=self.sign_,
            gated=reading.gate == "prefill",
            noise=self._noise(encoded.prompts) if reading.choice == "drawn" else None,
        )

    def score(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, batch_size: int = 32, cache: Path | None = None
    ) -> Float[Tensor, " prompts"]:
        """σ(s₀) of each prompt, which the threshold is compared with, without writing an answer."""
        self._check_fitted()
        self.fitted_on_.check(mllm)
        sites = [self._site(mllm.layers)]
        states = collect(mllm, prompts, sites=sites, batch_size=batch_size, cache=cache)
        return self.probe_.score(states[:, 0]).sigmoid()

    def retuned(self, **changes: Any) -> SafeSteer:
        """The same fit with other hyper-parameters; nothing is computed again, the check of the sign neither.

        Raises:
            TypeError: no hyper-parameter of this defence.
            ValueError: a change of norm, solver or held_out, which the fit has used already, or an alignment vector
                where the fit had no attacks of both kinds.
        """
        self._check_fitted()
        check_names(changes, self._hyperparameters(), of=KIND)
        other = type(self)(**{**self._hyperparameters(), **changes})
        used = {
            "norm": (self.reading.norm, other.reading.norm),
            "solver": (self.reading.solver, other.reading.solver),
            "held_out": (self.held_out, other.held_out),
        }
        for name, (mine, asked) in used.items():
            if mine != asked:
                raise ValueError(
                    f"{name} = {asked!r} needs a fit of its own: this one was made with {mine!r}"
                )
        return other._adopt(
            probe=self.probe_, alignment=self.alignment_, check=self.check_, fitted_on=self.fitted_on_
        )

    @property
    def sign_(self) -> int:
        """1 where candidates with high scores win, −1 where those with low ones do."""
        self._check_fitted()
        return {"high": 1, "low": -1, "held_out": self.check_.sign}[self.reading.sign]

    @property
    def fingerprint(self) -> str:
        """Hash of all that an answer depends on."""
        self._check_fitted()
        drawn = self.reading.choice == "drawn"
        settings = {
            "defence": KIND,
            "reranked": [self.k, self.step, self.sign_, self.reading.gate] if self.rerank else None,
            "drawn": self.seed if drawn and self.rerank else None,
            "aligned": [self.reading.direction, self.reading.scale] if self.align else None,
            "threshold": self.threshold,
            "norm": self.reading.norm,
            "fitted_on": self.fitted_on_.facts(),
            "parts": self._parts_hash,
        }
        return state_hash({}, settings)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted defence; `load` reads it back."""
        self._check_fitted()
        settings = {
            "hyperparameters": {**self._hyperparameters(), "reading": asdict(self.reading)},
            "probe": {**self.probe_.hyperparameters, "losses": list(self.probe_.losses_)},
            "check": asdict(self.check_),
        }
        return save_state(
            folder, kind=KIND, tensors=self._tensors(), settings=settings, fitted_on=self.fitted_on_
        )

    @classmethod
    def load(cls, folder: str | Path, mllm: MLLM) -> SafeSteer:
        """Read a fitted defence for the model it was fitted on."""
        state = load_state(folder, mllm, kind=KIND)
        with restoring(folder):
            stored, tensors = state.settings, state.tensors
            hyper = stored["hyperparameters"]
            defence = cls(**{**hyper, "reading": SafeSteerReading(**hyper["reading"])})
            parts: dict[str, dict[str, Tensor]] = {"probe": {}, "alignment": {}}
            for name, tensor in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = tensor
            return defence._adopt(
                probe=DecodingProbe.from_tensors(parts["probe"], **stored["probe"]),
                alignment=ModalAlignment(**parts["alignment"]) if parts["alignment"] else None,
                check=HeldOutCheck(**stored["check"]),
                fitted_on=state.fitted_on,
            )

    def _site(self, layers: int) -> Site:
        return final_norm() if self.reading.norm == "post" else resid_post(layers - 1)

    def _noise(self, prompts: Sequence[Prompt]) -> Float[Tensor, "batch steps k"]:
        """Gumbel noise: the best of scores + noise is a draw from softmax(scores).

        From a stream of each prompt's own, so that its draws do not depend on its batch or on the device.
        """
        noise = []
        for prompt in prompts:
            digest = hashlib.sha256(f"{self.seed} {prompt.fingerprint}".encode()).digest()
            stream = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            noise.append(-torch.empty(self.step, self.k).exponential_(generator=stream).log())
        return torch.stack(noise)

    def _check_decoding(self, mllm: MLLM) -> None:
        vocabulary = mllm.unembedding.shape[0]
        if self.k > vocabulary:
            raise ValueError(
                f"k = {self.k} candidates and {mllm.name} has {vocabulary} tokens; give 1 to {vocabulary} (the paper "
                "tries 5 to 20)"
            )
        model = mllm.model
        if model.generation_config.use_cache is False or not model._supports_default_dynamic_cache():
            raise ValueError(
                f"{mllm.name} of the family {mllm.family} generates without a cache of keys and values, on which "
                "candidates are run; set model.generation_config.use_cache = True, or take a family that has one"
            )

    def _adopt(
        self,
        *,
        probe: DecodingProbe,
        alignment: ModalAlignment | None,
        check: HeldOutCheck,
        fitted_on: FittedOn,
    ) -> SafeSteer:
        if self.align and alignment is None:
            raise ValueError(
                "this SafeSteer was fitted without attacks in pictures or in words, so it has no alignment vector; fit "
                "it with both kinds, or leave align=False"
            )
        self.probe_, self.alignment_, self.check_, self.fitted_on_ = probe, alignment, check, fitted_on
        self._parts_hash = state_hash(self._tensors(), {})
        return self

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"probe.{name}": tensor for name, tensor in self.probe_.tensors.items()}
        if self.alignment_ is not None:
            tensors["alignment.image_centroid"] = self.alignment_.image_centroid
            tensors["alignment.text_centroid"] = self.alignment_.text_centroid
        return tensors

    def _hyperparameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _HYPERPARAMETERS}

    def _check_fitted(self) -> None:
        if not hasattr(self, "fitted_on_"):
            raise NotFittedError("this SafeSteer is not fitted; call fit(mllm, sets), or SafeSteer.load")
