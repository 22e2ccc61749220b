"""Steer: the Refusal Head on every answer, without a gate (LM-Steer, AutoSteer's ablation).

    h_t' = h_t + ε h_t Sᵀ    for the state after the final norm that predicts token t, at every t

It shows what the gate is for: the same matrix refuses as much, and answers worse where nothing was
to be refused. Nothing enters the cache of keys and values; only the next token's logits change.

Source: AutoSteer §4.1 and §4.4.4 (the sweep over ε); LM-Steer (Han et al. 2024).
"""

from collections.abc import Mapping
from types import NoneType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.arguments import check_given, check_numbers
from autosteer_lib.defences.base import SteeringDefence
from autosteer_lib.encoding import Encoded
from autosteer_lib.fitted_state import FittedOn, state_hash
from autosteer_lib.models import MLLM
from autosteer_lib.refusal_head import RefusalHead, steer
from autosteer_lib.sites import Attachment, Edit, Site, final_norm


class Steer(SteeringDefence):
    """The Refusal Head, always on."""

    name = "Steer"

    def __init__(self, head: RefusalHead, *, epsilon: float = 0.1, fitted_on: FittedOn | None = None) -> None:
        """Steer with a fitted head.

        Args:
            head: fitted, or made with `RefusalHead.from_matrix`.
            epsilon: strength; 0 is the plain model. The paper trains and tests at 0.1.
            fitted_on: the model that the head belongs to, to be refused on others; only its width is
                checked if left out.
        """
        check_given(
            head,
            RefusalHead,
            name="head",
            remedy="head_ of a fitted AutoSteer, or RefusalHead.from_matrix(…)",
        )
        check_numbers(epsilon=epsilon)
        remedy = "fitted_on_ of a fitted AutoSteer, or leave it out"
        check_given(fitted_on, (FittedOn, NoneType), name="fitted_on", remedy=remedy)
        self.head = head
        self.epsilon = epsilon
        self.fitted_on = fitted_on
        self._matrix_hash = state_hash({"matrix": head.matrix}, {})

    @property
    def fingerprint(self) -> str:
        """Hash of the matrix and of ε."""
        settings = {"defence": "steer", "epsilon": self.epsilon, "matrix": self._matrix_hash}
        return state_hash({}, settings)

    def steering(self, mllm: MLLM, encoded: Encoded) -> "HeadSteering | None":
        """Edits for one batch; None at ε = 0."""
        check_head(self.head, mllm, fitted_on=self.fitted_on)
        return HeadSteering(self.head, epsilon=self.epsilon) if self.epsilon else None


class HeadSteering:
    """The Refusal Head for one batch of answers, in every row."""

    gate_score: Float[Tensor, " batch"] | None = None
    triggered: Bool[Tensor, " batch"] | None = None

    def __init__(self, head: RefusalHead, *, epsilon: float) -> None:
        self._head = head
        self._epsilon = epsilon

    def edits(self) -> Mapping[Site, Edit]:
        """Write after the final norm."""
        return {final_norm(): self._write}

    def bind(self, attachment: Attachment) -> None:
        """Nothing to detach: it is on for the whole answer."""

    def _write(self, hidden: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        return steer_last(hidden, self._head, epsilon=self._epsilon)


def steer_last(
    hidden: Float[Tensor, "batch tokens dim"],
    head: RefusalHead,
    *,
    epsilon: float,
    gate: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch tokens dim"]:
    """Steer the last position: the one that predicts, in the prefill and in each step after it."""
    matrix = head.to(hidden.device).matrix  # moves once; no copy from then on
    last = steer(hidden[:, -1:], matrix, epsilon=epsilon, gate=gate)
    return last if hidden.shape[1] == 1 else torch.cat((hidden[:, :-1], last), dim=1)


def check_head(head: RefusalHead, mllm: MLLM, *, fitted_on: FittedOn | None) -> None:
    """Refuse a head of another model.

    Raises:
        ValueError: names both models, or both widths.
    """
    if fitted_on is not None:
        fitted_on.check(mllm)
    if head.matrix.shape[0] != mllm.dim:
        raise ValueError(
            f"the steering matrix is {list(head.matrix.shape)} and the states of {mllm.name} have {mllm.dim} numbers; "
            "fit a head on this model"
        )
