"""Chapter 00: the safety gap. What the undefended model does on each surface, and how it was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from autosteer_lib.defences import Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.evaluation import rates_by
from autosteer_lib.prompts import Prompt, open_images, open_videos
from autosteer_lib.provenance import repository_root
from autosteer_lib.study.study import Study

# group → the yes-or-no column that matters in it, and what a table calls its rate
MEASURES = {
    "attack": ("unsafe", "attack success"),
    "benign": ("refused", "refusal"),
    "borderline": ("refused", "refusal"),
    "utility": ("correct", "accuracy"),
}


def group_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """The rate that matters in each group (`MEASURES`), by surface and defence.

    Returns:
        group, surface, defence, measure, rate, low, high, n.
    """
    tables = []
    for group, (column, name) in MEASURES.items():
        rows = frame[frame["group"] == group]
        if not rows.empty:
            table = rates_by(rows, ["group", "surface", "defence"], measure=column)
            tables.append(table.assign(measure=name))
    return pd.concat(tables, ignore_index=True)


def undefended(study: Study) -> pd.DataFrame:
    """Answers of the plain model to every test prompt."""
    return study.evaluate({"Orig.": Undefended()}, study.data.tests)


def verdict(unsafe: bool, refused: bool) -> str:
    """The word that figures show for an answer to an attack."""
    return "unsafe" if unsafe else "refused" if refused else "off topic"


def picture_of(prompt: Prompt) -> object:
    """What figures show of a prompt: the frames of its first clip, else its first picture, else None."""
    if prompt.videos:
        return list(open_videos(prompt)[0])
    return next(iter(open_images(prompt)), None)


def examples(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """The first prompt of each attack surface that was answered, with the undefended answer, for the case gallery."""
    rows, answered = [], frame[~frame["failed"]].drop_duplicates("prompt_id").set_index("prompt_id")
    for surface in study.data.surfaces("attack"):
        asked = study.data.test(group="attack", surface=surface)
        prompt = next((p for p in asked if p.id in answered.index), None)
        if prompt is None:
            continue
        answer = answered.loc[prompt.id]
        rows.append(
            {
                "surface": surface,
                "prompt": prompt.text,
                "asks_for": prompt.intention,
                "answer": answer["answer"],
                "verdict": verdict(bool(answer["unsafe"]), bool(answer["refused"])),
                "picture": picture_of(prompt),
            }
        )
    return pd.DataFrame(rows)


def training_log(study: Study) -> pd.DataFrame | None:
    """Loss by stage and step of the shipped organism; None for a checkpoint that ships no log.

    Returns:
        stage, step, quantity ("loss"), value.
    """
    path = Path(repository_root()) / study.profile.model.name / "training.json"
    if not path.is_file():
        return None
    log = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        {"stage": stage, "step": step, "quantity": "loss", "value": loss}
        for stage, facts in log.items()
        for step, loss in facts["loss"]
    ]
    return pd.DataFrame(rows)


def prompt_end(study: Study, *, tokens: int = 5) -> pd.DataFrame:
    """The last tokens of one prompt under the chat template: which one is probed?

    Returns:
        position (−1 is probed), token.
    """
    prompt = study.data.pairs.toxic[0]
    ids = encode(study.mllm, [prompt]).inputs["input_ids"][0, -tokens:].tolist()
    return pd.DataFrame(
        {
            "position": range(-tokens, 0),
            "token": study.mllm.tokenizer.convert_ids_to_tokens(ids),
            "probed": [False] * (tokens - 1) + [True],
        }
    )
