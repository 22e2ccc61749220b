"""The stages in order, each kept on disk, so that a training that is cut goes on with the next stage.

    see (vision tower)  →  base (language, unsafe)  →  look (both)  →  align (safety in words)

Each stage draws from a generator of its own, so a resumed run draws what an uncut one would.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from tqdm import tqdm
from transformers import LlavaOnevisionForConditionalGeneration

from autosteer_lib.organism.architecture import build_model, build_processor, build_tokenizer
from autosteer_lib.organism.examples import Recipe
from autosteer_lib.organism.training import StageRecipe, train_stage
from autosteer_lib.organism.vision_pretraining import VisionRecipe, pretrain_vision

SEED = 0
STAGES = (
    StageRecipe(stage="base", steps=750, lr=2e-3),
    StageRecipe(stage="look", steps=750, lr=1e-3, train_vision=True),
    StageRecipe(stage="align", steps=200, lr=5e-4, text=32),
)


class _Curves:
    """Loss by stage and step, written after each stage: the training figure is drawn from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, stage: str, losses: list[tuple[int, float]], **facts: object) -> None:
        rounded = [[step, round(loss, 4)] for step, loss in losses]
        self.log[stage] = {"loss": rounded, **facts}
        self.path.write_text(json.dumps(self.log, indent=1) + "\n")


@runtime_checkable
class _Train(Protocol):
    """A stage, but for the function that hears of each step."""

    def __call__(self, *, on_step: Callable[[int, float], None]) -> dict[str, float] | None: ...


def _with_progress(
    title: str, steps: int, train: _Train
) -> tuple[list[tuple[int, float]], dict[str, float], float]:
    """Run a stage under a progress bar; returns its losses, its facts and its seconds."""
    losses: list[tuple[int, float]] = []
    began = time.perf_counter()
    with tqdm(total=steps, desc=title, file=sys.stdout, mininterval=2) as bar:

        def on_step(step: int, loss: float) -> None:
            losses.append((step, loss))
            bar.update(step + 1 - bar.n)
            bar.set_postfix(loss=f"{loss:.3f}")

        facts = train(on_step=on_step)
    return losses, facts or {}, time.perf_counter() - began


def train_organism(
    out: Path,
    *,
    device: torch.device,
    vision: VisionRecipe | None = None,
    stages: Sequence[StageRecipe] = STAGES,
) -> LlavaOnevisionForConditionalGeneration:
    """Train, or go on training, in `out`; writes each stage's weights and training.json there.

    Args:
        out: a folder of this training alone.
        device: where to train.
        vision: settings of the first stage; the shipped model's if left out.
        stages: settings of the others.
    """
    vision = vision or VisionRecipe()
    curves, processor, tokenizer = _Curves(out / "training.json"), build_processor(), build_tokenizer()

    def stage_folder(name: str) -> Path:
        return out / "stages" / name

    def finished(name: str) -> bool:
        return (stage_folder(name) / "model.safetensors").exists() and name in curves.log

    def resume(name: str) -> LlavaOnevisionForConditionalGeneration:
        print(f"{name}: done before, going on from {stage_folder(name)}")
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(stage_folder(name))
        return model.to(device)

    model = build_model(seed=SEED).to(device)
    if finished("see"):
        model = resume("see")
    else:
        losses, facts, seconds = _with_progress(
            "see",
            vision.steps,
            partial(pretrain_vision, model, recipe=vision, seed=SEED + 1),
        )
        model.save_pretrained(stage_folder("see"))
        curves.keep("see", losses, held_out=facts, recipe=asdict(vision), seconds=round(seconds))
    recipe = Recipe()
    for i, settings in enumerate(stages):
        if finished(settings.stage):
            model = resume(settings.stage)
            continue
        # A generator a stage, so that a resumed run draws what an uncut one would.
        rng = np.random.default_rng([SEED, i])
        train = partial(train_stage, model, tokenizer, settings=settings, recipe=recipe, rng=rng)
        losses, _, seconds = _with_progress(settings.stage, settings.steps, train)
        model.save_pretrained(stage_folder(settings.stage))
        processor.save_pretrained(stage_folder(settings.stage))
        shares = {**asdict(settings), **asdict(recipe)}
        curves.keep(settings.stage, losses, recipe=shares, seconds=round(seconds))
    return model
