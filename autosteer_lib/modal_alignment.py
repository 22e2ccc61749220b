"""Modal semantic alignment vector (MSAV): from where image attacks lie towards where text attacks lie.

    μ = μ_SD − μ_CB        mean last-layer state of attacks in pictures, of the same attacks in words (eq. 7–8)
    α = ‖h₀ − μ_CB‖        h₀: the prompt's last token (eq. 9)
    h̄₀ = h₀ + α μ          where the prompt is judged harmful (eq. 10)

h₀ is the last layer's, so the shift changes which first tokens are likely, and no key or value.

Two things in it cannot be meant as printed. Adding μ leads away from the text attacks, whereas the paper says that
pictures are to look like words: "towards_text" adds −μ. And α, a distance, times μ, not of length 1, is a step that
grows with the square of the states' scale: "unit" takes μ/‖μ‖, so the step is as long as the way that it is to
bridge. Both are also there "as_printed".

Source: SafeSteer (arXiv 2605.11716) §4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Direction: TypeAlias = Literal["towards_text", "as_printed"]
Scale: TypeAlias = Literal["unit", "as_printed"]

RESOLUTION = 1e-5  # least ‖μ‖ as a share of ‖μ_CB‖, as in directions.py


@dataclass(frozen=True, kw_only=True, eq=False)
class ModalAlignment:
    """The two centroids; float32."""

    image_centroid: Float[Tensor, " dim"]
    """μ_SD."""
    text_centroid: Float[Tensor, " dim"]
    """μ_CB."""

    @classmethod
    def of(
        cls, image_attacks: Float[Tensor, "images dim"], text_attacks: Float[Tensor, "texts dim"]
    ) -> ModalAlignment:
        """From the states of both kinds of attack.

        Raises:
            ValueError: no states of a kind, kinds of different width, or one mean state for both.
        """
        if not len(image_attacks) or not len(text_attacks) or image_attacks.shape[1] != text_attacks.shape[1]:
            raise ValueError(
                f"image attacks {list(image_attacks.shape)} and text attacks {list(text_attacks.shape)} must be "
                "[prompts, dim] of one model, with at least one prompt each"
            )
        found = cls(
            image_centroid=image_attacks.double().mean(0).float(),
            text_centroid=text_attacks.double().mean(0).float(),
        )
        if found.difference.norm() <= RESOLUTION * found.text_centroid.norm():
            raise ValueError(
                f"the {len(image_attacks)} image attacks and {len(text_attacks)} text attacks have one and the same "
                "mean state, so there is no direction from one to the other; give prompts that differ"
            )
        return found

    @property
    def difference(self) -> Float[Tensor, " dim"]:
        """μ, as printed."""
        return self.image_centroid - self.text_centroid

    def shift(
        self, states: Float[Tensor, "batch dim"], *, direction: Direction, scale: Scale
    ) -> Float[Tensor, "batch dim"]:
        """What is added to each state, in float32."""
        states = states.float()
        vector = self.difference.to(states.device)
        if direction == "towards_text":
            vector = -vector
        if scale == "unit":
            vector = vector / vector.norm()
        distance = torch.linalg.vector_norm(
            states - self.text_centroid.to(states.device), dim=-1, keepdim=True
        )
        return distance * vector
