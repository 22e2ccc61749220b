"""How SafeSteer is read where the paper leaves it open or contradicts itself; the defaults are recommended here.

    norm               the last layer's state, before or after the model's last norm
    solver             how the probe's five numbers are fitted: see `decoding_probe`
    sign               which of the candidates is taken: the most or the least harmful by the probe
    choice             the best candidate, or one drawn as eq. 6 says
    gate               re-rank prompts that are judged harmful, or all
    direction, scale   of the alignment vector: see `modal_alignment`

No official code was found. The score is trained so that high means harmful, and eq. 6 draws high scores; §3.2 holds
that a refusal looks more harmful than an answer. The same group's earlier code has the labels the other way round (high
means harmless) and keeps the high end of the first token drafted, but the low end of those drafted after it, under one and
the same comment. So the sign is measured: on attacks that were kept out of the fit, which of the two raises refusals?

Source: SafeSteer (arXiv 2605.11716) §3.2, §4; RDS (2410.06809), its estimate.py and cnets.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args, get_type_hints

from autosteer_lib.decoding_probe import Solver
from autosteer_lib.modal_alignment import Direction, Scale

Norm: TypeAlias = Literal["post", "pre"]
Sign: TypeAlias = Literal["held_out", "high", "low"]
Choice: TypeAlias = Literal["best", "drawn"]
RerankGate: TypeAlias = Literal["prefill", "always"]


@dataclass(frozen=True, kw_only=True)
class SafeSteerReading:
    """One named option for each point that the paper leaves open."""

    norm: Norm = "post"
    """After the last norm, as the last of Hugging Face's hidden states is in the paper's models ("post"); or before
    it ("pre")."""
    solver: Solver = "converged"
    """To the one minimum of a logistic regression with the usual penalty, or as the group's earlier code ("rds")."""
    sign: Sign = "held_out"
    """Candidates with a "high" score win, as eq. 6 says, or those with a "low" one; "held_out" takes the sign under
    which more held-out attacks are refused, and "high" if there is no difference."""
    choice: Choice = "best"
    """The candidate that scores best: greedy, like every other answer here, so a run repeats and a difference to the
    plain model is the defence's doing. "drawn" takes x ~ softmax(scores), eq. 6."""
    gate: RerankGate = "prefill"
    """Re-rank where σ(s) of the prompt is above the threshold, the test that the alignment vector has in the paper;
    or "always", harmless prompts too."""
    direction: Direction = "towards_text"
    """Of the alignment vector: towards the text attacks, as its purpose is, or as eq. 8 has it."""
    scale: Scale = "unit"
    """Of the alignment vector: a direction of length 1 times the distance, or eq. 10's product of two lengths."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in fields(self):
            allowed, received = get_args(hints[entry.name]), getattr(self, entry.name)
            if received not in allowed:
                raise ValueError(
                    f"SafeSteerReading {entry.name} = {received!r} is not known; allowed: "
                    f"{', '.join(map(repr, allowed))}"
                )
