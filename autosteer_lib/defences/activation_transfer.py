"""Activation transfer: a refusal direction found in one model steers another, through a learnt map of their states.

    v    = μ_ref − μ_acc at block l of the source            what *it* refuses and accepts
    v'   = M(v)                                              activation_mapper.py; M is fitted on states of unlabelled texts
    h ← h + α v'  at block l' of the target                  every token of prompt and answer, rows whose gate is open

    gate  "projection"  ⟨h − μ', v'⟩ > 0 at the prompt's last token, μ' the target's mean over the mapping texts
          "condition"   cos(h, tanh(v̂' v̂'ᵀ h)) beyond a threshold of the highest F1 on the validation texts
          "none"        every row, as in the paper

The target's own refusals are never looked at. The paper steers without a gate, which refuses everything; the first
gate is MARS' sign and needs no labels, the second is CAST's and needs them. The vector is mapped once, offline, so
an answer costs no pass of the source. States are paired at the last token of each prompt: tokenisers may differ, the
end of the request is there in both. (Pairs of words inside a text, as replications of the paper use, are not made.)

Layers: the paper takes the last one before prompt or mean-difference steering stops working.
`refusal_sweeps.steering_reach` is that sweep, scored by the next token and not by whole answers.

Source: activation-space transfer (arXiv 2503.04429) §3–4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.activation_mapper import Mapper, MapperKind, VectorMap, fit_mapper
from autosteer_lib.activations import collect
from autosteer_lib.arguments import check_choice, check_numbers, check_whole
from autosteer_lib.condition_vectors import ConditionPoint, condition_point, condition_similarity, is_open
from autosteer_lib.defences.fitted_defence import FittedDefence
from autosteer_lib.defences.gated_vectors import Gate, GatedVectors
from autosteer_lib.directions import TextCentroids
from autosteer_lib.encoding import Encoded, check_prompts
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Judge
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import OwnAnswers, ask_anew
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post
from autosteer_lib.tensor_cache import check_cache
from autosteer_lib.text_sets import FEWEST, TextSets, check_fit, keep_by_behaviour

GateKind: TypeAlias = Literal["projection", "condition", "none"]


class ActivationTransfer(FittedDefence):
    """Fitted values: `vector_` in the target, `centre_`, `mapper_`, `explained_`, `condition_`, `source_`."""

    name = "Activation transfer"
    kind: ClassVar[str] = "ActivationTransfer"
    fit_call: ClassVar[str] = "fit(source, target, texts, mapping_texts=…)"
    read_by_fit: ClassVar[frozenset[str]] = frozenset(
        {"source_layer", "target_layer", "mapper", "width", "epochs", "vector", "fewest", "seed"}
    )

    def __init__(
        self,
        *,
        source_layer: int,
        target_layer: int,
        alpha: float = 1.0,
        gate: GateKind = "projection",
        mapper: MapperKind = "mlp",
        vector: VectorMap = "difference",
        width: int | None = None,
        epochs: int = 200,
        fewest: int = FEWEST,
        seed: int = 0,
    ) -> None:
        """Hyper-parameters.

        Args:
            source_layer: l, block of the source whose output is read.
            target_layer: l', block of the target whose output is read and steered.
            alpha: α; the paper saw answers collapse from 5 on.
            gate: which rows are steered.
            mapper: "mlp", or "affine" as the control.
            vector: how a vector is mapped, see `activation_mapper`.
            width, epochs: of the MLP, see `fit_mapper`.
            fewest: texts that the source must refuse, and accept.
            seed: of the mapper.

        Raises:
            ValueError: values that are not known.
        """
        check_whole(source_layer=source_layer, target_layer=target_layer, seed=seed)
        check_numbers(alpha=alpha)
        check_choice(gate, get_args(GateKind), name="gate")
        check_choice(mapper, get_args(MapperKind), name="mapper")
        check_choice(vector, get_args(VectorMap), name="vector")
        for name, value in (("width", 1 if width is None else width), ("epochs", epochs), ("fewest", fewest)):
            check_whole(**{name: value})
            if value < 1:
                raise ValueError(f"{name} = {value}; use 1 or more")
        self.source_layer, self.target_layer = source_layer, target_layer
        self.alpha, self.gate = alpha, gate
        self.mapper, self.vector = mapper, vector
        self.width, self.epochs, self.fewest, self.seed = width, epochs, fewest, seed

    def fit(
        self,
        source: MLLM,
        target: MLLM,
        texts: TextSets,
        *,
        mapping_texts: Sequence[Prompt],
        settings: GenerationSettings | None = None,
        judge: Judge | None = None,
        answers: OwnAnswers = ask_anew,
        cache: Path | None = None,
        progress: bool = False,
    ) -> ActivationTransfer:
        """Find the source's direction, learn the map, map the direction; both models stay as they are.

        Args:
            source: the model that knows how to refuse.
            target: the model to defend.
            texts: for the source's direction; the validation texts, labelled, for the gate "condition".
            mapping_texts: shown to both models; no label of theirs is used.
            settings: of the source's answers, by which its texts are filtered, and the batch.
            judge: tells a refusal; `RefusalPhrases()` if left out.
            answers: the source's own, where they are kept; asked anew if left out.
            cache: folder in which states are kept.
            progress: show bars.

        Raises:
            TypeError: models, texts, settings or judge that are none.
            ValueError: layers that do not exist, too few texts, or a direction that the map loses.
        """
        settings = check_fit(source, texts, settings=settings, judge=judge)
        mapping_texts = check_prompts(source, mapping_texts, name="mapping_texts")
        check_prompts(target, mapping_texts, name="mapping_texts")
        check_cache(cache)
        for role, mllm, layer in (
            ("source", source, self.source_layer),
            ("target", target, self.target_layer),
        ):
            if not 0 <= layer < mllm.layers:
                raise ValueError(
                    f"{role}_layer {layer} does not exist; {mllm.name} has layers 0…{mllm.layers - 1}; pick one of them"
                )
        # Each once: the map is tested on held-out texts, and none of them is to be in its training too.
        mapping = list({prompt.fingerprint: prompt for prompt in mapping_texts}.values())
        if len(mapping) < 4:
            raise ValueError(f"{len(mapping)} different mapping texts were given; a map needs at least 4")
        refused, accepted = keep_by_behaviour(
            source,
            texts,
            settings=settings,
            judge=judge,
            fewest=self.fewest,
            answers=answers,
            progress=progress,
        )

        def states(mllm: MLLM, layer: int, prompts: Sequence[Prompt]) -> Tensor:
            return collect(
                mllm, prompts, sites=[resid_post(layer)], batch_size=settings.batch_size, cache=cache, progress=progress
            )  # fmt: skip

        of_source = partial(states, source, self.source_layer)
        of_target = partial(states, target, self.target_layer)
        v = TextCentroids.of(of_source(refused), of_source(accepted)).difference[0]
        targets = of_target(mapping)[:, 0]
        mapper, explained = fit_mapper(
            of_source(mapping)[:, 0], targets,
            kind=self.mapper, width=self.width, epochs=self.epochs, seed=self.seed,
        )  # fmt: skip
        mapped = mapper.vector(v, how=self.vector)
        if not mapped.any() or not mapped.isfinite().all():
            raise ValueError(
                f"the source's direction is mapped to {'nothing' if mapped.isfinite().all() else 'no number'}; give more "
                "mapping texts, or another mapper"
            )
        point: ConditionPoint | None = None
        if self.gate == "condition":
            sides = (texts.validation_unsafe, texts.validation_safe)
            similar = [condition_similarity(of_target(side), mapped) for side in sides]
            point = condition_point(*similar, layers=(0,))
        return self._adopt(
            {
                "vector": mapped,
                "source_vector": v,
                "centre": targets.double().mean(0).float(),
                **{f"mapper.{name}": tensor for name, tensor in mapper._asdict().items()},
            },
            {"explained": explained, "point": point and list(point), "source": FittedOn.of(source).facts()},
            fitted_on=FittedOn.of(target),
        )

    def steering(self, mllm: MLLM, encoded: Encoded) -> GatedVectors | None:
        """Edits for one batch; None at α = 0 without a gate."""
        self._check_model(mllm)
        site = resid_post(self.target_layer)
        if self.gate == "none":
            return GatedVectors({site: self.alpha * self.vector_}) if self.alpha else None
        decide = self._by_projection if self.gate == "projection" else self._by_condition
        return GatedVectors({site: self.alpha * self.vector_}, gate=Gate(site, decide))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given."""
        names = (
            "source_layer", "target_layer", "alpha", "gate", "mapper", "vector", "width", "epochs", "fewest", "seed",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _by_projection(
        self, hidden: Float[Tensor, "batch tokens dim"]
    ) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
        unit = (self.vector_ / self.vector_.norm()).to(hidden.device)
        score = (hidden[:, -1].float() - self.centre_.to(hidden.device)) @ unit
        return score, score > 0

    def _by_condition(
        self, hidden: Float[Tensor, "batch tokens dim"]
    ) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
        assert self.condition_ is not None  # _restore
        score = condition_similarity(hidden[:, -1], self.vector_.to(hidden.device))
        return score, is_open(score, self.condition_)

    def _tensors(self) -> dict[str, Tensor]:
        mapper = {f"mapper.{name}": tensor for name, tensor in self.mapper_._asdict().items()}
        vectors = {"vector": self.vector_, "source_vector": self.source_vector_, "centre": self.centre_}
        return {**vectors, **mapper}

    def _values(self) -> dict[str, Any]:
        source = self.source_.facts()
        point = self.condition_ and list(self.condition_)
        return {"explained": self.explained_, "point": point, "source": source}

    def _answers_depend_on(self) -> dict[str, Any]:
        point = list(self.condition_) if self.condition_ and self.gate == "condition" else None
        return {"alpha": self.alpha, "gate": self.gate, "target_layer": self.target_layer, "point": point}

    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.vector_, self.centre_ = tensors["vector"], tensors["centre"]
        self.source_vector_ = tensors["source_vector"]
        self.mapper_ = Mapper(**{name: tensors[f"mapper.{name}"] for name in Mapper._fields})
        self.explained_: float = values["explained"]
        self.condition_ = None if values["point"] is None else ConditionPoint(*values["point"])
        if self.gate == "condition" and self.condition_ is None:
            raise ValueError(
                "gate='condition' needs a threshold, which is found by a fit with that gate; fit again"
            )
        self.source_ = FittedOn(**values["source"])
