"""CAST: conditional activation steering. A condition is read in the prompt; where it holds, refusal is added.

    open   sim(h_c, layer l_c) on its side of t        mean state of the prompt's tokens, in the first pass
    x^(l) ← x^(l) + s b_l                               l in the behaviour layers, every token of prompt and answer

    c      from pairs of a harmful and a harmless prompt          (condition_vectors.py)
    b_l    from pairs of one prompt with a refusal and with a compliant answer forced after it, mean over its tokens

Forced are one refusal and one compliant answer; the code's tutorial has a hundred of each, after a hundred prompts.
States are the inputs of blocks. A gate is a row's own and is set once; the code keeps one for all, on a class,
and can answer one prompt at a time. Behaviour layers may not lie below the condition's, as the first pass
would be past them.

Source: CAST (arXiv 2409.05907) §3, §5; the tutorial of IBM/activation-steering at 52be602 for Hermes-2-Pro-Llama-3-8B,
of 32 layers: condition layer searched in 1…9, behaviour layers 15–23, strength 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.arguments import check_choice, check_list, check_numbers, check_whole
from autosteer_lib.condition_vectors import (
    Centring,
    ConditionPoint,
    Grid,
    Side,
    condition_point,
    condition_similarity,
    contrast_direction,
    is_open,
)
from autosteer_lib.defences.fitted_defence import FittedDefence
from autosteer_lib.defences.gated_vectors import Gate, GatedVectors
from autosteer_lib.encoding import Encoded, check_batch_size
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.forced_answer import check_answer
from autosteer_lib.models import MLLM
from autosteer_lib.pooled_states import last_states, masked_mean, mean_states
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_pre
from autosteer_lib.text_sets import TextSets, check_fit

Reads: TypeAlias = Literal["mean", "last"]

# Of the tutorial's model, first and last layer. It searches Python's range(1, 10), whose last is 9.
DEPTH, CONDITION, BEHAVIOUR = 32, (1, 9), (15, 23)


class Cast(FittedDefence):
    """Fitted values: `condition_` and `behaviour_` of every layer, `point_`."""

    name = "CAST"
    kind: ClassVar[str] = "CAST"
    fit_call: ClassVar[str] = "fit(mllm, texts, refusal_text=…, compliance_text=…)"
    read_by_fit: ClassVar[frozenset[str]] = frozenset(
        {"reads", "centring", "grid", "condition_layers", "behaviour_layers"}
    )

    def __init__(
        self,
        *,
        strength: float = 1.5,
        reads: Reads = "mean",
        centring: Centring = "pairwise",
        grid: Grid = "data",
        condition_layers: Sequence[int] | None = None,
        behaviour_layers: Sequence[int] | None = None,
        point: ConditionPoint | Sequence[Any] | None = None,
    ) -> None:
        """Hyper-parameters.

        Args:
            strength: s, on vectors of length 1.
            reads: the condition is read in the mean over the prompt's tokens, or in its last one.
            centring: of both PCAs, see `condition_vectors`.
            grid: thresholds that are tried, see there.
            condition_layers: candidates for l_c; None takes the paper's share of the depth.
            behaviour_layers: None takes the paper's share of the depth.
            point: l_c, threshold and side as they are, for sweeps over the threshold; None takes the fitted ones.

        Raises:
            TypeError: a value of another type.
            ValueError: values that are not known, no layers, or a point without its four parts.
        """
        check_numbers(strength=strength)
        check_choice(reads, get_args(Reads), name="reads")
        check_choice(centring, get_args(Centring), name="centring")
        check_choice(grid, get_args(Grid), name="grid")
        for name, layers in (("condition_layers", condition_layers), ("behaviour_layers", behaviour_layers)):
            remedy = "a list of layers, as in [1, 2], or None for the paper's share of the depth"
            if layers is not None:
                check_list(layers, int, name=name, remedy=remedy)
                if not layers:
                    raise ValueError(f"{name} is empty; give {remedy}")
        self.strength, self.reads, self.centring, self.grid = strength, reads, centring, grid
        self.condition_layers = None if condition_layers is None else tuple(condition_layers)
        self.behaviour_layers = None if behaviour_layers is None else tuple(behaviour_layers)
        self.point = None if point is None else _point(point)

    def fit(
        self,
        mllm: MLLM,
        texts: TextSets,
        *,
        refusal_text: str,
        compliance_text: str,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Cast:
        """Find both directions and the point of the condition; the model itself stays as it is.

        Args:
            mllm: the model to defend.
            texts: unsafe and safe ones in pairs (row by row; the longer side's rest is left out) make c; the
                validation texts choose the point.
            refusal_text: forced after the safe texts: what the behaviour is.
            compliance_text: forced likewise: what it is not.
            batch_size: prompts a pass.
            progress: show bars.

        Raises:
            TypeError: a model, texts or forced answers that are none.
            ValueError: layers that do not exist or do not fit together, fewer than two pairs, or prompts that no
                threshold can part.
        """
        check_fit(mllm, texts, settings=None, judge=None)
        for name, text in (("refusal_text", refusal_text), ("compliance_text", compliance_text)):
            check_answer(text, name=name)
        check_batch_size(batch_size)
        conditions, behaviours = self._layers(FittedOn.of(mllm))
        pairs = min(len(texts.unsafe), len(texts.safe))
        if pairs < 2:
            raise ValueError(f"{pairs} pair of an unsafe and a safe text; a contrast needs at least 2")
        sites = [resid_pre(layer) for layer in range(mllm.layers)]
        read = partial(mean_states, mllm, sites=sites, batch_size=batch_size, progress=progress)

        def seen(prompts: Sequence[Prompt]) -> Tensor:
            if self.reads == "mean":
                return read(prompts)
            states = last_states(
                mllm, prompts, sites=sites, tokens=1, batch_size=batch_size, progress=progress
            )
            return states[:, :, 0]

        condition = contrast_direction(
            seen(texts.unsafe[:pairs]), seen(texts.safe[:pairs]), centring=self.centring
        )
        behaviour = contrast_direction(
            read(texts.safe, answer=refusal_text),
            read(texts.safe, answer=compliance_text),
            centring=self.centring,
        )
        similarities = [
            _similarities(seen(side), condition) for side in (texts.validation_unsafe, texts.validation_safe)
        ]
        point = condition_point(*similarities, layers=conditions, grid=self.grid)
        return self._adopt(
            {"condition": condition, "behaviour": behaviour},
            {"point": list(point), "behaviour_layers": list(behaviours)},
            fitted_on=FittedOn.of(mllm),
        )

    def steering(self, mllm: MLLM, encoded: Encoded) -> GatedVectors:
        """Edits for one batch."""
        self._check_model(mllm)
        vectors = {
            resid_pre(layer): self.strength * self.behaviour_[layer] for layer in self.behaviour_layers_
        }
        mask = encoded.inputs["attention_mask"].bool()
        return GatedVectors(
            vectors, gate=Gate(resid_pre(self.point_.layer), partial(self._decide, mask=mask))
        )

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given."""
        names = ("strength", "reads", "centring", "grid")
        layers = {
            "condition_layers": None if self.condition_layers is None else list(self.condition_layers),
            "behaviour_layers": None if self.behaviour_layers is None else list(self.behaviour_layers),
            "point": None if self.point is None else list(self.point),
        }
        return {**{name: getattr(self, name) for name in names}, **layers}

    def _decide(
        self, hidden: Float[Tensor, "batch tokens dim"], *, mask: Bool[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
        state = masked_mean(hidden.float(), mask) if self.reads == "mean" else hidden[:, -1]
        score = condition_similarity(state, self.condition_[self.point_.layer].to(hidden.device))
        return score, is_open(score, self.point_)

    def _layers(self, fitted_on: FittedOn) -> tuple[tuple[int, ...], tuple[int, ...]]:
        depth = fitted_on.layers
        conditions = self.condition_layers or _share(CONDITION, depth)
        behaviours = self.behaviour_layers or _share(BEHAVIOUR, depth)
        unknown = [layer for layer in (*conditions, *behaviours) if not 0 <= layer < depth]
        if unknown:
            raise ValueError(f"layer {unknown[0]} does not exist; {fitted_on.name} has layers 0…{depth - 1}")
        if max(conditions) > min(behaviours):
            raise ValueError(
                f"condition layers {list(conditions)} and behaviour layers {list(behaviours)}: the condition must be "
                "known before the first behaviour layer; choose condition layers not above it"
            )
        return conditions, behaviours

    def _tensors(self) -> dict[str, Tensor]:
        return {"condition": self.condition_, "behaviour": self.behaviour_}

    def _values(self) -> dict[str, Any]:
        return {"point": list(self.point_), "behaviour_layers": list(self.behaviour_layers_)}

    def _answers_depend_on(self) -> dict[str, Any]:
        point = list(self.point_)[:3]
        layers = list(self.behaviour_layers_)
        return {"strength": self.strength, "reads": self.reads, "point": point, "behaviour_layers": layers}

    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.condition_, self.behaviour_ = tensors["condition"], tensors["behaviour"]
        self.behaviour_layers_: tuple[int, ...] = tuple(values["behaviour_layers"])
        self.point_ = self.point or ConditionPoint(*values["point"])
        depth = len(self.condition_)
        if not 0 <= self.point_.layer < depth or self.point_.layer > min(self.behaviour_layers_):
            raise ValueError(
                f"the condition's layer {self.point_.layer} must be one of 0…{depth - 1} and not above the first "
                f"behaviour layer {min(self.behaviour_layers_)}"
            )
        if not self.condition_[self.point_.layer].any():
            raise ValueError(
                f"there is no condition direction at layer {self.point_.layer}: both sides of all pairs have the same "
                "state there; choose another layer"
            )


def _point(given: Sequence[Any]) -> ConditionPoint:
    remedy = "ConditionPoint(layer=…, threshold=…, side=…, f1=…), as in point_ of a fitted Cast, or None"
    check_list(given, object, name="point", remedy=remedy)
    if len(given) != len(ConditionPoint._fields):
        raise ValueError(f"point={given!r} has {len(given)} parts; give {remedy}")
    point = ConditionPoint(*given)
    check_whole(**{"point.layer": point.layer})
    check_numbers(**{"point.threshold": point.threshold, "point.f1": point.f1})
    check_choice(point.side, get_args(Side), name="point.side")
    return point


def _share(layers: tuple[int, int], depth: int) -> tuple[int, ...]:
    """The paper's first to last layer in a decoder of another depth; at least one."""
    first, last = (round(layer * depth / DEPTH) for layer in layers)
    first = max(first, 1)
    return tuple(range(first, max(first, last) + 1))


def _similarities(
    states: Float[Tensor, "prompts layers dim"], condition: Float[Tensor, "layers dim"]
) -> Float[Tensor, "prompts layers"]:
    columns = [condition_similarity(states[:, layer], c) for layer, c in enumerate(condition)]
    there = condition.any(dim=-1)
    return torch.where(there, torch.stack(columns, dim=1), float("nan"))
