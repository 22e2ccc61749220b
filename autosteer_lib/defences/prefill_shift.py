"""Shift the prompt's states once: in the prefill, at chosen layers, and never again.

    h̄_l = h_l + shift_l(h_l)        output of block l; which tokens, and by whose step: `MarsReading.positions`

What the answer's later tokens see of it is the cache of keys and values above layer l. Each hook goes away
as soon as it has written, so decoding runs on the plain model: one hook, one pass, whatever the answer's length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.mars_readings import Positions
from autosteer_lib.sites import Attachment, Edit, Site, resid_post
from autosteer_lib.trust_region import Step

Shift: TypeAlias = Callable[[Float[Tensor, "batch tokens dim"]], Step]


class PrefillShift:
    """Edits of one batch; see `generation.Steering`."""

    def __init__(self, shifts: Mapping[int, Shift], *, positions: Positions) -> None:
        """Prepare for one batch.

        Args:
            shifts: by layer, from states in float32 to steps.
            positions: which tokens are moved, and by whose step.
        """
        self.gate_score: Float[Tensor, " batch"] | None = None
        self.triggered: Bool[Tensor, " batch"] | None = None
        self._shifts, self._positions = shifts, positions
        self._attachment: Attachment | None = None

    def edits(self) -> Mapping[Site, Edit]:
        """Write after each of the blocks."""
        return {resid_post(layer): partial(self._write, layer) for layer in self._shifts}

    def bind(self, attachment: Attachment) -> None:
        """Keep the hooks at hand, to remove those that have done their work."""
        self._attachment = attachment

    def _write(
        self, layer: int, hidden: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        assert self._attachment is not None
        self._attachment.detach(resid_post(layer))
        seen = hidden if self._positions == "each" else hidden[:, -1:]
        step = self._shifts[layer](seen.float())
        last_only = self._positions == "last_only"
        moved = _moved(hidden[:, -1:] if last_only else hidden, step.vector)
        self._note(layer, step, moved)
        return torch.cat((hidden[:, :-1], moved), dim=1) if last_only else moved

    def _note(self, layer: int, step: Step, moved: Float[Tensor, "batch moved dim"]) -> None:
        """A row counts as triggered if any layer moved its last token; the score is the highest layer's."""
        projection, moves = step.projection[:, -1], step.moves[:, -1]
        # Padding counts too: attention weighs its values by 0, and 0 · ∞ is no number.
        broken = ~(projection.isfinite() & moved.flatten(1).isfinite().all(dim=-1))
        if bool(broken.any()):  # the one question to the device, in the prefill
            rows = broken.nonzero().flatten().tolist()
            raise ValueError(
                f"the projection or the moved state at {resid_post(layer)} is not finite in rows {rows} of the batch: the "
                "states overflowed or are broken, and such a prompt must not pass as safe; load the model in bfloat16 or "
                "float32"
            )
        self.gate_score = projection
        self.triggered = moves if self.triggered is None else self.triggered.to(moves.device) | moves


def _moved(hidden: Tensor, vector: Tensor) -> Tensor:
    """The sum in float32, rounded once: adding nothing changes nothing."""
    return (hidden.float() + vector).to(hidden.dtype)
