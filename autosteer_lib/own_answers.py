"""What the undefended model answers: by that a fit knows which of its texts are refused.

Several fits ask for the same answers. By itself each asks the model anew; given `OwnAnswersOnRecord`
(recorded_answers.py) as its `answers`, it reads what another has asked for already. Both decode greedily: the answers
are the same, but where the other rows of a batch tip two near-equal tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from autosteer_lib.generation import GenerationSettings, respond
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt


@runtime_checkable
class OwnAnswers(Protocol):
    """How the undefended model answers prompts."""

    def __call__(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[str]:
        """One answer a prompt, in the prompts' order."""


def ask_anew(
    mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
) -> list[str]:
    """Asked now, and not kept."""
    return [answer.text for answer in respond(mllm, prompts, settings=settings, progress=progress)]
