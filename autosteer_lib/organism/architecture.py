"""What an organism's architecture says of itself; world, examples, stages and bounds are shared.

    build_model, build_processor    the checkpoint, as one normal folder
    placeholders, pixels            how an example of training becomes what the processor would make of it
    eye, learn_to_see               the part that sees, and the first stage, which teaches it

There are two: llava_onevision.py (a tower beside the words) and chameleon.py (pictures as words).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from autosteer_lib.organism.examples import Example, Medium

OnStep = Callable[[int, float], None]
"""Hears of a step and its loss."""


class Architecture(ABC):
    """One kind of network that the world is taught to."""

    name: str
    """Of its folder in data/organisms, and for `--model`."""
    title: str
    """For people."""
    how_it_sees: str
    """Two or three sentences for the model card: what a picture becomes, and what the first stage teaches."""
    prompt_form: str
    """A prompt with a picture, as its template and processor write it."""

    def __init_subclass__(cls) -> None:
        """The card needs its words at the end of a training, which is half an hour too late to miss them."""
        words = ("name", "title", "how_it_sees", "prompt_form")
        if missing := [word for word in words if not getattr(cls, word, "")]:
            raise TypeError(
                f"{cls.__name__} lacks {', '.join(missing)}; say what Architecture asks for there"
            )

    @abstractmethod
    def build_model(self, *, seed: int) -> PreTrainedModel:
        """The untrained network; the seed decides its weights."""

    @abstractmethod
    def build_processor(self) -> ProcessorMixin:
        """Words and what is seen → what the model takes."""

    @abstractmethod
    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """The processor's tokenizer."""

    @abstractmethod
    def placeholders(self, medium: Medium) -> str:
        """What stands before the words of an example of this medium, "" for words alone."""

    @abstractmethod
    def pixels(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """The model's arguments for what these examples show; all show pictures, or clips, or nothing."""

    @abstractmethod
    def eye(self, model: Any) -> nn.Module:
        """The part that sees; stages that do not train it leave it as it is."""

    @abstractmethod
    def learn_to_see(self, model: Any, *, recipe: Any, seed: int, on_step: OnStep) -> dict[str, float]:
        """The first stage, in place.

        Args:
            model: of this architecture.
            recipe: settings of this architecture's own first stage.
            seed: of pictures and of what is thrown away.
            on_step: hears of every twenty-fifth step.

        Returns:
            Accuracies on held-out pictures, and what else tells whether it went well.
        """
