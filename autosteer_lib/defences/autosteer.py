"""AutoSteer: probe the prompt, and steer the answer only if the prompt is toxic.

    s    = prober(h_L(last prompt token))         L = argmax_l SAS(l), h_L the input of decoder block L
    α    = 1 if s ≥ τ else 0                      once for each prompt, in its prefill
    h_t' = h_t + ε α h_t Sᵀ                       after the final norm, for every token of the answer

Three parts, fitted one after the other on a frozen model: the layer (`sas`), the prober (`probers`),
the Refusal Head (`refusal_head`). The gate is binary: ε is never scaled by s. A row whose gate stays
shut gets the plain model's answer, and a batch without an open gate decodes without hooks
(`gated_steering`).

Source: AutoSteer (arXiv 2507.13255) §3; where its code differs, `readings.Reading` chooses.
"""

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

from autosteer_lib.activations import answer_states, collect
from autosteer_lib.arguments import check_given, check_numbers, check_whole
from autosteer_lib.defences.base import SteeringDefence
from autosteer_lib.defences.gated_steering import GatedSteering
from autosteer_lib.defences.steer import Steer, check_head
from autosteer_lib.encoding import Encoded, check_batch_size, check_prompts
from autosteer_lib.epoch_choice import Checkpoint, EpochRecord
from autosteer_lib.fitted_state import FittedOn, load_state, restoring, save_state, state_hash
from autosteer_lib.forced_answer import check_answer
from autosteer_lib.models import MLLM
from autosteer_lib.pairs import ContrastPairs, split_indices
from autosteer_lib.probers import SafetyProber
from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import Reading
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.sas import candidate_layers, safety_awareness_score, select_layer
from autosteer_lib.sites import resid_pre
from autosteer_lib.tensor_cache import check_cache

Split = tuple[list[int], list[int]]

KIND = "AutoSteer"
GATE_THRESHOLD = 0.5  # τ of AutoSteer §3.4


class AutoSteer(SteeringDefence):
    """The paper's defence. Fitted values end in an underscore: `layer_`, `sas_`, `prober_`, `head_`."""

    name = "AutoSteer"

    def __init__(
        self,
        *,
        epsilon: float = 0.1,
        threshold: float = GATE_THRESHOLD,
        layer: int | None = None,
        reading: Reading | None = None,
        prober: SafetyProber | None = None,
        head: RefusalHead | None = None,
        held_out: float = 0.1,
        seed: int = 0,
    ) -> None:
        """Hyper-parameters.

        Args:
            epsilon: ε of the answers (the head has its own, of training).
            threshold: τ, in [0, 1].
            layer: where to probe; None lets SAS choose.
            reading: which side of each difference between paper and code; the paper's if left out.
            prober: unfitted, to set width, epochs, …; what the reading decides must agree with it.
            head: unfitted, likewise.
            held_out: share of the pairs, and of the refusals, that choose the epochs; not used by
                a reading that fixes the epochs.
            seed: of these splits.
        """
        self.reading = Reading() if reading is None else reading
        check_numbers(epsilon=epsilon, threshold=threshold, held_out=held_out)
        check_whole(seed=seed, **({} if layer is None else {"layer": layer}))
        parts = {"reading": (reading, Reading), "prober": (prober, SafetyProber), "head": (head, RefusalHead)}
        for which, (given, kind) in parts.items():
            check_given(given, (kind, NoneType), name=which, remedy=f"{kind.__name__}(…), or leave it out")
        self.prober = prober or SafetyProber(
            output=self.reading.prober_output, checkpoint=self.reading.prober_checkpoint
        )
        self.head = head or RefusalHead(checkpoint=self.reading.head_checkpoint)
        self.epsilon, self.threshold = epsilon, threshold
        self.layer, self.held_out, self.seed = layer, held_out, seed
        _check_threshold(threshold)
        if not 0 < held_out < 1:
            raise ValueError(f"held_out = {held_out} must be a share between 0 and 1, for example 0.1")
        for owner, part, option, expected in (
            ("prober", self.prober, "output", self.reading.prober_output),
            ("prober", self.prober, "checkpoint", self.reading.prober_checkpoint),
            ("head", self.head, "checkpoint", self.reading.head_checkpoint),
        ):
            received = getattr(part, option)
            if received != expected:
                raise ValueError(
                    f"the {owner} has {option}={received!r} and the reading says {expected!r}; "
                    f"give both the same ({type(part).__name__}({option}=reading.{owner}_{option}))"
                )

    def fit(
        self,
        mllm: MLLM,
        pairs: ContrastPairs,
        *,
        refusal_prompts: Sequence[Prompt],
        refusal_text: str | None = None,
        batch_size: int = 32,
        cache: Path | None = None,
        progress: bool = False,
    ) -> "AutoSteer":
        """Select the layer, train the prober, train the head; the model itself stays as it is.

        Args:
            mllm: the model to defend.
            pairs: toxic prompts and their safe twins; all of them score the layers.
            refusal_prompts: what the head learns to refuse.
            refusal_text: the refusal; the reading's if left out.
            batch_size: prompts a forward pass.
            cache: folder in which states are kept.
            progress: show bars.

        Raises:
            TypeError, ValueError: what can be known to go wrong before the model runs.
        """
        # All that can be wrong with the input shows before the model runs.
        check_given(pairs, ContrastPairs, name="pairs", remedy="ContrastPairs(toxic, safe)")
        for side, prompts_of_side in (("pairs.toxic", pairs.toxic), ("pairs.safe", pairs.safe)):
            check_prompts(mllm, prompts_of_side, name=side)
        prompts = self.reading.head_prompts(check_prompts(mllm, refusal_prompts, name="refusal_prompts"))
        fewest = 2 if self.head.checkpoint == "held_out" else 1
        if len(prompts) < fewest:
            raise ValueError(
                f"refusal_prompts holds {len(prompts)} to train the head on; give {fewest} or more (pairs.toxic will do)"
            )
        refusal_text = self.reading.refusal_text if refusal_text is None else refusal_text
        check_answer(refusal_text, name="refusal_text")
        check_batch_size(batch_size)
        check_cache(cache)
        self._check_prompt_end(mllm)
        prober_split = self._split(len(pairs), checkpoint=self.prober.checkpoint)
        head_split = self._split(len(prompts), checkpoint=self.head.checkpoint)
        layers = candidate_layers(mllm.layers, rule=self.reading.candidate_layers)
        if self.layer is not None:
            if not 1 <= self.layer < mllm.layers:
                raise ValueError(
                    f"layer {self.layer} cannot be probed: {mllm.name} has layers 1…{mllm.layers - 1} for that (0 is the "
                    "embedding of one and the same template token); pick one of them, or leave layer=None to let SAS choose"
                )
            layers = tuple(sorted({*layers, self.layer}))
        sites = [resid_pre(layer) for layer in layers]
        toxic, safe = (
            collect(mllm, side, sites=sites, batch_size=batch_size, cache=cache, progress=progress)
            for side in (pairs.toxic, pairs.safe)
        )
        scores = safety_awareness_score(toxic, safe, layers=layers)
        layer = select_layer(scores, layers) if self.layer is None else self.layer
        column = layers.index(layer)
        prober = self._fit_prober(
            mllm, toxic[:, column], safe[:, column], split=prober_split, progress=progress
        )
        head = self._fit_head(
            mllm,
            prompts,
            split=head_split,
            refusal_text=refusal_text,
            batch_size=batch_size,
            cache=cache,
            progress=progress,
        )
        sas = dict(zip(layers, scores.tolist(), strict=True))
        return self._adopt(layer=layer, sas=sas, prober=prober, head=head, fitted_on=FittedOn.of(mllm))

    def steering(self, mllm: MLLM, encoded: Encoded) -> "GatedSteering":
        """Edits for one batch."""
        self._check_fitted()
        check_head(self.head_, mllm, fitted_on=self.fitted_on_)
        return GatedSteering(
            self.prober_,
            self.head_,
            layer=self.layer_,
            epsilon=self.epsilon,
            opens=partial(self.reading.opens, threshold=self.threshold),
        )

    def score(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, batch_size: int = 32, cache: Path | None = None
    ) -> Float[Tensor, " prompts"]:
        """What the gate would see for each prompt, without writing an answer (score distributions, sweeps over τ)."""
        self._check_fitted()
        self.fitted_on_.check(mllm)
        states = collect(mllm, prompts, sites=[resid_pre(self.layer_)], batch_size=batch_size, cache=cache)
        return self.prober_.score(states[:, 0].to(mllm.device)).cpu()

    def retuned(self, *, epsilon: float | None = None, threshold: float | None = None) -> "AutoSteer":
        """The same fitted parts at another strength or threshold, for sweeps; this defence stays as it is."""
        other = copy.copy(self)
        if epsilon is not None:
            check_numbers(epsilon=epsilon)
            other.epsilon = epsilon
        if threshold is not None:
            check_numbers(threshold=threshold)
            _check_threshold(threshold)
            other.threshold = threshold
        return other

    def always_on(self, *, epsilon: float | None = None) -> Steer:
        """The same head without the gate: the paper's Steer."""
        self._check_fitted()
        return Steer(
            self.head_, epsilon=self.epsilon if epsilon is None else epsilon, fitted_on=self.fitted_on_
        )

    @property
    def fingerprint(self) -> str:
        """Hash of all that an answer depends on: the parts, the layer, ε, τ, the comparison."""
        self._check_fitted()
        settings = {
            "defence": KIND,
            "epsilon": self.epsilon,
            "threshold": self.threshold,
            "gate_comparison": self.reading.gate_comparison,
            "layer": self.layer_,
            "fitted_on": self.fitted_on_.facts(),
            "parts": self._parts_hash,
        }
        return state_hash({}, settings)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted defence; `load` reads it back."""
        self._check_fitted()
        settings: dict[str, Any] = {
            "epsilon": self.epsilon,
            "threshold": self.threshold,
            "layer": self.layer,
            "held_out": self.held_out,
            "seed": self.seed,
            "reading": asdict(self.reading),
            "prober": _described(self.prober_),
            "head": _described(self.head_),
            "layer_": self.layer_,
            "sas_": [[layer, score] for layer, score in self.sas_.items()],
        }
        return save_state(
            folder, kind=KIND, tensors=self._tensors(), settings=settings, fitted_on=self.fitted_on_
        )

    @classmethod
    def load(cls, folder: str | Path, mllm: MLLM) -> "AutoSteer":
        """Read a fitted defence for the model it was fitted on."""
        state = load_state(folder, mllm, kind=KIND)
        with restoring(folder):
            stored, tensors = state.settings, state.tensors
            prober, head = stored["prober"], stored["head"]
            defence = cls(
                reading=Reading(**stored["reading"]),
                prober=SafetyProber(**prober["hyperparameters"]),
                head=RefusalHead(**head["hyperparameters"]),
                **{name: stored[name] for name in ("epsilon", "threshold", "layer", "held_out", "seed")},
            )
            return defence._adopt(
                layer=stored["layer_"],
                sas=dict(stored["sas_"]),
                prober=SafetyProber.from_tensors(_part(tensors, "prober."), **_restored(prober)),
                head=RefusalHead.from_matrix(_part(tensors, "head.")["matrix"], **_restored(head)),
                fitted_on=state.fitted_on,
            )

    def _split(self, rows: int, *, checkpoint: Checkpoint) -> Split | None:
        """(training rows, held-out rows), where an epoch is chosen; None where all rows train."""
        return (
            split_indices(rows, held_out=self.held_out, seed=self.seed) if checkpoint == "held_out" else None
        )

    def _fit_prober(
        self, mllm: MLLM, toxic: Tensor, safe: Tensor, *, split: Split | None, progress: bool
    ) -> SafetyProber:
        prober = SafetyProber(**self.prober.hyperparameters)
        if split is None:
            return prober.fit(toxic, safe, device=mllm.device, progress=progress)
        train, kept_back = split
        held_out = (toxic[kept_back], safe[kept_back])
        return prober.fit(toxic[train], safe[train], held_out=held_out, device=mllm.device, progress=progress)

    def _fit_head(
        self,
        mllm: MLLM,
        prompts: Sequence[Prompt],
        *,
        split: Split | None,
        refusal_text: str,
        batch_size: int,
        cache: Path | None,
        progress: bool,
    ) -> RefusalHead:
        head = RefusalHead(**self.head.hyperparameters)
        refusals = answer_states(
            mllm,
            prompts,
            answer=refusal_text,
            include_question=self.reading.head_supervision == "question_and_refusal",
            batch_size=batch_size,
            cache=cache,
            progress=progress,
        )
        states, targets, rows = refusals.states, refusals.targets, refusals.rows
        train, held_out = torch.ones_like(rows, dtype=torch.bool), None
        if split is not None:
            train = ~torch.isin(rows, torch.tensor(split[1]))
            held_out = (states[~train], targets[~train])
        return head.fit(
            states[train],
            targets[train],
            _weight(mllm, "weight"),
            rows=rows[train],
            bias=_weight(mllm, "bias") if getattr(mllm.lm_head, "bias", None) is not None else None,
            held_out=held_out,
            progress=progress,
        )

    def _adopt(
        self,
        *,
        layer: int,
        sas: Mapping[int, float],
        prober: SafetyProber,
        head: RefusalHead,
        fitted_on: FittedOn,
    ) -> "AutoSteer":
        self.layer_, self.sas_, self.prober_, self.head_ = layer, dict(sas), prober, head
        self.fitted_on_ = fitted_on
        self._parts_hash = state_hash(self._tensors(), {})
        return self

    def _tensors(self) -> dict[str, Tensor]:
        prober = {f"prober.{name}": tensor for name, tensor in self.prober_.tensors.items()}
        return {**prober, "head.matrix": self.head_.matrix}

    def _check_fitted(self) -> None:
        if not hasattr(self, "fitted_on_"):
            raise NotFittedError(
                "this AutoSteer is not fitted; call fit(mllm, pairs, refusal_prompts=…), or AutoSteer.load"
            )

    def _check_prompt_end(self, mllm: MLLM) -> None:
        if mllm.add_generation_prompt != self.reading.add_generation_prompt:
            raise ValueError(
                f"{mllm.name} is loaded with add_generation_prompt={mllm.add_generation_prompt} and the "
                f"reading probes prompts with {self.reading.add_generation_prompt}; "
                f"load(…, add_generation_prompt={self.reading.add_generation_prompt}), "
                "or change the reading"
            )


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"threshold = {threshold} is outside [0, 1]; it is compared with a probability (the paper uses 0.5)"
        )


def _weight(mllm: MLLM, name: str) -> Tensor:
    weight = getattr(mllm.lm_head, name)
    assert isinstance(weight, Tensor)
    return weight


def _described(part: SafetyProber | RefusalHead) -> dict[str, Any]:
    return {
        "hyperparameters": part.hyperparameters,
        "chosen_epoch": part.chosen_epoch_,
        "history": [list(record) for record in part.history_],
    }


def _restored(described: Mapping[str, Any]) -> dict[str, Any]:
    return {**described, "history": [EpochRecord(*record) for record in described["history"]]}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
