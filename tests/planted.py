"""Answers put into a model's mouth: what a random model says to a question about harm means nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from autosteer_lib.defences import asking, ecso, mllm_protector
from autosteer_lib.encoding import Encoded
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt


class Planted:
    """Stands in for generation. Every call is kept; the call numbered k costs 10ᵏ of everything."""

    def __init__(self, says: Callable[[Prompt], str]) -> None:
        self.says = says
        self.calls: list[tuple[list[Prompt], GenerationSettings]] = []

    def respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, **rest: Any
    ) -> list[Response]:
        if not prompts:
            return []
        self.calls.append((list(prompts), settings))
        price = 10 ** (len(self.calls) - 1)
        return [
            Response(
                prompt_id=prompt.id, text=self.says(prompt), new_tokens=price, prompt_tokens=2 * price,
                seconds=3.0 * price,
            )
            for prompt in prompts
        ]  # fmt: skip

    def generate(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        return self.respond(mllm, encoded.prompts, settings=settings)

    def into(self, monkeypatch: pytest.MonkeyPatch) -> "Planted":
        """Take the place of generation in every defence that asks."""
        for module in (asking, ecso, mllm_protector):
            monkeypatch.setattr(module, "respond", self.respond)
        monkeypatch.setattr(asking, "generate", self.generate)
        return self


def no_model_runs(monkeypatch: pytest.MonkeyPatch, mllm: MLLM) -> None:
    """From here on a pass of this model is an error of the test."""

    def ran(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(mllm.model, "forward", ran)


def bill(response: Response) -> tuple[int, int, int, float]:
    """(calls, new tokens, prompt tokens, seconds)."""
    return response.model_calls, response.new_tokens, response.prompt_tokens, response.seconds
