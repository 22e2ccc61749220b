"""Steering by a fixed strength: MARS' preliminary study, to see why the direction of texts misfires on pictures.

    h̄ = h + α ⟨h, d̂⟩ d̂                 raw; or ⟨h_c, d̂⟩ with the re-centred state h_c = h − μ

A factor on what is there already: a state on the wrong side of the origin is pushed further away from refusal.
One layer, in the prefill, like MARS itself; direction and centres are those of a fitted `Mars`.

Source: MARS (arXiv 2606.31876) §2.2, eq. 2; α ∈ {1, 2, 3}.
"""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor

from autosteer_lib.arguments import check_numbers
from autosteer_lib.defences.base import SteeringDefence
from autosteer_lib.defences.mars import Mars
from autosteer_lib.defences.prefill_shift import PrefillShift
from autosteer_lib.encoding import Encoded
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.models import MLLM
from autosteer_lib.trust_region import Step


class FixedStrength(SteeringDefence):
    """A multiple of the state's own projection, added in every row."""

    name = "fixed strength"

    def __init__(self, mars: Mars, *, layer: int, alpha: float, recentre: bool = False) -> None:
        """Steer with a fitted direction.

        Args:
            mars: fitted; its direction, centres and reading are used, not its layer.
            layer: the block whose output is steered.
            alpha: strength; 0 is the plain model.
            recentre: whether the projection is of the re-centred state.

        Raises:
            NotFittedError: `mars` is not fitted.
            ValueError: a layer that does not exist.
        """
        check_numbers(alpha=alpha)
        self.mars = mars.retuned(layer=layer, recentre=recentre)
        self.layer, self.alpha = layer, alpha

    @property
    def fingerprint(self) -> str:
        """Hash of the fit, the layer and α."""
        return state_hash({}, {"defence": self.name, "alpha": self.alpha, "mars": self.mars.fingerprint})

    def steering(self, mllm: MLLM, encoded: Encoded) -> PrefillShift | None:
        """Edits for this batch; None at α = 0."""
        self.mars.fitted_on_.check(mllm)
        if not self.alpha:
            return None
        centres = self.mars.centres(encoded.prompts, layer=self.layer)
        shift = partial(self._step, self.mars.direction[self.layer], centres)
        return PrefillShift({self.layer: shift}, positions=self.mars.reading.positions)

    def _step(
        self,
        direction: Float[Tensor, " dim"],
        centre: Float[Tensor, "batch dim"],
        hidden: Float[Tensor, "batch tokens dim"],
    ) -> Step:
        direction, centre = direction.to(hidden.device), centre.to(hidden.device)
        projection = (hidden - centre.unsqueeze(1)) @ direction
        return Step(self.alpha * projection.unsqueeze(-1) * direction, projection, projection != 0)
