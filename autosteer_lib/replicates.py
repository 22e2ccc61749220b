"""`python -m autosteer_lib.replicates`: train an organism under other seeds, and measure the methods on each.

    shipped weights (training 0)  ─┐
    seed 1, 2, …  → train → bounds ┴→ fit the three papers' methods → all test prompts → data/replicates/

A training that is there (build/organisms/<model>-seed-<n>) is not made again, and answers on record are not generated
again. One that misses a bound is measured like the others, and the file says which it misses.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from autosteer_lib.organism.bounds import Measured, measure
from autosteer_lib.organism.organisms import ORGANISMS
from autosteer_lib.organism.pipeline import SHIPPED_SEED
from autosteer_lib.organism.whole_training import Trained, place, train
from autosteer_lib.provenance import repository_root
from autosteer_lib.study import replicate_layers, replicates
from autosteer_lib.study.study import Study

_PROFILES = {"llava_onevision": "organism", "chameleon": "chameleon"}
_THREADS = 1  # so that trainings can run side by side; the shipped ones' own number is in organisms.py


def _facts(study: Study, trained: Trained, *, training: int, threads: int) -> dict[str, Any]:
    weights = (trained.folder / "model.safetensors").read_bytes()
    return {
        "training": training,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "threads": threads,
        "torch": torch.__version__,
        "bounds": [_bound(row) for row in trained.measured if row.bound],
        "layers": replicates.layers(study),
    }


def _bound(row: Measured) -> dict[str, Any]:
    percent = round(row.percent, 4)
    return {"measure": row.measure, "surface": row.surface, "percent": percent, "n": row.n, "kept": row.kept}


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, measure all, write the files."""
    parser = argparse.ArgumentParser(prog="python -m autosteer_lib.replicates", description=__doc__)
    parser.add_argument("--model", choices=sorted(_PROFILES), default="llava_onevision")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2], help="all other trainings that the files are to hold"
    )
    parser.add_argument("--threads", type=int, default=_THREADS, help="of the CPU, for each training")
    parser.add_argument("--build", type=Path, default=Path("build/replicates"), help="where records are kept")
    options = parser.parse_args(arguments)
    try:
        repository_root()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    organism = ORGANISMS[options.model]
    seeds = sorted({SHIPPED_SEED, *options.seeds})
    if left_out := set(replicates.rates(options.model)["training"]) - set(seeds):
        listed = " ".join(str(seed) for seed in sorted(left_out | set(seeds) - {SHIPPED_SEED}))
        parser.error(
            f"{replicates.folder()} holds trainings {sorted(left_out)} too, and no training may be left out once it was "
            f"measured; write --seeds {listed}"
        )
    study = Study.open(_PROFILES[options.model], out=options.build)
    tables, by_layer, facts = [], [], []
    for seed in seeds:
        if seed == SHIPPED_SEED:
            one, threads = study, organism.threads
            trained = Trained(Path(study.profile.model_path(repository_root())), tuple(measure(study.mllm)))
        else:
            threads = options.threads
            trained = train(
                organism,
                out=place(options.model, seed=seed),
                device=torch.device("cpu"),
                seed=seed,
                threads=threads,
            )
            one = replicates.of_weights(study, trained.folder)
        torch.set_num_threads(study.profile.run.threads or torch.get_num_threads())
        tables.append(replicates.measured(one, training=seed))
        by_layer.append(replicate_layers.measured(one, training=seed))
        facts.append(_facts(one, trained, training=seed, threads=threads))
        kept = "all bounds kept" if trained.kept else "not every bound kept"
        print(f"training {seed}: measured, {kept}")
    replicates.write(options.model, pd.concat(tables, ignore_index=True), facts)
    replicate_layers.write(options.model, pd.concat(by_layer, ignore_index=True))
    print(f"written to {replicates.folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
