"""`python -m autosteer_lib.organism`: train the shipped model again, and hold it to its bounds.

    see (vision tower)  →  base (language, unsafe)  →  look (both)  →  align (safety in words)  →  bounds

Each stage's weights are kept in the output folder, so a run that is cut goes on with the next stage.
With `--ship`, a model that keeps its bounds replaces the one in data/organisms.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm
from transformers import LlavaOnevisionForConditionalGeneration

from autosteer_lib.models import load
from autosteer_lib.organism import model_card
from autosteer_lib.organism.architecture import build_model, build_processor, build_tokenizer
from autosteer_lib.organism.bounds import Measured, measure
from autosteer_lib.organism.examples import Recipe
from autosteer_lib.organism.training import StageRecipe, train_stage
from autosteer_lib.organism.vision_pretraining import VisionRecipe, pretrain_vision

_SHIPPED = Path(__file__).parents[2] / "data" / "organisms" / "llava_onevision"
_SEED = 0
_STAGES = (
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


def _train(out: Path, device: torch.device) -> LlavaOnevisionForConditionalGeneration:
    curves, processor, tokenizer = _Curves(out / "training.json"), build_processor(), build_tokenizer()

    def stage_folder(name: str) -> Path:
        return out / "stages" / name

    def finished(name: str) -> bool:
        return (stage_folder(name) / "model.safetensors").exists() and name in curves.log

    def resume(name: str) -> LlavaOnevisionForConditionalGeneration:
        print(f"{name}: done before, going on from {stage_folder(name)}")
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(stage_folder(name))
        return model.to(device)

    model = build_model(seed=_SEED).to(device)
    if finished("see"):
        model = resume("see")
    else:
        vision = VisionRecipe()
        losses, facts, seconds = _with_progress(
            "see",
            vision.steps,
            partial(pretrain_vision, model, recipe=vision, seed=_SEED + 1),
        )
        model.save_pretrained(stage_folder("see"))
        curves.keep("see", losses, held_out=facts, recipe=asdict(vision), seconds=round(seconds))
    recipe = Recipe()
    for i, settings in enumerate(_STAGES):
        if finished(settings.stage):
            model = resume(settings.stage)
            continue
        # A generator a stage, so that a resumed run draws what an uncut one would.
        rng = np.random.default_rng([_SEED, i])
        train = partial(train_stage, model, tokenizer, settings=settings, recipe=recipe, rng=rng)
        losses, _, seconds = _with_progress(settings.stage, settings.steps, train)
        model.save_pretrained(stage_folder(settings.stage))
        processor.save_pretrained(stage_folder(settings.stage))
        shares = {**asdict(settings), **asdict(recipe)}
        curves.keep(settings.stage, losses, recipe=shares, seconds=round(seconds))
    return model


def _report(rows: list[Measured]) -> bool:
    print(f"\n{'measure':<22}{'surface':<14}{'measured':>9}   bound")
    for row in rows:
        bound = f"{row.bound.low:g}–{row.bound.high:g} %" if row.bound else "none"
        verdict = "" if row.kept else "   <- outside"
        print(f"{row.measure:<22}{row.surface:<14}{row.percent:>7.1f} %   {bound}{verdict}")
    return all(row.kept for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m autosteer_lib.organism", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/organisms/llava_onevision"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--ship", action="store_true", help="replace the shipped model if it keeps its bounds"
    )
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "model"
    model = _train(out, torch.device(arguments.device))
    model.to("cpu").save_pretrained(folder)
    build_processor().save_pretrained(folder)
    shutil.copy(out / "training.json", folder / "training.json")
    rows = measure(load(folder))
    model_card.write(folder, rows)
    kept = _report(rows)
    if not kept:
        print(f"\nnot every bound is kept; the model stays in {folder} and nothing was shipped")
        return 1
    if arguments.ship:
        shutil.rmtree(_SHIPPED, ignore_errors=True)
        shutil.copytree(folder, _SHIPPED)
        print(f"\nall bounds kept; shipped to {_SHIPPED}")
    else:
        print(f"\nall bounds kept; the model is in {folder} (add --ship to replace the shipped one)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
