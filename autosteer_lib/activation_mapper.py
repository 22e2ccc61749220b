"""From one model's states to another's, learnt from the states of the same texts.

    mlp      M(a) = W2 ReLU(W1 a + b1) + b2        trained by AdamW on the mean squared error; best epoch on held-out texts
    affine   M(a) = W a + b                        the control: least squares with a ridge, in closed form

    a vector v of the source becomes
    "difference"   v' = M(μ + v) − M(μ)           μ: mean of the source's states
    "as_printed"   v' = M(v)

As printed, v' holds M(0) besides, which is about the target's mean state and has nothing to do with v; for the
affine map the difference is W v exactly. So the difference is the default.

Both sides are standardised by mean and one common scale (not by coordinate: a direction must not be bent).
Hyper-parameters were not found in the paper's text at hand; those here are this project's.

Source: activation-space transfer (arXiv 2503.04429) §3: one hidden layer, MSE, affine control, 10 % validation.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, mse_loss, relu

from autosteer_lib.pairs import split_indices

MapperKind: TypeAlias = Literal["mlp", "affine"]
VectorMap: TypeAlias = Literal["difference", "as_printed"]


class Mapper(NamedTuple):
    """A fitted map. The affine one has no hidden layer: `w1` and `b1` are empty, [0, source] and [0]."""

    w1: Float[Tensor, "width source"]
    b1: Float[Tensor, " width"]
    w2: Float[Tensor, "target inner"]
    b2: Float[Tensor, " target"]
    source_mean: Float[Tensor, " source"]
    source_scale: Float[Tensor, ""]
    target_mean: Float[Tensor, " target"]
    target_scale: Float[Tensor, ""]

    @property
    def kind(self) -> MapperKind:
        """Which of the two it is."""
        return "mlp" if len(self.b1) else "affine"

    def __call__(self, states: Float[Tensor, "*rows source"]) -> Float[Tensor, "*rows target"]:
        """M of each state."""
        inner = (states - self.source_mean) / self.source_scale
        if self.kind == "mlp":
            inner = relu(linear(inner, self.w1, self.b1))
        return linear(inner, self.w2, self.b2) * self.target_scale + self.target_mean

    def vector(
        self, vector: Float[Tensor, " source"], *, how: VectorMap = "difference"
    ) -> Float[Tensor, " target"]:
        """v' of a vector of the source.

        Raises:
            ValueError: an unknown way.
        """
        if how not in ("difference", "as_printed"):
            raise ValueError(f"how={how!r} is not known; allowed: 'difference', 'as_printed'")
        if how == "as_printed":
            return self(vector)
        return self(self.source_mean + vector) - self(self.source_mean)


class FittedMapper(NamedTuple):
    """A map and how well it does."""

    mapper: Mapper
    explained: float
    """1 − (squared error) / (variance) on held-out texts: 1 is perfect, 0 no better than the target's mean."""


def fit_mapper(
    source: Float[Tensor, "texts source"],
    target: Float[Tensor, "texts target"],
    *,
    kind: MapperKind = "mlp",
    width: int | None = None,
    epochs: int = 200,
    lr: float = 1e-3,
    batch_size: int = 64,
    ridge: float = 1e-2,
    held_out: float = 0.1,
    seed: int = 0,
) -> FittedMapper:
    """Fit a map on the states of the same texts in both models, row by row.

    Args:
        source: states of the model that the vector comes from.
        target: states of the model that it goes to.
        kind: "mlp" or "affine".
        width: hidden units; None takes the wider of the two models' width.
        epochs: passes over the texts; the one of the least held-out error is kept.
        lr: of AdamW.
        batch_size: texts a step.
        ridge: of the affine map, on standardised states, for each text: keeps it from following noise where there
            are fewer texts than coordinates.
        held_out: share of the texts kept back.
        seed: of the split, the initial weights and the order; the global random state is left alone.

    Raises:
        ValueError: other rows on either side, fewer than four texts, or states that are all the same.
    """
    if kind not in ("mlp", "affine"):
        raise ValueError(f"kind={kind!r} is not known; allowed: 'mlp', 'affine'")
    if len(source) != len(target) or len(source) < 4:
        raise ValueError(
            f"{len(source)} source states and {len(target)} target states; a map needs the states of the same texts in "
            "the same order, at least 4"
        )
    train, kept_back = split_indices(len(source), held_out=held_out, seed=seed, least=2)
    a, a_mean, a_scale = _standardised(source, train, "source")
    b, b_mean, b_scale = _standardised(target, train, "target")
    scales = (a_mean, a_scale, b_mean, b_scale)
    if kind == "affine":
        mapper = Mapper(
            a.new_zeros(0, a.shape[1]), a.new_zeros(0), *_affine(a[train], b[train], ridge), *scales
        )
    else:
        generator = torch.Generator().manual_seed(seed)
        weights = _initial(a.shape[1], width or max(a.shape[1], b.shape[1]), b.shape[1], generator)
        best = _train(
            weights, a, b, train, kept_back, epochs=epochs, lr=lr, batch_size=batch_size, generator=generator
        )
        w1, b1, w2, b2 = best
        mapper = Mapper(w1, b1, w2, b2, *scales)
    error = (mapper(source[kept_back].float()) - target[kept_back].float()).square().sum()
    variance = (target[kept_back].float() - b_mean).square().sum()
    return FittedMapper(mapper, float(1 - error / variance))


def _standardised(states: Tensor, rows: list[int], name: str) -> tuple[Tensor, Tensor, Tensor]:
    states = states.float()
    mean = states[rows].mean(dim=0)
    scale = (states[rows] - mean).square().mean().sqrt()
    if not scale > 0:
        raise ValueError(
            f"all {name} states are one and the same, so there is nothing to map; give texts that differ, or another layer"
        )
    return (states - mean) / scale, mean, scale


def _affine(a: Tensor, b: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """(W, b) of the least squares; both sides have mean 0 on these rows, so b is 0."""
    a, b = a.double(), b.double()
    gram = a.T @ a + ridge * len(a) * torch.eye(a.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, a.T @ b).T.float().contiguous(), b.new_zeros(b.shape[1]).float()


def _train(
    weights: list[Tensor],
    a: Tensor,
    b: Tensor,
    train: list[int],
    kept_back: list[int],
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    generator: torch.Generator,
) -> list[Tensor]:
    rows = torch.tensor(train)
    best, least = weights, float("inf")
    optimiser = torch.optim.AdamW(weights, lr=lr)
    for _ in range(epochs):
        with torch.enable_grad():
            for chosen in rows[torch.randperm(len(rows), generator=generator)].split(batch_size):
                optimiser.zero_grad()
                mse_loss(_mlp(weights, a[chosen]), b[chosen]).backward()
                optimiser.step()
        with torch.no_grad():
            error = float(mse_loss(_mlp(weights, a[kept_back]), b[kept_back]))
        if error < least:
            best, least = [tensor.detach().clone() for tensor in weights], error
    return best


def _mlp(weights: list[Tensor], states: Tensor) -> Tensor:
    w1, b1, w2, b2 = weights
    return linear(relu(linear(states, w1, b1)), w2, b2)


def _initial(source: int, width: int, target: int, generator: torch.Generator) -> list[Tensor]:
    """As nn.Linear draws them: uniform within 1/√inputs."""

    def draw(*shape: int, inputs: int) -> Tensor:
        bound = inputs**-0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator).requires_grad_(True)

    return [
        draw(width, source, inputs=source), draw(width, inputs=source),
        draw(target, width, inputs=width), draw(target, inputs=width),
    ]  # fmt: skip
