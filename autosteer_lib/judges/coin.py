"""The judge of rehearsals: a coin, tossed by the prompt and the answer together.

A model of random weights says neither refusals nor harm, so every judge of words would say the same of all answers,
and what is fitted on refused and accepted texts could not be fitted. A coin says both, the same of the same answer.
No rate that it decides means anything.
"""

from __future__ import annotations

import hashlib

from autosteer_lib.judges.base import Verdict
from autosteer_lib.prompts import Prompt


class Coin:
    """Refused or not by a bit of a hash; unsafe if harmful and not refused."""

    name = "coin"

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        """Judge one answer."""
        bit = hashlib.sha256(f"{prompt.id}\0{prompt.text}\0{answer}".encode()).digest()[0] & 1
        return Verdict(unsafe=bool(prompt.harmful) and not bit, refused=bool(bit), detail="tossed")
