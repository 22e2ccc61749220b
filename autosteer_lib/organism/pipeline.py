"""The stages in order, each kept on disk, so that a training that is cut goes on with the next stage.

    see (no language yet)  →  base (language, unsafe)  →  look (both)  →  align (safety in words)

Seeing can take several rounds (see, see_2). Each stage draws from a generator of its own, so a resumed run draws what
an uncut one would.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from autosteer_lib.organism.organisms import Organism
from autosteer_lib.organism.training import train_stage

SHIPPED_SEED = 0  # what the organisms in data/ were trained with; others are replicates (study/replicates.py)


class _Curves:
    """Loss by stage and step, written after each stage: the training figure is drawn from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def require(self, *, seed: int) -> None:
        """Raises ValueError if what was trained here so far had another seed."""
        for stage, log in self.log.items():
            found = log.get("seed", SHIPPED_SEED)
            if found != seed:
                raise ValueError(
                    f"{self.path.parent} holds stage {stage!r} of a training with seed {found}, and seed {seed} was asked "
                    "for; give another folder (--out), or remove that one"
                )

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
    organism: Organism, *, out: Path, device: torch.device, seed: int = SHIPPED_SEED
) -> PreTrainedModel:
    """Train, or go on training, in `out`; writes each stage's weights and training.json there.

    Args:
        organism: which, with its settings.
        out: a folder of this training alone, under one seed.
        device: where to train.
        seed: of the first weights and of all that is drawn for training; the world stays the same.

    Raises:
        ValueError: the folder holds a training under another seed.
    """
    architecture, curves = organism.architecture, _Curves(out / "training.json")
    processor, tokenizer = architecture.build_processor(), architecture.build_tokenizer()

    def stage_folder(name: str) -> Path:
        return out / "stages" / name

    def finished(name: str) -> bool:
        return (stage_folder(name) / "model.safetensors").exists() and name in curves.log

    curves.require(seed=seed)

    def resume(name: str) -> PreTrainedModel:
        print(f"{name}: done before, going on from {stage_folder(name)}")
        return type(model).from_pretrained(stage_folder(name)).to(device)

    model = architecture.build_model(seed=seed).to(device)
    for i, seeing in enumerate(organism.seeing, 1):
        name = "see" if i == 1 else f"see_{i}"
        if finished(name):
            model = resume(name)
            continue
        # Of no other round of any replicate.
        see = partial(architecture.learn_to_see, model, recipe=seeing, seed=100 * seed + i)
        losses, facts, seconds = _with_progress(name, seeing.steps, see)
        model.save_pretrained(stage_folder(name))
        curves.keep(name, losses, held_out=facts, recipe=asdict(seeing), seed=seed, seconds=round(seconds))
    for i, settings in enumerate(organism.stages):
        if finished(settings.stage):
            model = resume(settings.stage)
            continue
        # A generator a stage, so that a resumed run draws what an uncut one would.
        rng = np.random.default_rng([seed, i])
        train = partial(
            train_stage, architecture, model, tokenizer, settings=settings, recipe=organism.shares, rng=rng
        )
        losses, _, seconds = _with_progress(settings.stage, settings.steps, train)
        model.save_pretrained(stage_folder(settings.stage))
        processor.save_pretrained(stage_folder(settings.stage))
        shares = {**asdict(settings), **asdict(organism.shares)}
        curves.keep(settings.stage, losses, recipe=shares, seed=seed, seconds=round(seconds))
    return model
