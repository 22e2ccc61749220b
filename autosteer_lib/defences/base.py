"""Defence: one system that answers prompts, so that all systems can be evaluated alike.

    respond(mllm, prompts)      the face: any prompts, one response each, in their order
    answer(mllm, encoded)       the same for a batch that is encoded already and shared with other defences
    fingerprint                 what the answers depend on besides model and prompt: part of every record's key

Some defences change states while the model writes (`SteeringDefence`); others rewrite the request,
ask twice or replace an answer. `respond` is all that they have in common.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

from autosteer_lib.encoding import Encoded
from autosteer_lib.generation import (
    GenerationSettings,
    Response,
    Steering,
    check_call,
    generate,
    respond,
)
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt


class Defence(ABC):
    """A system that answers prompts."""

    name: str
    """As in the papers' tables: "Orig.", "Steer", "AutoSteer", …"""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over fitted state and every hyper-parameter that an answer depends on."""

    def respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool = False
    ) -> list[Response]:
        """Answer any number of prompts, in their order.

        Raises:
            TypeError, ValueError: what can be known to go wrong before the model runs (`generation.check_call`).
        """
        asked = check_call(mllm, prompts, settings=settings)
        return self._respond(mllm, asked, settings=settings, progress=progress)

    @abstractmethod
    def _respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[Response]:
        """The answers; the arguments are checked."""

    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        """Answer one encoded batch; a defence that needs other inputs encodes its own from `encoded.prompts`."""
        return self.respond(mllm, encoded.prompts, settings=settings)


class SteeringDefence(Defence):
    """A defence that works by edits during generation, on the prompt as it is."""

    @abstractmethod
    def steering(self, mllm: MLLM, encoded: Encoded) -> Steering | None:
        """Fresh edits for this batch; None where there is nothing to do, which then costs nothing.

        Raises:
            ValueError: the defence was fitted on another model.
        """

    def _respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[Response]:
        """Each batch gets edits of its own."""
        return respond(
            mllm, prompts, settings=settings, steering=partial(self.steering, mllm), progress=progress
        )

    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        """Answer one encoded batch as it is."""
        return generate(mllm, encoded, settings=settings, steering=self.steering(mllm, encoded))
