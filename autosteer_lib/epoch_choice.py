"""Which epoch's weights to keep.

    "held_out"   best accuracy on held-out data; of equals the lowest loss; of equals the earliest
    "last"       the last epoch
    an integer   that epoch, counted from 1 (AutoSteer's tests use 37 for the prober and 12 for the
                 head of LLaVA-OneVision and do not say how they were picked)

Training keeps one copy of the best weights so far, not one an epoch. Members are the independent
models trained side by side along the leading axis of every tensor (the probers of all layers); each
keeps its own best epoch. The choice is made with tensors, so that training never waits for the host.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Checkpoint = Literal["held_out", "last"] | int


class EpochRecord(NamedTuple):
    """One point of a training curve; a list of them is a tidy table (`pandas.DataFrame(history)`)."""

    epoch: int
    """Counted from 1: after that many passes over the training data."""
    split: str
    """"train", "held_out" or a monitor's name. "train" is the running value over the epoch's batches, each
    measured just before the step on it; the others are measured after the epoch."""
    accuracy: float
    loss: float


def check_checkpoint(checkpoint: Checkpoint, *, epochs: int) -> None:
    """Refuse a rule that no training run of this length can follow."""
    number = isinstance(checkpoint, int) and not isinstance(checkpoint, bool)
    if number and not 1 <= int(checkpoint) <= epochs:
        raise ValueError(
            f"checkpoint {checkpoint} is outside the training: pick an epoch of 1…{epochs}, 'held_out' or 'last'"
        )
    if not number and checkpoint not in ("held_out", "last"):
        raise ValueError(
            f"checkpoint {checkpoint!r} is unknown; use 'held_out', 'last' or an epoch of 1…{epochs}"
        )


class KeptWeights:
    """The weights that the rule has chosen so far, for each member on its own."""

    def __init__(self, weights: Sequence[Tensor], *, checkpoint: Checkpoint, epochs: int) -> None:
        self._live = list(weights)
        self._rule: Checkpoint = epochs if checkpoint == "last" else checkpoint
        members, device = weights[0].shape[0], weights[0].device
        self.kept = [tensor.detach().clone() for tensor in weights]
        self.epoch = torch.zeros(members, dtype=torch.long, device=device)
        self._accuracy = torch.full((members,), -1.0, device=device)
        self._loss = torch.full((members,), float("inf"), device=device)

    @torch.no_grad()
    def offer(
        self,
        epoch: int,
        *,
        accuracy: Float[Tensor, " members"] | None = None,
        loss: Float[Tensor, " members"] | None = None,
    ) -> None:
        """Look at the weights as they are after `epoch`; a rule other than "held_out" needs no figures."""
        if self._rule != "held_out":
            better: Bool[Tensor, " members"] = torch.full_like(
                self.epoch, epoch == self._rule, dtype=torch.bool
            )
            if epoch != self._rule:
                return
        else:
            assert accuracy is not None
            assert loss is not None
            better = (accuracy > self._accuracy) | ((accuracy == self._accuracy) & (loss < self._loss))
            self._accuracy = torch.where(better, accuracy, self._accuracy)
            self._loss = torch.where(better, loss, self._loss)
        self.epoch = torch.where(better, epoch, self.epoch)
        for kept, live in zip(self.kept, self._live, strict=True):
            torch.where(better.view(-1, *[1] * (live.ndim - 1)), live.detach(), kept, out=kept)

    @property
    def chosen(self) -> Int[Tensor, " members"]:
        """The epoch of each member's kept weights."""
        return self.epoch.cpu()
