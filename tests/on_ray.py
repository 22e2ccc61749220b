"""A study of the organism in small, with defences that can be held up: what the tests on Ray run, here and in actors."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from autosteer_lib.defences.base import Defence
from autosteer_lib.defences.steer import Steer
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import Encoded
from autosteer_lib.evaluation import evaluate
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.models import MLLM
from autosteer_lib.organism.judge import TruthJudge
from autosteer_lib.profiles import load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.provenance import repository_root
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.study.prompt_data import prompt_data

SETTINGS = GenerationSettings(max_new_tokens=8, batch_size=4)


@dataclass
class Watched(Undefended):
    """The plain model, which writes down where it is at work, takes its time, and can end its own process."""

    log: Path
    pause: float = 0.0
    deadly: str = ""
    """A prompt that kills whoever is asked it."""

    @property
    def fingerprint(self) -> str:
        return "watched"

    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        asked = [prompt.id for prompt in encoded.prompts]
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {asked[0]}\n")
        if self.deadly in asked:
            os.kill(os.getpid(), 9)
        time.sleep(self.pause)
        return super().answer(mllm, encoded, settings=settings)


def prompts(count: int) -> list[Prompt]:
    """Test prompts of the smoke profile, of all surfaces in turn, clips among them."""
    tests = prompt_data(load_profile("smoke"), root=repository_root()).tests
    by_surface: dict[str, list[Prompt]] = {}
    for prompt in tests:
        by_surface.setdefault(prompt.surface, []).append(prompt)
    in_turn = [listed[turn] for turn in range(6) for listed in by_surface.values() if turn < len(listed)]
    return in_turn[:count]


def steer(mllm: MLLM) -> Steer:
    """A head of random numbers: what is learnt does not matter, that it travels does."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(mllm.dim, mllm.dim, generator=generator) / mllm.dim
    return Steer(RefusalHead.from_matrix(matrix), epsilon=0.1)


def table(
    mllm: MLLM, asked: list[Prompt], defences: Mapping[str, Defence], records: Path, **options: Any
) -> pd.DataFrame:
    """As a notebook writes it, but for the seconds."""
    frame = evaluate(
        mllm,
        asked,
        defences,
        judge=TruthJudge(),
        settings=SETTINGS,
        records=records,
        progress=False,
        **options,
    )
    return frame.drop(columns="seconds")
