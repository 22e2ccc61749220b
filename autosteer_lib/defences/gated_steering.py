"""The gate and the head at work on one batch of answers.

    prefill   read h_L at the last prompt token → s → α, one for each row; write h' at the last position
    decode    write h' at the one position, with the α of the prefill

Nothing is kept outside this object and it serves one batch: so gates are per row and per answer, and
two models or two batches cannot meet in them. Reading ends with the prefill. If no gate opened, so
does writing: the rest of the batch runs on the plain model, without a hook. A row that is not
steered keeps its states bit for bit.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autosteer_lib.defences.steer import steer_last
from autosteer_lib.probers import SafetyProber
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.sites import Attachment, Edit, Site, final_norm, resid_pre


class GatedSteering:
    """Edits of one batch; see `generation.Steering`."""

    def __init__(
        self,
        prober: SafetyProber,
        head: RefusalHead,
        *,
        layer: int,
        epsilon: float,
        opens: Callable[[Tensor], Tensor],
    ) -> None:
        """Prepare for one batch.

        Args:
            prober: fitted on states of `layer`.
            head: fitted.
            layer: where the prompt is probed, at the block's input.
            epsilon: strength of the head in steered rows.
            opens: α for each score.
        """
        self.gate_score: Float[Tensor, " batch"] | None = None
        self.triggered: Bool[Tensor, " batch"] | None = None
        self._prober, self._head = prober, head
        self._epsilon, self._opens = epsilon, opens
        self._probed = resid_pre(layer)
        self._attachment: Attachment | None = None
        self._decided = False
        self._gate: Bool[Tensor, " batch"] | None = None

    def edits(self) -> Mapping[Site, Edit]:
        """Read at the probed layer, write after the final norm."""
        return {self._probed: self._read, final_norm(): self._write}

    def bind(self, attachment: Attachment) -> None:
        """Keep the hooks at hand, to remove those that have done their work."""
        self._attachment = attachment

    def _read(self, hidden: Float[Tensor, "batch tokens dim"]) -> None:
        """In the prefill: the score of the last prompt token. Later steps must not decide again."""
        assert self._attachment is not None
        self.gate_score = self._prober.to(hidden.device).score(hidden[:, -1])
        self.triggered = self._opens(self.gate_score)
        self._attachment.detach(self._probed)

    def _write(self, hidden: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"] | None:
        if not self._decided:
            assert self.triggered is not None
            self._gate = self.triggered.to(hidden.device)  # a model may be spread over devices
            self._decided = True
            if not self._some_open(self._gate):
                return None
        return steer_last(hidden, self._head, epsilon=self._epsilon, gate=self._gate)

    def _some_open(self, gate: Bool[Tensor, " batch"]) -> bool:
        """The one question to the device in an answer, asked at the end of the prefill."""
        assert self.gate_score is not None
        assert self._attachment is not None
        broken = self.gate_score.isnan()
        facts = torch.stack((gate.any(), gate.all(), broken.any().to(gate.device)))
        some_open, all_open, some_broken = facts.tolist()
        if some_broken:
            rows = broken.nonzero().flatten().tolist()
            raise ValueError(
                f"the gate's score is not a number in rows {rows} of the batch: the states at {self._probed} "
                "overflowed or are broken, and such a prompt must not pass as safe; load the model in bfloat16 "
                "or float32"
            )
        if not some_open:
            self._attachment.detach(final_norm())
        if all_open:
            self._gate = None  # no row to be left alone: nothing to choose between in each step
        return bool(some_open)
