"""Who answers the batches of a run: the face of it, one batch's work, and the plain way, one batch after another.

    answering.py     what is missing, in which batches; what came of it onto the records       (one process)
    an Answerer      batches → outcomes, in any order                                          (here, or elsewhere)

Which prompts share a batch is settled before anybody answers. So another answerer, such as many processes on many
cards (scale_out/), gives the same answers as this one: the same rows stand together, each under the seed of the run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from autosteer_lib.defences.asking import ReviewingDefence
from autosteer_lib.defences.base import Defence
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.halving import Halving, Outcome
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Prompts of like kind and length, and who has not answered which of them."""

    prompts: tuple[Prompt, ...]
    missing: Mapping[str, tuple[int, ...]]
    """Defence → rows; a defence that has answered all is not named."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of one batch under one defence."""

    number: int
    """Of the batch, in the order in which they were given."""
    defence: str
    outcomes: tuple[Outcome[Response], ...]
    """One a missing row."""


@runtime_checkable
class Answerer(Protocol):
    """Answers batches, wherever that is."""

    def answered(
        self,
        mllm: MLLM,
        batches: Sequence[Batch],
        defences: Mapping[str, Defence],
        *,
        settings: GenerationSettings,
        seed: int,
    ) -> Generator[Answered, None, None]:
        """Each defence's part of each batch once, in any order; closing the generator ends the work."""


class OneByOne:
    """The plain way: in this process, in the given order."""

    def answered(
        self,
        mllm: MLLM,
        batches: Sequence[Batch],
        defences: Mapping[str, Defence],
        *,
        settings: GenerationSettings,
        seed: int,
    ) -> Generator[Answered, None, None]:
        """A batch at a time, and of it a defence at a time."""
        desk = Desk(mllm, defences, settings=settings, seed=seed)
        for number, batch in enumerate(batches):
            yield from desk.answer(number, batch)


class Desk:
    """A model with its defences, at work on one batch after another. It remembers how many rows fitted."""

    def __init__(
        self, mllm: MLLM, defences: Mapping[str, Defence], *, settings: GenerationSettings, seed: int
    ) -> None:
        self._mllm, self._defences = mllm, defences
        self._settings, self._seed = settings, seed
        self._halvings = {name: Halving() for name in defences}

    def answer(self, number: int, batch: Batch) -> Iterator[Answered]:
        """One batch under all defences that miss rows of it; whole, it is encoded and answered plainly once for all."""
        whole: _Shared | None = None
        for name, rows in batch.missing.items():

            def run(part: list[int], name: str = name, rows: tuple[int, ...] = rows) -> list[Response]:
                nonlocal whole
                if len(part) < len(rows):
                    whole = None  # it holds memory that its halves need
                if len(part) < len(batch.prompts):
                    shared = _Shared(
                        self._mllm, [batch.prompts[row] for row in part], settings=self._settings
                    )
                else:
                    shared = whole = whole or _Shared(self._mllm, batch.prompts, settings=self._settings)
                with torch.random.fork_rng():
                    torch.manual_seed(self._seed)
                    return shared.answers(self._defences[name])

            outcomes = self._halvings[name](run, rows)
            yield Answered(number=number, defence=name, outcomes=tuple(outcomes))


class _Shared:
    """Prompts encoded once for all defences, and answered plainly once for all that look at the plain answer."""

    def __init__(self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings) -> None:
        self._mllm, self._settings = mllm, settings
        self._encoded = encode(mllm, prompts)
        self._plain: list[Response] | None = None

    def answers(self, defence: Defence) -> list[Response]:
        """The defence's; the plain answer behind one has the seconds that it took when it was made."""
        if type(defence) is Undefended:  # what is built on it may steer
            return self._plainly()
        if isinstance(defence, ReviewingDefence):
            defence.check(self._mllm)
            return defence.review(self._mllm, self._encoded.prompts, self._plainly(), settings=self._settings)
        return defence.answer(self._mllm, self._encoded, settings=self._settings)

    def _plainly(self) -> list[Response]:
        if self._plain is None:
            self._plain = Undefended().answer(self._mllm, self._encoded, settings=self._settings)
        return self._plain
