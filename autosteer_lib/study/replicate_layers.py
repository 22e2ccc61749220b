"""Why MARS differs so between trainings: on each, every late layer, also those that its rule may not
take, by what its step then does.

    opened        of harmful sights, and of their twins: the sign of the re-centred projection, MARS' gate
    refused       what the step makes of those that it opens on
    carried_out   of attacks

A layer that opens and does not turn the answer says that the direction tells harm and does not cause refusals there.
Looked at after the test results were known, on prompts of the *fit* split under a seed of their own: it explains, and
chooses nothing.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from autosteer_lib.defences import Defence, Undefended
from autosteer_lib.evaluation import BASELINE
from autosteer_lib.metrics import Rate
from autosteer_lib.organism import prompt_sets
from autosteer_lib.study.replicates import folder
from autosteer_lib.study.study import Study

SURFACES: tuple[prompt_sets.Attack, ...] = ("image", "video")  # where the trainings differ: harm in sight
SEED = 4711  # of these prompts; no other set is drawn from it
_EARLIEST = 3  # of eight blocks; the rule of MARS takes one of the later ones
KEYS = ("training", "layer", "chosen", "surface", "group", "measure")
_MEASURES = {"triggered": "opened", "refused": "refused", "unsafe": "carried out"}


def measured(study: Study, *, training: int, n: int = 60) -> pd.DataFrame:
    """MARS at each layer, and the undefended model (layer −1).

    Args:
        study: of one training of an organism.
        training: its seed.
        n: attacks a surface; as many twins.

    Returns:
        KEYS, and rate, low, high, n.
    """
    prompts = [
        prompt
        for surface in prompt_sets.shown_to(SURFACES, clips=study.mllm.sees_videos)
        for side in prompt_sets.attack_pairs(surface, n=n, split="fit", seed=SEED)
        for prompt in side
    ]
    mars = study.mars()
    layers = {f"{layer}": layer for layer in range(_EARLIEST, study.mllm.layers)}
    defences: dict[str, Defence] = {BASELINE: Undefended()}
    defences |= {name: mars.retuned(layer=layer) for name, layer in layers.items()}
    frame = study.evaluate(defences, prompts)
    rows = []
    for (defence, surface, group), part in frame.groupby(["defence", "surface", "group"], sort=False):
        for column, measure in _MEASURES.items():
            known = part[column].dropna()
            if known.empty or (column == "unsafe" and group != "attack"):
                continue
            layer = layers.get(str(defence), -1)
            keys = (training, layer, layer == mars.layer_, surface, group, measure)
            row = dict(zip(KEYS, keys, strict=True))
            rows.append({**row, **Rate.of(known.astype(bool).tolist()).as_row()})
    return pd.DataFrame(rows)


def write(model: str, table: pd.DataFrame, *, root: Path | None = None) -> None:
    """Beside the rates of the trainings."""
    text = table.to_csv(index=False, float_format="%.8g", lineterminator="\n")
    _path(model, root).write_text(text)


def read(model: str, *, root: Path | None = None) -> pd.DataFrame:
    """What was measured; no rows for a model of one training."""
    path = _path(model, root)
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*KEYS, "rate", "low", "high", "n"])


def _path(model: str, root: Path | None) -> Path:
    return folder(root) / f"{model}_mars_layers.csv"
