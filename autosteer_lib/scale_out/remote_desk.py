"""What runs in an actor: a model that stays loaded, and the same work at it as in a run of one process.

A model is known by what `load` was given (`models.Origin`), a fitted defence comes along in memory: it is sent by
Ray's own serialisation, between processes of one user and one run, and is never a file. Nobody has to trust
that this went well: both sides say what their answers would depend on (`Grounds`), which are the ingredients of a
record's key, and unless they are equal no answer is asked for.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from autosteer_lib.answerers import Answered, Batch, Desk
from autosteer_lib.defences.base import Defence
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.models import MLLM, Origin
from autosteer_lib.processor_settings import processor_fingerprint
from autosteer_lib.prompts import Prompt, open_images, open_videos
from autosteer_lib.records import code_version


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a desk must know before the first batch."""

    origin: Origin
    defences: Mapping[str, Defence]
    settings: GenerationSettings
    seed: int
    threads: int
    """Of torch: the order in which floats are added depends on it."""


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """What answers depend on, besides prompt, settings and seed."""

    code: str
    model: str
    dtype: str
    device: str
    processor: str
    defences: Mapping[str, str]

    @classmethod
    def of(cls, mllm: MLLM, defences: Mapping[str, Defence]) -> Grounds:
        """As this process has them."""
        return cls(
            code=code_version(),
            model=mllm.fingerprint,
            dtype=str(mllm.dtype),
            device=mllm.device.type,
            processor=processor_fingerprint(mllm),
            defences={name: defence.fingerprint for name, defence in defences.items()},
        )

    def differences(self, other: Grounds) -> list[str]:
        """What is not equal, in words."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name} {mine[name]} here, {theirs[name]} there" for name in mine if mine[name] != theirs[name]
        ]


class RemoteDesk:
    """The actor. It loads in `prepare` and not in its constructor, so that what goes wrong comes back as itself."""

    def __init__(self) -> None:
        self._mllm: MLLM | None = None
        self._desk: Desk | None = None

    def prepare(self, task: Task) -> Grounds:
        """Have the task's model loaded and its defences at hand; a model that is loaded already stays."""
        torch.set_num_threads(task.threads)
        if self._mllm is None or self._mllm.origin != task.origin:
            self._mllm = self._desk = None  # room for the next one
            self._mllm = task.origin.load()
        self._desk = Desk(self._mllm, task.defences, settings=task.settings, seed=task.seed)
        return Grounds.of(self._mllm, task.defences)

    def answer(self, number: int, batch: Batch) -> list[Answered]:
        """One batch under its defences."""
        assert self._desk is not None  # prepare
        own = replace(batch, prompts=tuple(_writable(prompt) for prompt in batch.prompts))
        return list(self._desk.answer(number, own))

    def __repr__(self) -> str:
        """What Ray's dashboard and logs call it."""
        return f"answers of {self._mllm.name if self._mllm else 'a model to be loaded'} on {platform.node()}"


def with_pixels(prompt: Prompt) -> Prompt:
    """The prompt with what it shows in place of file names, so that an actor needs no disk in common with this process."""
    try:
        return replace(prompt, images=tuple(open_images(prompt)), videos=tuple(open_videos(prompt)))
    except ValueError:
        return (
            prompt  # a file that cannot be read: the actor will say so of this row, and go on with the others
        )


def _writable(prompt: Prompt) -> Prompt:
    """Arrays come out of Ray's shared memory read-only, and video processors write."""
    return replace(
        prompt, videos=tuple(np.array(v) if isinstance(v, np.ndarray) else v for v in prompt.videos)
    )
