"""One whole training of an organism: its stages, a checkpoint in the released layout, its bounds, its card.

out/stages/…       weights after each stage, from which a cut run goes on
out/model/         the checkpoint, with README.md, training.json and measured.json
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from autosteer_lib.models import load
from autosteer_lib.organism import model_card
from autosteer_lib.organism.bounds import Measured, measure
from autosteer_lib.organism.organisms import Organism
from autosteer_lib.organism.pipeline import SHIPPED_SEED, train_organism


@dataclass(frozen=True)
class Trained:
    """A checkpoint, and what it was held to."""

    folder: Path
    measured: tuple[Measured, ...]

    @property
    def kept(self) -> bool:
        """Whether every bound is kept."""
        return all(row.kept for row in self.measured)


def train(
    organism: Organism,
    *,
    out: Path,
    device: torch.device,
    seed: int = SHIPPED_SEED,
    threads: int | None = None,
) -> Trained:
    """Train, or finish a training that was cut.

    Args:
        organism: which.
        out: a folder of this training alone, made if it does not exist.
        device: where to train.
        seed: of the first weights and of all that is drawn for training.
        threads: of the CPU, on which each bit of the weights depends; those of the shipped one if left out.
    """
    torch.set_num_threads(threads or organism.threads)
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "model"
    model = train_organism(organism, out=out, device=device, seed=seed)
    model.to("cpu").save_pretrained(folder)
    organism.architecture.build_processor().save_pretrained(folder)
    shutil.copy(out / "training.json", folder / "training.json")
    rows = measure(load(folder))
    model_card.write(folder, rows, architecture=organism.architecture)
    return Trained(folder, tuple(rows))


def place(model: str, *, seed: int) -> Path:
    """Where a training is kept, if nothing else is said."""
    return Path("build/organisms") / (model if seed == SHIPPED_SEED else f"{model}-seed-{seed}")
