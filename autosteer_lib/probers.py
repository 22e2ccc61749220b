"""Safety prober: how likely is it that the prompt behind this state is toxic?

    s = σ(W2 · ReLU(W1 h + b1) + b2),      W1 [64 dim], W2 [1 64],  s = P(toxic)

A classifier on the last prompt token's state at the layer that SAS chose. It is trained on contrast
pairs (toxic prompts and their safe twins) and reads; it never changes the model.

The paper's published code has two outputs and soft-maxes twice in training; `output="softmax2"` is
that reading (see `prober_training` for both losses, and difference 3 in `readings.DIFFERENCES`).

Source: AutoSteer §3.3, eq. 9–10. After Han et al., SafeSwitch, from which the authors took theirs.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.arguments import check_numbers, check_whole
from autosteer_lib.epoch_choice import Checkpoint, EpochRecord, check_checkpoint
from autosteer_lib.prober_training import (
    Labelled,
    ProberOutput,
    ProberTraining,
    ProberWeights,
    TrainedProber,
    margins,
    train_probers,
)

# Sets of their own sizes: "_" is any number of rows.
Sides = tuple[Float[Tensor, "_ *layers dim"], Float[Tensor, "_ *layers dim"]]
Monitored = Mapping[str, tuple[Float[Tensor, "_ *layers dim"], Bool[Tensor, "_"]]]


@dataclass(kw_only=True, eq=False)
class SafetyProber:
    """Hyper-parameters at construction; `fit` adds the fields whose names end in an underscore."""

    width: int = 64
    """Hidden units (AutoSteer §3.3)."""
    epochs: int = 200
    lr: float = 1e-5
    weight_decay: float = 1e-5
    batch_size: int = 8
    """These four as in the published training script."""
    seed: int = 0
    """Of the initial weights and of the batches' order; the global random state is neither read nor changed."""
    output: ProberOutput = "sigmoid"
    """"sigmoid": the paper. "softmax2": the published code."""
    checkpoint: Checkpoint = "held_out"
    """Which epoch to keep; see `epoch_choice`."""

    weights_: ProberWeights = field(init=False, repr=False)
    history_: list[EpochRecord] = field(init=False, repr=False)
    """Accuracy and loss after each epoch, on the training pairs, the held-out pairs and every monitored set."""
    chosen_epoch_: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_whole(width=self.width, epochs=self.epochs, batch_size=self.batch_size, seed=self.seed)
        check_numbers(lr=self.lr, weight_decay=self.weight_decay)
        for name in ("width", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"prober {name} = {getattr(self, name)}: use 1 or more")
        if self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"prober lr = {self.lr} must be above 0 and weight_decay = {self.weight_decay} 0 or more"
            )
        if self.output not in ("sigmoid", "softmax2"):
            raise ValueError(
                f"prober output {self.output!r} is unknown; use 'sigmoid' (paper) or 'softmax2' (published code)"
            )
        check_checkpoint(self.checkpoint, epochs=self.epochs)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given, by name."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.init}

    @property
    def dim(self) -> int:
        """Size of the states that the fitted prober reads."""
        return self._fitted().w1.shape[1]

    def fit(
        self,
        toxic: Float[Tensor, "toxic dim"],
        safe: Float[Tensor, "safe dim"],
        *,
        held_out: Sides | None = None,
        monitor: Monitored | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> "SafetyProber":
        """Train on the states of one layer.

        Args:
            toxic: states of toxic prompts.
            safe: states of safe prompts.
            held_out: states of pairs kept back, (toxic, safe), by which the epoch is chosen.
            monitor: further sets to measure after every epoch, name → (states, is toxic?).
            device: where to train; where the states are if left out.
            progress: show a bar.

        Raises:
            ValueError: an empty side, other sizes than [rows, dim], states that are not finite, or no
                held-out pairs where the checkpoint rule needs them.
        """
        if toxic.ndim != 2:
            raise ValueError(
                f"states of one layer are [rows, dim], received {list(toxic.shape)}; several layers go to fit_all_layers"
            )
        return self._adopt(
            self._train(
                toxic.unsqueeze(1),
                safe.unsqueeze(1),
                held_out=None if held_out is None else (held_out[0].unsqueeze(1), held_out[1].unsqueeze(1)),
                monitor={
                    name: (states.unsqueeze(1), labels) for name, (states, labels) in (monitor or {}).items()
                },
                device=device,
                progress=progress,
            )[0]
        )

    def fit_all_layers(
        self,
        toxic: Float[Tensor, "toxic layers dim"],
        safe: Float[Tensor, "safe layers dim"],
        *,
        held_out: Sides | None = None,
        monitor: Monitored | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> list["SafetyProber"]:
        """One prober for each layer, as if each were fitted alone with these hyper-parameters, in one batched run.

        The accuracy of every layer after every epoch (the paper's Fig. 3 and 9) costs one pass over the states.
        """
        trained = self._train(
            toxic, safe, held_out=held_out, monitor=monitor or {}, device=device, progress=progress
        )
        return [SafetyProber(**self.hyperparameters)._adopt(layer) for layer in trained]

    @torch.no_grad()
    def score(self, states: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        """P(toxic) of each state, in float32 whatever the states are in, on their device."""
        weights = self._fitted()
        if states.ndim != 2 or states.shape[1] != weights.w1.shape[1]:
            raise ValueError(
                f"this prober reads states [rows, {weights.w1.shape[1]}], received {list(states.shape)}; "
                "it was fitted on another model or on another kind of state"
            )
        stacked = ProberWeights(*(tensor.to(states.device).unsqueeze(0) for tensor in weights))
        return torch.sigmoid(margins(stacked, states.unsqueeze(1))[0])

    def to(self, device: torch.device | str) -> "SafetyProber":
        """Move the fitted weights, so that scoring there copies nothing."""
        self.weights_ = ProberWeights(*(tensor.to(device) for tensor in self._fitted()))
        return self

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fitted weights by name, as they are saved."""
        return dict(self._fitted()._asdict())

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        hyperparameters: Mapping[str, Any],
        history: list[EpochRecord],
        chosen_epoch: int,
    ) -> "SafetyProber":
        """A fitted prober from what `tensors`, `hyperparameters`, `history_` and `chosen_epoch_` gave."""
        weights = ProberWeights(**{name: tensors[name] for name in ProberWeights._fields})
        return cls(**hyperparameters)._adopt(TrainedProber(weights, history, chosen_epoch))

    def _adopt(self, trained: TrainedProber) -> "SafetyProber":
        self.weights_, self.history_, self.chosen_epoch_ = trained
        return self

    def _fitted(self) -> ProberWeights:
        if not hasattr(self, "weights_"):
            raise NotFittedError(
                "this SafetyProber has no weights yet; call fit (or load a fitted defence) first"
            )
        return self.weights_

    def _train(
        self,
        toxic: Tensor,
        safe: Tensor,
        *,
        held_out: Sides | None,
        monitor: Monitored,
        device: torch.device | str | None,
        progress: bool,
    ) -> list[TrainedProber]:
        if self.checkpoint == "held_out" and held_out is None:
            raise ValueError(
                "checkpoint='held_out' needs held_out=(toxic, safe) states; pass some pairs, or use checkpoint='last'"
            )
        states, labels = _labelled(toxic, safe, what="training")
        target = states.device if device is None else torch.device(device)
        shape = states.shape[1:]
        sets = {
            name: _checked(set_states, labels_, shape, what=f"monitor {name!r}")
            for name, (set_states, labels_) in monitor.items()
        }
        if held_out is not None:
            sets["held_out"] = _checked(*_labelled(*held_out, what="held-out"), shape, what="held-out pairs")
        reserved = {"train", "held_out"} & monitor.keys()
        if reserved:
            raise ValueError(
                f"monitor names {sorted(reserved)} are taken by the training's own curves; choose others"
            )
        # once to the device, not once an epoch
        placed = {
            name: (set_states.to(target), labels_.to(target)) for name, (set_states, labels_) in sets.items()
        }
        return train_probers(
            states.to(target),
            labels,
            training=ProberTraining(**self.hyperparameters),
            held_out=placed.pop("held_out", None),
            monitor=placed,
            progress=progress,
        )


def _labelled(toxic: Tensor, safe: Tensor, *, what: str) -> Labelled:
    if toxic.ndim != 3 or toxic.shape[1:] != safe.shape[1:]:
        raise ValueError(
            f"{what} states: toxic {list(toxic.shape)} and safe {list(safe.shape)} must agree in all but the number of rows"
        )
    if not len(toxic) or not len(safe):
        raise ValueError(
            f"{what} states: {len(toxic)} toxic and {len(safe)} safe; a prober needs both classes"
        )
    labels = torch.cat((torch.ones(len(toxic), dtype=torch.bool), torch.zeros(len(safe), dtype=torch.bool)))
    states = torch.cat((toxic, safe.to(toxic)))
    return _checked(states, labels, states.shape[1:], what=f"{what} states")


def _checked(states: Tensor, labels: Tensor, shape: torch.Size, *, what: str) -> Labelled:
    if states.shape[1:] != shape or labels.shape != states.shape[:1] or not len(states):
        raise ValueError(
            f"{what}: states {list(states.shape)} with labels {list(labels.shape)}; expected "
            f"[rows, {', '.join(map(str, shape))}] and [rows], at least one row"
        )
    finite = torch.stack([chunk.isfinite().all() for chunk in states.split(1024)])
    if not bool(finite.all()):
        row, layer, _ = (~states.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"{what}: the state of row {row} at layer column {layer} is not finite; "
            "compute the states in bfloat16 or float32"
        )
    return states, labels.bool()
