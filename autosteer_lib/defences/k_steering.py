"""K-Steering: step down the gradient of a classifier of states, in every pass.

    h ← h − α γ^s ∇L(h), s = 0 … S − 1      output of one block, each token by its own state
    L = mean g(avoided labels) − mean g(wanted labels)          (steering_classifier.py; or its reflection)
    open   σ(g_k) ≥ τ at the prompt's last token, for a label k that is chosen as gate

The classifier is trained on last-token states of labelled prompts. The method was published for tones of voice,
without a gate; as a defence it needs one, or harmless prompts would be pushed to refusal too. `behaviour_labels`
gives three labels that the model itself decides: "refused", "accepted", and "harmful" for the gate.

α is a step in the units of one layer's states and of one classifier: no two are comparable. The paper searches it
by a judge of coherence; `retuned(alpha=…)` is for such a search.

Source: K-Steering (arXiv 2505.24535), Alg. 1 and 2; the gate is this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import NoneType
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.arguments import check_choice, check_given, check_list, check_numbers, check_whole
from autosteer_lib.defences.fitted_defence import FittedDefence
from autosteer_lib.encoding import Encoded, check_batch_size, check_prompts
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Judge
from autosteer_lib.models import MLLM
from autosteer_lib.own_answers import OwnAnswers, ask_anew
from autosteer_lib.pairs import split_indices
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Attachment, Edit, Site, resid_post
from autosteer_lib.steering_classifier import (
    Algorithm,
    ClassifierWeights,
    Objective,
    label_logits,
    steered,
    train_classifier,
)
from autosteer_lib.text_sets import FEWEST, TextSets, keep_by_behaviour


def behaviour_labels(
    mllm: MLLM,
    texts: TextSets,
    *,
    settings: GenerationSettings,
    judge: Judge | None = None,
    fewest: int = FEWEST,
    answers: OwnAnswers = ask_anew,
) -> dict[str, list[Prompt]]:
    """Labels for a defence: unsafe texts that the model refuses, safe ones that it accepts, and all unsafe ones."""
    refused, accepted = keep_by_behaviour(
        mllm, texts, settings=settings, judge=judge, fewest=fewest, answers=answers
    )
    return {"refused": refused, "accepted": accepted, "harmful": list(texts.unsafe)}


class KSteering(FittedDefence):
    """Fitted values: `weights_`, `labels_`, `layer_`, `accuracy_` of the layers that were tried."""

    name = "K-Steering"
    kind: ClassVar[str] = "KSteering"
    fit_call: ClassVar[str] = "fit(mllm, labels)"
    read_by_fit: ClassVar[frozenset[str]] = frozenset(
        {"layer", "width", "epochs", "lr", "batch_size", "held_out", "seed"}
    )

    def __init__(
        self,
        *,
        target: Sequence[str] = ("refused",),
        avoid: Sequence[str] = ("accepted",),
        gate: str | None = "harmful",
        threshold: float = 0.5,
        alpha: float = 1.0,
        decay: float = 1.0,
        steps: int = 1,
        algorithm: Algorithm = "descent",
        layer: int | None = None,
        width: int = 128,
        epochs: int = 30,
        lr: float = 1e-3,
        batch_size: int = 64,
        held_out: float = 0.2,
        seed: int = 0,
    ) -> None:
        """Hyper-parameters.

        Args:
            target: labels to step towards.
            avoid: labels to step away from.
            gate: label that opens a row; None steers every row, as published.
            threshold: τ, in [0, 1].
            alpha: α of Alg. 1.
            decay: γ (1.0 in the library, 0.95 in the authors' notebooks).
            steps: S; the reflection is its own inverse up to the gradient's change, and is meant for one.
            algorithm: "descent" is Alg. 1, "reflection" Alg. 2, which has neither α nor γ.
            layer: the block whose output is steered; None takes the one at which held-out prompts are labelled best.
            width, epochs, lr, batch_size: of the classifier, see `train_classifier`.
            held_out: share of the prompts that the layer is chosen by.
            seed: of the split and of the training.

        Raises:
            TypeError: a value of another type.
            ValueError: values that mean nothing.
        """
        check_numbers(threshold=threshold, alpha=alpha, decay=decay, lr=lr, held_out=held_out)
        check_whole(steps=steps, width=width, epochs=epochs, batch_size=batch_size, seed=seed)
        for name, labels in (("target", target), ("avoid", avoid)):
            check_list(labels, str, name=name, remedy="a list of labels, as in ['refused']")
        check_given(gate, (str, NoneType), name="gate", remedy="a label, or None to steer every row")
        if layer is not None:
            check_whole(layer=layer)
        if not target and not avoid:
            raise ValueError("neither target nor avoid has a label: there is nowhere to step; give some")
        if set(target) & set(avoid):
            raise ValueError(
                f"labels {sorted(set(target) & set(avoid))} are to be reached and avoided at once; "
                "leave each in target or in avoid"
            )
        check_choice(algorithm, get_args(Algorithm), name="algorithm")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold = {threshold} is outside [0, 1]; it is compared with a probability")
        for name, value in (
            ("steps", steps),
            ("width", width),
            ("epochs", epochs),
            ("batch_size", batch_size),
        ):
            if value < 1:
                raise ValueError(f"{name} = {value}; use 1 or more")
        if lr <= 0 or not 0 < held_out < 1:
            raise ValueError(f"lr = {lr} must be above 0 and held_out = {held_out} a share between 0 and 1")
        self.target, self.avoid, self.gate, self.threshold = tuple(target), tuple(avoid), gate, threshold
        self.alpha, self.decay, self.steps = alpha, decay, steps
        self.algorithm: Algorithm = algorithm
        self.layer, self.width, self.epochs, self.lr = layer, width, epochs, lr
        self.batch_size, self.held_out, self.seed = batch_size, held_out, seed

    def fit(
        self,
        mllm: MLLM,
        labels: Mapping[str, Sequence[Prompt]],
        *,
        batch_size: int = 32,
        progress: bool = False,
    ) -> KSteering:
        """Train the classifier, and choose its layer; the model itself stays as it is.

        Args:
            mllm: the model to defend.
            labels: label → prompts that have it. A prompt may have several: it is told by what it asks.
            batch_size: prompts a forward pass.
            progress: show bars.

        Raises:
            TypeError: a model or labels that are none.
            ValueError: a label that target, avoid or gate names and that is not there, an empty one, a layer that does
                not exist, or too few prompts.
        """
        check_given(labels, Mapping, name="labels", remedy="a mapping, as in {'refused': [Prompt(…), …], …}")
        labels = {
            name: check_prompts(mllm, prompts, name=f"labels[{name!r}]") for name, prompts in labels.items()
        }
        check_batch_size(batch_size)
        self._check_labels({name: len(prompts) for name, prompts in labels.items()})
        fitted_on = FittedOn.of(mllm)
        if self.layer is not None and not 0 <= self.layer < mllm.layers:
            raise ValueError(
                f"layer {self.layer} does not exist; {mllm.name} has layers 0…{mllm.layers - 1}; pick one of them, or "
                "leave layer=None to let held-out prompts choose"
            )
        names, prompts, held = _table(labels)
        layers = tuple(range(mllm.layers)) if self.layer is None else (self.layer,)
        sites = [resid_post(layer) for layer in layers]
        states = collect(mllm, prompts, sites=sites, batch_size=batch_size, progress=progress)
        accuracy = self._held_out_accuracy(states, held) if self.layer is None else []
        column = accuracy.index(max(accuracy)) if accuracy else 0
        weights = self._train(states[:, column], held)
        values = {"labels": names, "layer": layers[column], "accuracy": accuracy}
        return self._adopt(weights._asdict(), values, fitted_on=fitted_on)

    def steering(self, mllm: MLLM, encoded: Encoded) -> GradientSteering:
        """Edits for one batch."""
        self._check_model(mllm)
        return GradientSteering(
            self.weights_,
            objective=Objective.of(self.weights_, avoid=self._ids(self.avoid), target=self._ids(self.target)),
            step=partial(
                steered,
                algorithm=self.algorithm,
                alpha=self.alpha,
                decay=self.decay,
                steps=self.steps,
            ),
            site=resid_post(self.layer_),
            gate=None if self.gate is None else self.labels_.index(self.gate),
            threshold=self.threshold,
        )

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given."""
        names = (
            "gate", "threshold", "alpha", "decay", "steps", "algorithm", "layer", "width", "epochs", "lr", "batch_size",
            "held_out", "seed",
        )  # fmt: skip
        lists = {"target": list(self.target), "avoid": list(self.avoid)}
        return {**lists, **{name: getattr(self, name) for name in names}}

    def _held_out_accuracy(self, states: Tensor, held: Tensor) -> list[float]:
        """Share of right labels on held-out prompts, of a classifier of each layer; the kept one sees all prompts."""
        train, kept_back = split_indices(len(states), held_out=self.held_out, seed=self.seed)
        found = []
        for column in range(states.shape[1]):
            weights = self._train(states[train, column], held[train])
            right = (label_logits(weights, states[kept_back, column]) >= 0) == held[kept_back]
            found.append(float(right.float().mean()))
        return found

    def _train(self, states: Tensor, held: Tensor) -> ClassifierWeights:
        return train_classifier(
            states, held, width=self.width, epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, seed=self.seed
        )  # fmt: skip

    def _ids(self, names: Sequence[str]) -> list[int]:
        return [self.labels_.index(name) for name in names]

    def _check_labels(self, counts: Mapping[str, int]) -> None:
        wanted = {*self.target, *self.avoid, *([] if self.gate is None else [self.gate])}
        missing = sorted(name for name in wanted if not counts.get(name))
        if missing or len(counts) < 2:
            raise ValueError(
                f"labels {missing} have no prompts; prompts of each label: {dict(counts)}. Give at least two labels, "
                "and prompts for all that target, avoid and gate name (gate=None steers every row)"
            )

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.weights_._asdict())

    def _values(self) -> dict[str, Any]:
        return {"labels": list(self.labels_), "layer": self.layer_, "accuracy": list(self.accuracy_)}

    def _answers_depend_on(self) -> dict[str, Any]:
        names = ("target", "avoid", "gate", "threshold", "alpha", "decay", "steps", "algorithm")
        chosen = {name: self.hyperparameters[name] for name in names}
        return {**chosen, "labels": list(self.labels_), "layer": self.layer_}

    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.weights_ = ClassifierWeights(**{name: tensors[name] for name in ClassifierWeights._fields})
        self.labels_: tuple[str, ...] = tuple(values["labels"])
        self.layer_: int = values["layer"]
        self.accuracy_: tuple[float, ...] = tuple(values["accuracy"])
        self._check_labels(dict.fromkeys(self.labels_, 1))


class GradientSteering:
    """Edits of one batch; see `generation.Steering`."""

    def __init__(
        self,
        weights: ClassifierWeights,
        *,
        objective: Objective,
        step: Callable[[Objective, Tensor], Tensor],
        site: Site,
        gate: int | None,
        threshold: float,
    ) -> None:
        """Prepare for one batch.

        Args:
            weights: the classifier's, for the gate.
            objective: what the steps go down.
            step: (objective, states) → steered states.
            site: where.
            gate: index of the label that opens a row; None steers every row.
            threshold: τ.
        """
        self.gate_score: Float[Tensor, " batch"] | None = None
        self.triggered: Bool[Tensor, " batch"] | None = None
        self._weights, self._objective, self._step, self._site = weights, objective, step, site
        self._gate, self._threshold = gate, threshold
        self._rows: Tensor | None = None
        self._decided = gate is None
        self._attachment: Attachment | None = None

    def edits(self) -> Mapping[Site, Edit]:
        """Read in the prefill, write in every pass."""
        return {self._site: self._write}

    def bind(self, attachment: Attachment) -> None:
        """Keep the hook at hand, to remove it if no row is to be steered."""
        self._attachment = attachment

    def _write(self, hidden: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"] | None:
        if self._objective.b1.device != hidden.device:  # once: no copy while decoding
            self._objective = self._objective.to(hidden.device)
        if not self._decided and not self._decide(hidden):
            return None
        moved = self._step(self._objective, hidden).to(hidden.dtype)
        return moved if self._rows is None else torch.where(self._rows[:, None, None], moved, hidden)

    def _decide(self, hidden: Tensor) -> bool:
        """Whether any row is steered: the one question to the device, in the prefill."""
        assert self._attachment is not None
        assert self._gate is not None
        self._decided = True
        weights = ClassifierWeights(*(tensor.to(hidden.device) for tensor in self._weights))
        score = torch.sigmoid(label_logits(weights, hidden[:, -1].float())[:, self._gate])
        opened = score >= self._threshold
        broken = score.isnan()
        some_open, all_open, some_broken = torch.stack((opened.any(), opened.all(), broken.any())).tolist()
        if some_broken:
            raise ValueError(
                f"the gate's score at {self._site} is not a number in rows {broken.nonzero().flatten().tolist()} of the "
                "batch: the states overflowed or are broken, and such a prompt must not pass as safe; load the model in "
                "bfloat16 or float32"
            )
        self.gate_score, self.triggered = score, opened
        self._rows = None if all_open else opened
        if not some_open:
            self._attachment.detach(self._site)
        return bool(some_open)


def _table(
    labels: Mapping[str, Sequence[Prompt]],
) -> tuple[list[str], list[Prompt], Bool[Tensor, "prompts labels"]]:
    """Label names, each prompt once, and which labels it has."""
    names = list(labels)
    found: dict[str, tuple[Prompt, set[str]]] = {}
    for name, prompts in labels.items():
        for prompt in prompts:
            found.setdefault(prompt.fingerprint, (prompt, set()))[1].add(name)
    held = torch.tensor([[name in has for name in names] for _, has in found.values()])
    return names, [prompt for prompt, _ in found.values()], held
