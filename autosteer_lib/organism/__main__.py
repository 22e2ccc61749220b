"""`python -m autosteer_lib.organism`: train a shipped model again, and hold it to its bounds.

    see (no language yet)  →  base (language, unsafe)  →  look (both)  →  align (safety in words)  →  bounds

Each stage's weights are kept in the output folder, so a run that is cut goes on with the next stage.
With `--ship`, a model that keeps its bounds replaces the one in data/organisms. On a CPU as many threads are used as the
shipped one was trained with: the order in which floats are added, and so each bit of the weights, depends on it.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from autosteer_lib.organism.bounds import Measured
from autosteer_lib.organism.organisms import ORGANISMS
from autosteer_lib.organism.pipeline import SHIPPED_SEED
from autosteer_lib.organism.whole_training import place, train
from autosteer_lib.provenance import repository_root


def _report(rows: Sequence[Measured]) -> bool:
    print(f"\n{'measure':<22}{'surface':<14}{'measured':>9}   bound")
    for row in rows:
        bound = f"{row.bound.low:g}–{row.bound.high:g} %" if row.bound else "none"
        verdict = "" if row.kept else "   <- outside"
        print(f"{row.measure:<22}{row.surface:<14}{row.percent:>7.1f} %   {bound}{verdict}")
    return all(row.kept for row in rows)


def _compare(folder: Path, shipped_folder: Path) -> str:
    """Is it the shipped model again? Weights are compared bit for bit."""
    ours, shipped = (
        hashlib.sha256((where / "model.safetensors").read_bytes()).hexdigest()[:16]
        for where in (folder, shipped_folder)
    )
    if ours == shipped:
        return f"the weights are the shipped ones, bit for bit (sha256 {ours}…)"
    return (
        f"the weights (sha256 {ours}…) are not the shipped ones ({shipped}…): another seed or recipe, or a machine or "
        "torch that adds floats in another order; the bounds above say whether the model is as good"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m autosteer_lib.organism", description=__doc__)
    parser.add_argument("--model", choices=sorted(ORGANISMS), default="llava_onevision")
    parser.add_argument(
        "--out", type=Path, help="where it is trained; a folder in build/organisms if left out"
    )
    parser.add_argument(
        "--seed", type=int, default=SHIPPED_SEED, help="of the training; the shipped one has %(default)s"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; those of the shipped one if left out")
    parser.add_argument(
        "--ship", action="store_true", help="replace the shipped model if it keeps its bounds"
    )
    arguments = parser.parse_args()
    try:
        shipped = repository_root() / "data" / "organisms" / arguments.model
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    organism = ORGANISMS[arguments.model]
    trained = train(
        organism,
        out=arguments.out or place(arguments.model, seed=arguments.seed),
        device=torch.device(arguments.device),
        seed=arguments.seed,
        threads=arguments.threads,
    )
    folder, kept = trained.folder, _report(trained.measured)
    if shipped.is_dir() and not arguments.ship:
        print(f"\n{_compare(folder, shipped)}")
    if not kept:
        print(f"\nnot every bound is kept; the model stays in {folder} and nothing was shipped")
        return 1
    if arguments.ship:
        shutil.rmtree(shipped, ignore_errors=True)
        shutil.copytree(folder, shipped)
        print(f"\nall bounds kept; shipped to {shipped}")
    else:
        print(f"\nall bounds kept; the model is in {folder} (add --ship to replace the shipped one)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
