"""Small steerings for tests: the least that the Steering protocol asks for."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autosteer_lib.sites import Attachment, Edit, Site, logits


class Shift:
    """Adds a vector at one site, at every token, in the rows of a gate; scores are the gate itself."""

    def __init__(self, site: Site, vector: Tensor, *, gate: Sequence[bool] | None = None) -> None:
        self.site = site
        self.vector = vector
        self.gate_score: Tensor | None = None
        self.triggered: Tensor | None = None
        if gate is not None:
            self.triggered = torch.tensor(gate)
            self.gate_score = self.triggered.float()

    def edits(self) -> Mapping[Site, Edit]:
        return {self.site: self.edit}

    def bind(self, attachment: Attachment) -> None:
        del attachment  # this one is never inactive

    def edit(self, hidden: Tensor) -> Tensor:
        vector = self.vector.to(hidden)
        if self.triggered is None:
            return hidden + vector
        return hidden + self.triggered.to(hidden.device)[:, None, None] * vector


class Recording:
    """Another steering (or none), and the logits of the last token of each pass."""

    def __init__(self, inner: Shift | None = None) -> None:
        self.inner = inner
        self.gate_score = None if inner is None else inner.gate_score
        self.triggered = None if inner is None else inner.triggered
        self.logits: list[Tensor] = []

    def edits(self) -> Mapping[Site, Edit]:
        return {**({} if self.inner is None else self.inner.edits()), logits(): self.read}

    def bind(self, attachment: Attachment) -> None:
        if self.inner is not None:
            self.inner.bind(attachment)

    def read(self, hidden: Tensor) -> None:
        self.logits.append(hidden[:, -1].clone())


class Idle:
    """Looks at the prefill once, finds nothing to do and detaches itself: the inactive defence."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.gate_score: Tensor | None = None
        self.triggered: Tensor | None = None
        self.calls = 0
        self.detach: Callable[[Site], None] | None = None

    def edits(self) -> Mapping[Site, Edit]:
        return {self.site: self.edit}

    def bind(self, attachment: Attachment) -> None:
        self.detach = attachment.detach

    def edit(self, hidden: Tensor) -> None:
        self.calls += 1
        self.gate_score = torch.zeros(len(hidden))
        self.triggered = torch.zeros(len(hidden), dtype=torch.bool)
        assert self.detach is not None
        self.detach(self.site)
