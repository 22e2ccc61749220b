"""Refusal direction: where a layer's states go when the model refuses.

    d = μ_ref − μ_acc,    d̂ = d / ‖d‖        μ_ref, μ_acc: mean last-prompt-token state of the prompts that the
                                             model refused, accepted
    Sep = mean over harmful of cos(h, d̂) − mean over harmless of cos(h, d̂)

d needs words alone. Sep asks how well it tells harm in any other input; it is for looking, nothing is chosen
by it. All at every layer at once: states are [prompts, layers, dim].

Where the two means are the same up to rounding there is no direction, and d̂ is 0: a first block of linear attention
may show the last token little but its template.

Source: MARS (arXiv 2606.31876) §2.2 eq. 1 and §3.1 eq. 3; Arditi et al. 2024 (2406.11717) for the direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Least ‖d‖ as a share of ‖μ‖: float32 states of one prompt differ by some 1e-7 of it from batch to batch.
RESOLUTION = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class TextCentroids:
    """What texts alone tell of refusal, at every layer; float32 on the CPU."""

    refused: Float[Tensor, "layers dim"]
    """μ_ref."""
    accepted: Float[Tensor, "layers dim"]
    """μ_acc."""
    pooled: Float[Tensor, "layers dim"]
    """Mean over all these texts, of both kinds."""
    refusals: int
    """Texts behind μ_ref."""
    acceptances: int
    """Texts behind μ_acc."""

    @classmethod
    def of(
        cls, refused: Float[Tensor, "refusals layers dim"], accepted: Float[Tensor, "acceptances layers dim"]
    ) -> TextCentroids:
        """From the states of refused and of accepted texts.

        Raises:
            ValueError: no states on a side, sides of different layers or width, or no direction at any layer.
        """
        if refused.shape[1:] != accepted.shape[1:] or not len(refused) or not len(accepted):
            raise ValueError(
                f"refused states {list(refused.shape)} and accepted states {list(accepted.shape)} must be "
                "[prompts, layers, dim] with at least one prompt each, of one model"
            )
        # Summed in float64, so that the order of the texts is lost in rounding.
        centroids = cls(
            refused=refused.double().mean(0).float(),
            accepted=accepted.double().mean(0).float(),
            pooled=torch.cat((refused, accepted)).double().mean(0).float(),
            refusals=len(refused),
            acceptances=len(accepted),
        )
        if not centroids.direction.any():
            raise ValueError(
                f"the {len(refused)} refused and {len(accepted)} accepted texts have one and the same mean state at "
                "every layer, so there is no direction from one to the other; give texts that differ"
            )
        return centroids

    @property
    def difference(self) -> Float[Tensor, "layers dim"]:
        """d."""
        return self.refused - self.accepted

    @property
    def direction(self) -> Float[Tensor, "layers dim"]:
        """d̂, of length 1; 0 at layers without a direction."""
        length = self.difference.norm(dim=-1, keepdim=True)
        there = length > RESOLUTION * self.pooled.norm(dim=-1, keepdim=True)
        return torch.where(there, self.difference / length, 0.0)


def separation(
    harmful: Float[Tensor, "harmful layers dim"],
    harmless: Float[Tensor, "harmless layers dim"],
    direction: Float[Tensor, "layers dim"],
) -> Float[Tensor, " layers"]:
    """Sep of each layer, in [−2, 2]; 0 where the direction tells nothing (MARS eq. 3).

    Raises:
        ValueError: an empty side, or states of other layers or width than the direction.
    """
    for name, side in (("harmful", harmful), ("harmless", harmless)):
        if side.shape[1:] != direction.shape or not len(side):
            raise ValueError(
                f"{name} states are {list(side.shape)}; they must be [prompts, layers, dim] with at least one "
                f"prompt, and [layers, dim] = {list(direction.shape)} as of the direction"
            )
    cosines = [torch.cosine_similarity(side, direction, dim=-1).mean(0) for side in (harmful, harmless)]
    return cosines[0] - cosines[1]
