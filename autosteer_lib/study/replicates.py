"""Other trainings of an organism: does a result belong to the recipe, or to one set of weights?

    data/replicates/<model>.csv     one row a (training, part, measure, defence), with Wilson's interval
    data/replicates/<model>.json    of each training: hash of its weights, bounds that it kept, layers that were chosen
    data/replicates/<model>_mars_layers.csv    why MARS differs (replicate_layers.py)

Training 0 is the shipped one. Others differ in their first weights and in all that is drawn for training; the world,
the recipe, the prompts and the settings of the defences are the same. An interval of one training says what other
prompts would have given; the spread over trainings says what another model of the same kind would have.

All three are written by `python -m autosteer_lib.replicates`, which takes half an hour of a core for each training.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from autosteer_lib.defences import Defence
from autosteer_lib.provenance import repository_root
from autosteer_lib.study.compared import overall
from autosteer_lib.study.study import Study

RATES = ("rate", "low", "high", "n")
_PANELS = {
    ("attack", "in words or both", "attack success"): "attacks in words or both that succeed (%)",
    ("attack", "in sight", "attack success"): "attacks in sight that succeed (%)",
    ("benign", "all", "refusal"): "harmless twins refused (%)",
    ("utility", "all", "accuracy"): "utility (%)",
}
KEYS = ("training", "group", "part", "measure", "defence")


def folder(root: Path | None = None) -> Path:
    """Where the files of each model are."""
    return (root or repository_root()) / "data" / "replicates"


def of_weights(study: Study, checkpoint: Path) -> Study:
    """The study as it would be if the model had these weights; it writes into the same build.

    Args:
        study: whose settings and prompts are taken.
        checkpoint: a folder in the layout of the study's model.
    """
    model = study.profile.model.model_copy(update={"name": str(checkpoint.resolve())})
    run = study.profile.run.model_copy(update={"beside": []})
    profile = study.profile.model_copy(update={"model": model, "run": run})
    return Study(profile, study.seed, study.artefacts)


def defences(study: Study) -> dict[str, Defence]:
    """The three papers' methods in their published settings, the head always on, and no defence."""
    return {**study.methods(), "MARS": study.mars(), "SafeSteer": study.safesteer()}


def layers(study: Study) -> dict[str, int]:
    """What each method chose on this training."""
    return {"AutoSteer": study.autosteer().layer_, "MARS": study.mars().layer_}


def measured(study: Study, *, training: int) -> pd.DataFrame:
    """Every test prompt of the study under each method.

    Returns:
        KEYS and RATES. Attacks stand there whole and in parts: what nothing but the sight tells, and the others.
    """
    frame = study.evaluate(defences(study), study.data.tests).assign(setting="published")
    table = overall(frame).rename(columns={"surface": "part"}).assign(training=training)
    return table[[*KEYS, *RATES]]


def write(model: str, rates: pd.DataFrame, facts: list[dict[str, Any]], *, root: Path | None = None) -> None:
    """Rates and facts of a model, in the order of trainings."""
    place = folder(root)
    place.mkdir(parents=True, exist_ok=True)
    text = rates.to_csv(index=False, float_format="%.8g", lineterminator="\n")
    (place / f"{model}.csv").write_text(text)
    (place / f"{model}.json").write_text(json.dumps(facts, indent=1) + "\n")


def name_of(study: Study, *, root: Path | None = None) -> str:
    """The model's name here if its weights are those of training 0; else an empty one, under which nothing is kept.

    A name alone would give the organism's trainings to any checkpoint whose folder is called like it.
    """
    weights = Path(study.profile.model_path(repository_root())) / "model.safetensors"
    facts = _facts(study.mllm.name, root)
    if not facts or not weights.is_file():
        return ""
    same = hashlib.sha256(weights.read_bytes()).hexdigest() == facts[0]["sha256"]
    return study.mllm.name if same else ""


def rates(model: str, *, root: Path | None = None) -> pd.DataFrame:
    """What was measured on the trainings of a model; no rows for a model of which there is but one.

    Raises:
        ValueError: the file lacks a column, or a rate is none.
    """
    path = folder(root) / f"{model}.csv"
    if not path.exists():
        return pd.DataFrame(columns=[*KEYS, *RATES])
    table = pd.read_csv(path)
    missing = [name for name in (*KEYS, *RATES) if name not in table]
    if missing or not table["rate"].between(0, 1).all():
        why = f"lacks {', '.join(missing)}" if missing else "has rates outside [0, 1]"
        raise ValueError(
            f"{path} {why}; it is written by `python -m autosteer_lib.replicates --model {model}`"
        )
    return table


def beside(study: Study, *, root: Path | None = None) -> pd.DataFrame:
    """`rates` of the models beside the study's own, behind a column `model`; no rows where each was trained once."""
    named = {name: rates(name, root=root) for one in study.beside if (name := name_of(one, root=root))}
    if not named:
        return pd.DataFrame(columns=["model", *KEYS, *RATES])
    return pd.concat(named, names=["model"]).reset_index(level=0).reset_index(drop=True)


def trainings(model: str, *, root: Path | None = None) -> pd.DataFrame:
    """Of each training: seed, first letters of the weights' hash, bounds kept of those that there are, layers chosen."""
    rows = [
        {
            "training": one["training"],
            "weights": one["sha256"][:12],
            "bounds": len(one["bounds"]),
            "kept": sum(bound["kept"] for bound in one["bounds"]),
            "outside": ", ".join(
                f"{b['measure']} {b['surface']} {b['percent']:.1f} %" for b in one["bounds"] if not b["kept"]
            ),
            **{f"layer of {method}": layer for method, layer in one["layers"].items()},
        }
        for one in _facts(model, root)
    ]
    return pd.DataFrame(rows)


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Each rate over the trainings, beside the widest interval of a single one.

    Returns:
        group, part, measure, defence, mean, lowest, highest, range, interval (high − low, the widest), trainings.
    """
    keys = [key for key in KEYS if key != "training"]
    grouped = table.assign(interval=table["high"] - table["low"]).groupby(keys, sort=False)
    found = grouped.agg(
        mean=("rate", "mean"),
        lowest=("rate", "min"),
        highest=("rate", "max"),
        interval=("interval", "max"),
        trainings=("training", "nunique"),
    ).reset_index()
    found.insert(len(keys) + 3, "range", found["highest"] - found["lowest"])
    return found


def panels(table: pd.DataFrame) -> pd.DataFrame:
    """The four measures that tell the methods apart, each with what its axis says in the column `panel`."""
    keys = pd.MultiIndex.from_frame(table[["group", "part", "measure"]])
    shown = table.assign(panel=keys.map(_PANELS)).dropna(subset="panel")
    order = {panel: i for i, panel in enumerate(_PANELS.values())}
    return shown.sort_values("panel", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def shipped_again(table: pd.DataFrame, frame: pd.DataFrame) -> str:
    """Is training 0 of the file the model of this run? In words: how many of its rates this run gives again.

    Args:
        table: of `rates`.
        frame: answers of this run to the same prompts, under some of the methods.
    """
    here = overall(frame.assign(setting="published")).rename(columns={"surface": "part"})
    keys = [key for key in KEYS if key != "training"]
    both = table[table["training"] == 0].merge(here, on=keys, suffixes=("", "_here"))
    same = (both["rate"] - both["rate_here"]).abs() < 1e-7
    return f"{same.sum()} of {len(both)} rates of training 0 are those of this run"


def _facts(model: str, root: Path | None) -> list[dict[str, Any]]:
    path = folder(root) / f"{model}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found
