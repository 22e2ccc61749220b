"""Add vectors to the states of a batch, at every token of prompt and answer, in the rows whose gate is open.

    prefill   read the gate's site → score, open? one each row; then write h + v_s at each site s
    decode    write h + v_s, with the gates of the prefill

A gate must be read no later than the first place that is written. One that opens in no row removes all hooks,
so the rest of the batch runs on the plain model; a row whose gate is shut keeps its states bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.sites import Attachment, Edit, Site


class Gate(NamedTuple):
    """Where and how a batch's rows are chosen."""

    site: Site
    decide: Callable[[Tensor], tuple[Tensor, Tensor]]
    """States of the whole prompt [batch, tokens, dim] → (score, open?), each [batch]."""


class GatedVectors:
    """Edits of one batch; see `generation.Steering`."""

    def __init__(self, vectors: Mapping[Site, Float[Tensor, " dim"]], *, gate: Gate | None = None) -> None:
        """Prepare for one batch.

        Args:
            vectors: what is added where.
            gate: None adds it in every row.

        Raises:
            ValueError: a site that is passed before the gate's.
        """
        early = [site for site in vectors if gate is not None and _order(site) < _order(gate.site)]
        if gate is not None and early:
            raise ValueError(
                f"vectors at {', '.join(map(str, early))} would be added before the gate at {gate.site} is read; read "
                "it at the same site or earlier"
            )
        self.gate_score: Float[Tensor, " batch"] | None = None
        self.triggered: Bool[Tensor, " batch"] | None = None
        self._vectors, self._gate = dict(vectors), gate
        self._rows: Tensor | None = None
        self._added: dict[Site, Tensor] = {}
        self._attachment: Attachment | None = None

    def edits(self) -> Mapping[Site, Edit]:
        """Read the gate, write the vectors."""
        edits: dict[Site, Edit] = {site: partial(self._write, site) for site in self._vectors}
        if self._gate is not None:
            both = self._gate.site in self._vectors
            edits[self._gate.site] = self._read_and_write if both else self._read
        return edits

    def bind(self, attachment: Attachment) -> None:
        """Keep the hooks at hand, to remove those that have done their work."""
        self._attachment = attachment

    def _read(self, hidden: Float[Tensor, "batch tokens dim"]) -> None:
        assert self._attachment is not None
        assert self._gate is not None
        self._attachment.detach(self._gate.site)
        self._decide(hidden)

    def _read_and_write(self, hidden: Float[Tensor, "batch tokens dim"]) -> Tensor | None:
        assert self._gate is not None
        some_open = True if self.triggered is not None else self._decide(hidden)
        return self._write(self._gate.site, hidden) if some_open else None

    def _decide(self, hidden: Float[Tensor, "batch tokens dim"]) -> bool:
        """Whether any gate is open: the one question to the device, in the prefill."""
        assert self._attachment is not None
        assert self._gate is not None
        score, opened = self._gate.decide(hidden)
        broken = ~score.isfinite()
        some_open, all_open, some_broken = torch.stack((opened.any(), opened.all(), broken.any())).tolist()
        if some_broken:
            rows = broken.nonzero().flatten().tolist()
            raise ValueError(
                f"the gate's score at {self._gate.site} is not finite in rows {rows} of the batch: the states "
                "overflowed or are broken, and such a prompt must not pass as safe; load the model in bfloat16 or float32"
            )
        self.gate_score, self.triggered = score, opened
        if not some_open:
            for site in self._vectors:
                self._attachment.detach(site)
        self._rows = None if all_open else opened
        return bool(some_open)

    def _write(
        self, site: Site, hidden: Float[Tensor, "batch tokens dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        if site not in self._added:  # once: no copy between devices while decoding
            vector = self._vectors[site].to(hidden.device, torch.float32)
            rows = self._rows
            self._added[site] = vector if rows is None else rows.to(hidden.device)[:, None, None] * vector
        # The sum in float32, rounded once: adding nothing changes nothing.
        return (hidden.float() + self._added[site]).to(hidden.dtype)


def _order(site: Site) -> int:
    """Place of a block's border in a pass."""
    assert site.layer is not None
    return 2 * site.layer + (site.kind == "resid_post")
