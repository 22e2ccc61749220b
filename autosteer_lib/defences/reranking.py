"""Re-rank the first tokens of one batch's answers by what they would lead to, from a gate set in the prefill.

    prefill   s₀ = probe(h₀), harmful where σ(s₀) > threshold; there h₀ ← h₀ + shift(h₀)
    step t    the K likeliest tokens are run one token on; sᵏ = probe(hᵏ); the best of ± sᵏ is the answer's token
    after     the hook is gone and the plain model goes on

h is the state of the last layer at one site. Which tokens are candidates is the model's own doing alone; the probe
chooses among them. A row whose gate is shut takes its likeliest token from the same pass; a batch of which no gate is
open is decoded plainly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autosteer_lib.decoding_probe import DecodingProbe
from autosteer_lib.look_ahead import Decoding, Sharing, can_share
from autosteer_lib.sites import Attachment, Edit, Site

Shift: TypeAlias = Callable[[Float[Tensor, "batch dim"]], Float[Tensor, "batch dim"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """What one re-ranked token was chosen from; on the model's device."""

    candidates: Int[Tensor, "batch k"]
    """Token ids, the likeliest first."""
    scores: Float[Tensor, "batch k"]
    """sᵏ, as the probe gives it: high is harmful."""
    choice: Int[Tensor, " batch"]
    """Which of the K was taken; 0 in rows whose gate is shut."""


class Reranking:
    """Edits and choice of tokens of one batch; see `generation.Steering` and `generation.OwnDecoding`."""

    def __init__(
        self,
        probe: DecodingProbe,
        *,
        site: Site,
        threshold: float,
        shift: Shift | None,
        k: int,
        steps: int,
        sign: int,
        gated: bool = True,
        noise: Float[Tensor, "batch steps k"] | None = None,
        sharing: Sharing = can_share,
    ) -> None:
        """Prepare for one batch.

        Args:
            probe: on the model's device.
            site: where it reads, and the shift writes.
            threshold: of σ(s₀).
            shift: what is added to h₀ of a harmful prompt; None adds nothing.
            k: candidates for each token.
            steps: tokens of the answer that are re-ranked; 0 for none.
            sign: 1 prefers high scores, −1 low ones.
            gated: re-rank harmful prompts only.
            noise: Gumbel noise, with which the best candidate is a draw from the softmax of the scores; None for
                the best as it is.
            sharing: see `look_ahead.Decoding`.
        """
        self.gate_score: Float[Tensor, " batch"] | None = None
        self.triggered: Bool[Tensor, " batch"] | None = None
        self.ranked: list[Ranked] = []
        """One entry a re-ranked token, for a look at what the defence did."""
        self._probe, self._site, self._threshold, self._shift = probe, site, threshold, shift
        self._k, self._steps, self._sign, self._gated = k, steps, sign, gated
        self._noise, self._sharing = noise, sharing
        self._opens_somewhere = False
        self._states: Tensor | None = None
        self._attachment: Attachment | None = None

    def edits(self) -> Mapping[Site, Edit]:
        """Read the prompt's last token, then the candidates; one hook for both."""
        return {self._site: self._see}

    def bind(self, attachment: Attachment) -> None:
        """Keep the hook at hand, to remove it once it has done its work."""
        self._attachment = attachment

    def decode(
        self,
        model: Any,
        input_ids: Int[Tensor, "batch tokens"],
        *,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **inputs: Any,
    ) -> Int[Tensor, "batch longer"]:
        """Prompts and answers; called by `generate`."""
        assert self._attachment is not None
        decoding = Decoding(
            model,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            inputs=inputs,
            sharing=self._sharing,
        )
        logits = decoding.prefill()
        for step in range(self._steps if self._opens_somewhere else 0):
            candidates = self._candidates(logits)
            decoding.look_ahead(candidates)
            logits = decoding.take(self._choose(candidates, step=step))
            if decoding.finished:
                break
        self._attachment.detach(self._site)
        return decoding.greedy(logits)

    def _see(self, hidden: Float[Tensor, "batch tokens dim"]) -> Tensor | None:
        if self.triggered is None:
            return self._gate(hidden)
        self._states = hidden
        return None

    def _gate(self, hidden: Float[Tensor, "batch tokens dim"]) -> Tensor | None:
        last = hidden[:, -1].float()
        self._probe = self._probe.to(hidden.device)  # once: no copy between cards while decoding
        scores = self._probe.score(last)
        self.gate_score = scores.sigmoid()
        harmful = self.gate_score > self._threshold
        self.triggered = harmful if self._gated or not self._steps else torch.ones_like(harmful)
        moved = None
        if self._shift is not None:
            # Rounded before it is looked at: what overflows, overflows there. A row that is not moved stays bit for bit.
            moved = (torch.where(harmful[:, None], self._shift(last), 0.0) + last).to(hidden.dtype)
        sound = scores.isfinite() if moved is None else scores.isfinite() & moved.isfinite().all(dim=-1)
        # The one question to the device besides those of generate's own loop.
        all_sound, opens, shifts = torch.stack((sound.all(), self.triggered.any(), harmful.any())).tolist()
        if not all_sound:
            rows = (~sound).nonzero().flatten().tolist()
            raise ValueError(
                f"the state at {self._site} or its score is not finite in rows {rows} of the batch: the states "
                "overflowed or are broken, and such a prompt must not pass as safe; load the model in bfloat16 or "
                "float32, and keep the alignment vector's scale='unit'"
            )
        self._opens_somewhere = opens
        if moved is None or not shifts:
            return None
        return torch.cat((hidden[:, :-1], moved[:, None]), dim=1)

    def _candidates(self, logits: Float[Tensor, "batch vocabulary"]) -> Int[Tensor, "batch k"]:
        likeliest = logits.topk(self._k, dim=-1).indices
        # Among equal logits topk may not begin with the one that a greedy loop takes; shut rows must.
        first = torch.where(self._open(logits.device), likeliest[:, 0], logits.argmax(dim=-1))
        return torch.cat((first[:, None], likeliest[:, 1:]), dim=1)

    def _choose(self, candidates: Int[Tensor, "batch k"], *, step: int) -> Int[Tensor, " batch"]:
        assert self._states is not None  # the hook saw the candidates' pass
        states, self._states = self._states, None
        scores = self._probe.score(states.reshape(*candidates.shape, -1))
        wanted = self._sign * scores
        if self._noise is not None:
            wanted = wanted + self._noise[:, step].to(wanted.device)
        choice = torch.where(self._open(wanted.device), wanted.argmax(dim=-1), 0)
        self.ranked.append(Ranked(candidates=candidates, scores=scores, choice=choice))
        return choice

    def _open(self, device: torch.device) -> Bool[Tensor, " batch"]:
        assert self.triggered is not None  # set in the prefill
        return self.triggered.to(device)
