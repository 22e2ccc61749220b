"""Refusal Head: one matrix after the final norm that makes the model say a refusal.

    LM-Steer, as printed:    e_v' = (I + ε W) e_v for every word v
    the same, per state:     h'   = h + ε h Sᵀ,      logits = h' Eᵀ,      S = Wᵀ [dim dim], h [tokens dim]

Multiplying out h (E + ε E S)ᵀ gives both. The second never builds a words × dim product, so steering
costs one dim × dim product a token, and training reads each state once and for all: the model is
frozen, its final states under the fixed refusal are computed beforehand.

    loss = mean over the supervised tokens of cross-entropy(logits, next token),      S starts as I

ε is a factor of training too: the matrix is learnt at one ε (0.1) and may be used at others.

Source: AutoSteer (arXiv 2507.13255) §3.4, eq. 11–13; LM-Steer (Han et al. 2024), eq. 4–6. Eq. 13 as
printed adds matrices of transposed shapes; this is the form that the published code computes.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import NotFittedError
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import trange

from autosteer_lib.arguments import check_numbers, check_whole
from autosteer_lib.epoch_choice import Checkpoint, EpochRecord, KeptWeights, check_checkpoint

LOGITS_PER_CHUNK = 1 << 25  # 128 MiB of float32 at a time when held-out tokens are scored

Supervised = tuple[Float[Tensor, "_ dim"], Int[Tensor, "_"]]  # any number of tokens


def steer(
    h: Float[Tensor, "batch *tokens dim"],
    matrix: Float[Tensor, "dim dim"],
    *,
    epsilon: float,
    gate: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch *tokens dim"]:
    """h + ε h Sᵀ in the rows whose gate is open (all without a gate); the other rows come back bit for bit.

    The sum is formed in the matrix' own precision (float32) and rounded once to that of `h`.
    """
    exact = h.to(matrix.dtype).reshape(-1, h.shape[-1])
    # One call for product and sum: on a small model a decoding step is mostly the time between calls.
    steered = torch.addmm(exact, exact, matrix.mT, alpha=epsilon).view(h.shape).to(h.dtype)
    if gate is None:
        return steered
    # A choice, not a product: 0 · inf would spoil a row that the gate left alone.
    return torch.where(gate.view(-1, *[1] * (h.ndim - 1)), steered, h)


@dataclass(kw_only=True, eq=False)
class RefusalHead:
    """Hyper-parameters at construction; `fit` adds the fields whose names end in an underscore."""

    epsilon: float = 0.1
    """Strength during training (AutoSteer §4.1)."""
    lr: float = 1e-5
    weight_decay: float = 0.01
    """Both as in the published script for LLaVA-OneVision (AdamW)."""
    epochs: int = 30
    batch_size: int = 2
    """Answers in a batch, where the tokens' rows are given; tokens otherwise."""
    seed: int = 0
    """Of the batches' order; the global random state is neither read nor changed."""
    checkpoint: Checkpoint = "held_out"
    """Which epoch to keep; see `epoch_choice`."""

    matrix_: Float[Tensor, "dim dim"] = field(init=False, repr=False)
    """S."""
    history_: list[EpochRecord] = field(init=False, repr=False)
    """Next-token accuracy and loss, on the training and on the held-out tokens."""
    chosen_epoch_: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_whole(epochs=self.epochs, batch_size=self.batch_size, seed=self.seed)
        check_numbers(epsilon=self.epsilon, lr=self.lr, weight_decay=self.weight_decay)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"head {name} = {getattr(self, name)}: use 1 or more")
        if self.epsilon == 0:
            raise ValueError(
                "head epsilon = 0 leaves the matrix without any effect to learn from; the paper trains at 0.1"
            )
        if self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"head lr = {self.lr} must be above 0 and weight_decay = {self.weight_decay} 0 or more"
            )
        check_checkpoint(self.checkpoint, epochs=self.epochs)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `__init__` was given, by name."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.init}

    @property
    def matrix(self) -> Float[Tensor, "dim dim"]:
        """S, or NotFittedError."""
        if not hasattr(self, "matrix_"):
            raise NotFittedError(
                "this RefusalHead has no matrix yet; call fit (or load a fitted defence) first"
            )
        return self.matrix_

    def fit(
        self,
        states: Float[Tensor, "tokens dim"],
        targets: Int[Tensor, " tokens"],
        unembedding: Float[Tensor, "words dim"],
        *,
        rows: Int[Tensor, " tokens"] | None = None,
        bias: Float[Tensor, " words"] | None = None,
        held_out: Supervised | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> "RefusalHead":
        """Learn S from the unsteered final states under the refusal.

        Args:
            states: post-final-norm states, each of which predicts one supervised token.
            targets: the tokens that they should predict.
            unembedding: E, the weight of the output layer.
            rows: the answer that each token belongs to, so that batches hold whole answers.
            bias: that of the output layer, where it has one.
            held_out: states and targets of answers kept back, by which the epoch is chosen.
            device: where to train; where the unembedding is if left out.
            progress: show a bar.

        Raises:
            ValueError: shapes that do not fit, states that are not finite, targets outside the
                vocabulary, or no held-out answers where the checkpoint rule needs them.
        """
        if self.checkpoint == "held_out" and held_out is None:
            raise ValueError(
                "checkpoint='held_out' needs held_out=(states, targets); pass some answers, or use checkpoint='last'"
            )
        target_device = unembedding.device if device is None else torch.device(device)
        words = unembedding.detach().to(target_device, torch.float32)
        offset = None if bias is None else bias.detach().to(target_device, torch.float32)
        training = _checked(states, targets, words, what="training", device=target_device)
        kept_back = (
            None if held_out is None else _checked(*held_out, words, what="held-out", device=target_device)
        )
        order = _BatchOrder(
            torch.arange(len(targets)) if rows is None else rows, batch_size=self.batch_size, seed=self.seed
        )
        if len(order) != len(targets):
            raise ValueError(
                f"{len(order)} row indices for {len(targets)} supervised tokens: give one for each"
            )
        with torch.enable_grad():
            self._train(*training, words, offset, order=order, held_out=kept_back, progress=progress)
        return self

    def to(self, device: torch.device | str) -> "RefusalHead":
        """Move the matrix, so that steering there copies nothing."""
        self.matrix_ = self.matrix.to(device)
        return self

    @classmethod
    def from_matrix(
        cls,
        matrix: Float[Tensor, "dim dim"],
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        history: list[EpochRecord] | None = None,
        chosen_epoch: int = 0,
    ) -> "RefusalHead":
        """A fitted head from a matrix S that exists already: a saved one, or one of one's own making."""
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"a steering matrix is [dim, dim], received {list(matrix.shape)}")
        head = cls(**(hyperparameters or {}))
        head.matrix_, head.history_, head.chosen_epoch_ = matrix.detach().float(), history or [], chosen_epoch
        return head

    def _train(
        self,
        states: Tensor,
        targets: Tensor,
        words: Tensor,
        bias: Tensor | None,
        *,
        order: "_BatchOrder",
        held_out: Supervised | None,
        progress: bool,
    ) -> None:
        matrix = torch.eye(states.shape[1], device=states.device).requires_grad_()
        optimiser = torch.optim.AdamW([matrix], lr=self.lr, weight_decay=self.weight_decay, fused=True)
        kept = KeptWeights([matrix.unsqueeze(0)], checkpoint=self.checkpoint, epochs=self.epochs)
        curves = []
        for epoch in trange(1, self.epochs + 1, desc="refusal head", unit="epoch", disable=not progress):
            total = torch.zeros(2, device=states.device)
            for batch in order.epoch(states.device):
                logits = _logits(states[batch], matrix, words, bias, epsilon=self.epsilon)
                loss = cross_entropy(logits, targets[batch])
                (matrix.grad,) = torch.autograd.grad(loss, matrix)
                optimiser.step()
                total += torch.stack(
                    ((logits.argmax(-1) == targets[batch]).sum(), loss.detach() * len(batch))
                )
            point = {"train": total / len(targets)}
            if held_out is not None:
                point["held_out"] = self._measure(*held_out, matrix, words, bias)
                kept.offer(epoch, accuracy=point["held_out"][:1], loss=point["held_out"][1:])
            else:
                kept.offer(epoch)
            curves.append(point)
        self.history_ = [
            EpochRecord(index, split, *figures.tolist())
            for index, point in enumerate(curves, start=1)
            for split, figures in point.items()
        ]
        self.matrix_ = kept.kept[0][0]
        self.chosen_epoch_ = int(kept.chosen[0])

    @torch.no_grad()
    def _measure(
        self, states: Tensor, targets: Tensor, matrix: Tensor, words: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "2"]:
        """Accuracy and mean loss, a bounded number of logits at a time."""
        chunk = max(1, LOGITS_PER_CHUNK // len(words))
        total = torch.zeros(2, device=states.device)
        for some, aims in zip(states.split(chunk), targets.split(chunk), strict=True):
            logits = _logits(some, matrix, words, bias, epsilon=self.epsilon)
            total += torch.stack(
                ((logits.argmax(-1) == aims).sum(), cross_entropy(logits, aims, reduction="sum"))
            )
        return total / len(targets)


class _BatchOrder:
    """Token indices of batches of whole rows, the rows in a new order each epoch."""

    def __init__(self, rows: Int[Tensor, " tokens"], *, batch_size: int, seed: int) -> None:
        _, self._row, self._tokens = rows.cpu().unique(return_inverse=True, return_counts=True)
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._row)

    def epoch(self, device: torch.device) -> Iterator[Tensor]:
        permutation = torch.randperm(len(self._tokens), generator=self._generator)
        tokens = torch.argsort(permutation.argsort()[self._row], stable=True)
        sizes = [int(group.sum()) for group in self._tokens[permutation].split(self._batch_size)]
        yield from tokens.to(device).split(sizes)


def _logits(
    states: Tensor, matrix: Tensor, words: Tensor, bias: Tensor | None, *, epsilon: float
) -> Float[Tensor, "tokens words"]:
    return torch.nn.functional.linear(steer(states, matrix, epsilon=epsilon), words, bias)


def _checked(
    states: Tensor, targets: Tensor, words: Tensor, *, what: str, device: torch.device
) -> Supervised:
    if (
        states.ndim != 2
        or targets.shape != states.shape[:1]
        or states.shape[1:] != words.shape[1:]
        or not len(targets)
    ):
        raise ValueError(
            f"{what}: states {list(states.shape)}, targets {list(targets.shape)} and unembedding {list(words.shape)} "
            "must be [tokens, dim], [tokens] and [words, dim] with at least one token; "
            "states and unembedding belong to one model"
        )
    if not bool(states.isfinite().all()):
        token = int((~states.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{what}: the state of token {token} is not finite; compute the states in bfloat16 or float32"
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(words):
        raise ValueError(
            f"{what}: targets span {low}…{high}; the vocabulary has 0…{len(words) - 1}: masked tokens must be left out"
        )
    return states.detach().to(device, torch.float32), targets.to(device, torch.long)
