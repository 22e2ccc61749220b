"""K-Steering's classifier of states, and the two ways its gradient moves them.

    g(h)    = W3 ReLU(W2 ReLU(W1 h + b1) + b2) + b3            K labels, σ(g_k) = P(label k)
    L(h)    = mean over avoided labels of g − mean over wanted labels of g = cᵀ u₂ + constant
    ∇L      = W1ᵀ (1[u₁ > 0] ⊙ W2ᵀ (1[u₂ > 0] ⊙ c))         u₁, u₂: the hidden units
    Alg. 1  h ← h − α γ^s ∇L(h)                    s = 0 … S − 1
    Alg. 2  h ← h − 2 ⟨h, n⟩ n,   n = ∇L / ‖∇L‖       mirrored across the gradient's normal plane

L is a number of one token's state, and so is its gradient. The published code takes one mean over all tokens before
the gradient: each token's step is then divided by their number, which is the prompt's length in the prefill
and 1 while decoding, and so α means two things. Here a token's step depends on its own state alone. The gradient is
written out: recording a graph of three products for each token took several times as long.

Source: K-Steering (arXiv 2505.24535) §3; sizes and training as in its code (Adam 1e-3, batch 64, labels one-hot or
several to a state).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear, relu

Algorithm: TypeAlias = Literal["descent", "reflection"]


class ClassifierWeights(NamedTuple):
    """The weights of g."""

    w1: Float[Tensor, "width dim"]
    b1: Float[Tensor, " width"]
    w2: Float[Tensor, "width width"]
    b2: Float[Tensor, " width"]
    w3: Float[Tensor, "labels width"]
    b3: Float[Tensor, " labels"]


def label_logits(
    weights: ClassifierWeights, states: Float[Tensor, "*any dim"]
) -> Float[Tensor, "*any labels"]:
    """g of each state."""
    hidden = relu(linear(states, weights.w1, weights.b1))
    return linear(relu(linear(hidden, weights.w2, weights.b2)), weights.w3, weights.b3)


def train_classifier(
    states: Float[Tensor, "rows dim"],
    labels: Bool[Tensor, "rows labels"],
    *,
    width: int = 128,
    epochs: int = 30,
    lr: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> ClassifierWeights:
    """Train g with one binary cross-entropy a label, so that a state may have several.

    Args:
        states: last-token states of one layer.
        labels: which of them each state has.
        width: hidden units (128 in the library, 256 in the authors' notebooks).
        epochs: 1 in the library, 5 in the authors' benchmark, 30 in their notebooks (with one cross-entropy over labels).
        lr: of Adam.
        batch_size: states a step.
        seed: of the initial weights and of the order; the global random state is left alone.

    Raises:
        ValueError: no states, or a label that all states have, or none.
    """
    counts = labels.sum(dim=0)
    if not len(states) or bool(((counts == 0) | (counts == len(states))).any()):
        raise ValueError(
            f"labels are held by {counts.tolist()} of {len(states)} states; each must be held by some and not by all, or "
            "there is nothing to tell"
        )
    generator = torch.Generator().manual_seed(seed)
    weights = _initial(states.shape[1], width, labels.shape[1], generator)
    targets = labels.float()
    with torch.enable_grad():
        for tensor in weights:
            tensor.requires_grad_(True)
        optimiser = torch.optim.Adam(weights, lr=lr)
        for _ in range(epochs):
            for rows in torch.randperm(len(states), generator=generator).split(batch_size):
                optimiser.zero_grad()
                loss = binary_cross_entropy_with_logits(
                    label_logits(weights, states[rows].float()), targets[rows]
                )
                loss.backward()
                optimiser.step()
    return ClassifierWeights(*(tensor.detach() for tensor in weights))


class Objective(NamedTuple):
    """L up to a constant, laid out for its gradient.

    A token costs by the number of operations, so there are few. All are `linear` on weights that lie in memory as it
    reads them: on the CPU its product with a transposed view slowed the *rest* of a decoding step by 2 %.
    """

    w1: Float[Tensor, "width dim"]
    b1: Float[Tensor, " width"]
    w2: Float[Tensor, "width width"]
    b2: Float[Tensor, " width"]
    w2_back: Float[Tensor, "width width"]
    """(diag(c) W2)ᵀ: what the second units that are on hand back to each first one."""
    w1_back: Float[Tensor, "dim width"]
    """W1ᵀ."""

    @classmethod
    def of(cls, weights: ClassifierWeights, *, avoid: Sequence[int], target: Sequence[int]) -> Objective:
        """Steps down it lead away from the first labels and towards the others; either may be empty."""
        c = weights.w3[list(avoid)].sum(dim=0) / max(1, len(avoid))
        c = c - weights.w3[list(target)].sum(dim=0) / max(1, len(target))
        w1, b1, w2, b2 = weights[:4]
        return cls(w1, b1, w2, b2, (c[:, None] * w2).t().contiguous(), w1.t().contiguous())

    def to(self, device: torch.device) -> Objective:
        """The same elsewhere."""
        return Objective(*(tensor.to(device) for tensor in self))

    def gradient(self, states: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
        """∇L at each float32 state, its own only. The sign of a ReLU is 1[u > 0], and nan of nan."""
        first = linear(states, self.w1, self.b1).relu_()
        second_on = linear(first, self.w2, self.b2).relu_().sign_()
        return linear(linear(second_on, self.w2_back) * first.sign_(), self.w1_back)


def steered(
    objective: Objective,
    states: Float[Tensor, "*any dim"],
    *,
    algorithm: Algorithm,
    alpha: float = 1.0,
    decay: float = 1.0,
    steps: int = 1,
) -> Float[Tensor, "*any dim"]:
    """The states after Alg. 1 ("descent") or Alg. 2 ("reflection"), in float32.

    A state at which the gradient is 0 (all units off) stays where it is.
    """
    moved = states.float()
    for step in range(steps):
        gradient = objective.gradient(moved)
        if algorithm == "descent":
            moved = torch.add(moved, gradient, alpha=-alpha * decay**step)
        else:
            norm = gradient.norm(dim=-1, keepdim=True)
            normal = torch.where(norm > 0, gradient / norm, 0.0)
            moved = moved - 2 * (moved * normal).sum(dim=-1, keepdim=True) * normal
    return moved


def _initial(dim: int, width: int, labels: int, generator: torch.Generator) -> ClassifierWeights:
    """As nn.Linear draws them: uniform within 1/√inputs."""

    def draw(*shape: int, inputs: int) -> Tensor:
        bound = inputs**-0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    return ClassifierWeights(
        draw(width, dim, inputs=dim), draw(width, inputs=dim),
        draw(width, width, inputs=width), draw(width, inputs=width),
        draw(labels, width, inputs=width), draw(labels, inputs=width),
    )  # fmt: skip
