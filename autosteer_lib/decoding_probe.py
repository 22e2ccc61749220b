"""Decoding-Probe: how harmful is a state of the last layer? Four principal components and a logistic regression.

    v = Cᵀ(h − m)          m: mean over all training states, C: [dim, components], their first principal components
    s = Wᵀv + b            W: [components], b: one number; σ(s) is P(harmful)

Fitted on the last prompt token's state of harmful (y = 1) and harmless (y = 0) prompts, and then asked about answer
tokens too (`defences/reranking.py`).

How W and b are fitted the paper leaves open. "converged" is the usual logistic regression, with the usual penalty
‖W‖²/2, solved to its one minimum, so that nothing depends on a learning rate or on where it starts. "rds" is the
recipe of the same group's earlier code: full-batch AdamW from random values until the loss has not fallen by 1e-4
for three epochs in a row. (That code clips gradients before there are any, so nothing is clipped here either.)

Source: SafeSteer (arXiv 2605.11716) §4.1, eq. 1–2; RDS (2410.06809), its estimate.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Float
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

Solver: TypeAlias = Literal["converged", "rds"]

COMPONENTS = 4  # SafeSteer §5.1
_LEARNING_RATE, _LEAST_GAIN, _PATIENCE, _MOST_EPOCHS = 1e-3, 1e-4, 3, 10_000  # RDS, estimate.py
_TENSORS = ("mean", "components", "weight", "bias", "explained")


class DecodingProbe:
    """Fitted values end in an underscore; they are float32, on the CPU unless moved by `to`."""

    mean_: Float[Tensor, " dim"]
    """m."""
    components_: Float[Tensor, "components dim"]
    """Cᵀ: orthonormal rows, the widest spread first."""
    weight_: Float[Tensor, " components"]
    """W."""
    bias_: Float[Tensor, ""]
    """b."""
    explained_: Float[Tensor, " components"]
    """Share of the training states' variance along each component."""
    losses_: tuple[float, ...]
    """Mean loss on the training states, epoch by epoch; empty where the solver has no epochs."""

    def __init__(self, *, components: int = COMPONENTS, solver: Solver = "converged", seed: int = 0) -> None:
        """Hyper-parameters.

        Args:
            components: of the principal component analysis.
            solver: of the regression; see the file's header.
            seed: of "rds"' first values.
        """
        if components < 1:
            raise ValueError(f"components = {components}; give at least 1 (the paper takes {COMPONENTS})")
        if solver not in get_args(Solver):
            raise ValueError(
                f"solver = {solver!r} is not known; allowed: {', '.join(map(repr, get_args(Solver)))}"
            )
        self.components, self.solver, self.seed = components, solver, seed

    def fit(
        self, harmful: Float[Tensor, "harmful dim"], harmless: Float[Tensor, "harmless dim"]
    ) -> DecodingProbe:
        """Find m, C, W and b from last-prompt-token states of one layer.

        Raises:
            ValueError: a side without states, sides of different width, too few states for the components, or states
                that are not finite or all the same.
        """
        check_sides(len(harmful), len(harmless), components=self.components)
        if harmful.shape[1] != harmless.shape[1] or harmful.shape[1] < self.components:
            raise ValueError(
                f"harmful states {list(harmful.shape)} and harmless ones {list(harmless.shape)} must be [prompts, dim] "
                f"of one model, with a dim of at least {self.components}, the number of components"
            )
        states = torch.cat((harmful, harmless)).double().cpu()
        if not bool(states.isfinite().all()):
            raise ValueError("states to fit a probe on are not finite; load the model in bfloat16 or float32")
        mean = states.mean(0)
        _, spread, rows = torch.linalg.svd(states - mean, full_matrices=False)
        variance = spread.square() / spread.square().sum()
        if not bool(variance.isfinite().all()):
            raise ValueError(
                f"all {len(states)} states are the same, so nothing tells harmful prompts from harmless ones; read "
                "another site, or give prompts that differ"
            )
        self.mean_ = mean.float()
        # In the layout in which they are saved and read back: sums in another order round otherwise.
        self.components_ = _same_signs(rows[: self.components]).float().contiguous()
        self.explained_ = variance[: self.components].float()
        found = (states - mean) @ self.components_.double().T
        labels = torch.cat((torch.ones(len(harmful)), torch.zeros(len(harmless)))).double()
        solve = {"converged": self._converged, "rds": self._as_rds}[self.solver]
        weight, bias, self.losses_ = solve(found, labels)
        self.weight_, self.bias_ = weight.float(), bias.float()
        return self

    def project(self, states: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows components"]:
        """v of eq. 1, in float32."""
        self._check_fitted()
        mean, components = (tensor.to(states.device) for tensor in (self.mean_, self.components_))
        return (states.float() - mean) @ components.T

    def score(self, states: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
        """s of eq. 2: above 0 where harmful is the likelier of the two."""
        found = self.project(states)
        return found @ self.weight_.to(found.device) + self.bias_.to(found.device)

    def to(self, device: torch.device) -> DecodingProbe:
        """A copy whose tensors are on a device, so that scoring there moves nothing."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self.from_tensors(moved, losses=self.losses_, **self.hyperparameters)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """As `__init__` takes them."""
        return {"components": self.components, "solver": self.solver, "seed": self.seed}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that a score depends on, and `explained`."""
        self._check_fitted()
        return {name: getattr(self, f"{name}_") for name in _TENSORS}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], *, losses: Sequence[float], **hyperparameters: Any
    ) -> DecodingProbe:
        """A fitted probe from `tensors`, `losses_` and `hyperparameters`."""
        probe = cls(**hyperparameters)
        for name in _TENSORS:
            setattr(probe, f"{name}_", tensors[name])
        probe.losses_ = tuple(losses)
        return probe

    def _converged(self, found: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[float, ...]]:
        regression = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000)
        regression.fit(found.numpy(), labels.numpy())
        weight = torch.from_numpy(np.ascontiguousarray(regression.coef_[0]))
        return weight, torch.tensor(float(regression.intercept_[0]), dtype=torch.float64), ()

    def _as_rds(self, found: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[float, ...]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            linear = nn.Linear(self.components, 1, dtype=torch.float64)
        optimiser = torch.optim.AdamW(linear.parameters(), lr=_LEARNING_RATE)
        losses: list[float] = []
        lowest, in_vain = float("inf"), 0
        best = (linear.weight.detach()[0].clone(), linear.bias.detach()[0].clone())
        while len(losses) < _MOST_EPOCHS and in_vain < _PATIENCE:
            optimiser.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(linear(found).squeeze(-1), labels)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            in_vain += 1
            if losses[-1] < lowest - _LEAST_GAIN:
                lowest, in_vain = losses[-1], 0
                best = (linear.weight.detach()[0].clone(), linear.bias.detach()[0].clone())
        return *best, tuple(losses)

    def _check_fitted(self) -> None:
        if not hasattr(self, "bias_"):
            raise NotFittedError(
                "this DecodingProbe is not fitted; call fit(harmful, harmless), or DecodingProbe.from_tensors"
            )


def check_sides(harmful: int, harmless: int, *, components: int = COMPONENTS) -> None:
    """Check that there is something to fit a probe on, before states are computed.

    Raises:
        ValueError: one class is missing, or there are no more prompts than components.
    """
    if not harmful or not harmless:
        raise ValueError(
            f"{harmful} harmful and {harmless} harmless prompts: a probe tells one class from the other and needs "
            "both; give some of each (SafeSteer takes 200 and 200)"
        )
    if harmful + harmless <= components:
        raise ValueError(
            f"{harmful} harmful and {harmless} harmless prompts span at most {harmful + harmless - 1} directions, and "
            f"{components} principal components are asked for; give more prompts, or fewer components"
        )


def _same_signs(rows: Float[Tensor, "components dim"]) -> Float[Tensor, "components dim"]:
    """Each row's largest entry positive: a decomposition leaves signs open, and they differ between libraries."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return rows * largest.sign()
