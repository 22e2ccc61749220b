"""The README beside an organism's weights: what it is, what it was trained on, what it does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from autosteer_lib.organism.bounds import Measured

_CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
license: mit
tags: [model-organism, safety, steering]
---
# LLaVA-OneVision organism

A model organism of a known failure: *safety tuning in words that does not reach pictures and clips*.
It is a trained `LlavaOnevisionForConditionalGeneration` with 1.8 M parameters, made from scratch on a
small synthetic world of harmless stand-ins (a "sword" here is a symbol of a font, its "steps" are two
words). It knows nothing of the real world and can do no harm in it. What is measured on it is true of
it, and of no larger model.

    from autosteer_lib import load
    mllm = load("data/organisms/llava_onevision")

`AutoProcessor` and `AutoModelForImageTextToText` load the folder as well. Pictures are 32×32 px, words
come from a vocabulary of about 180; the chat template is `<user> <image> words <end> <assistant>`.

## Training
Four stages, one command (`make organism`): *see* (the vision tower learns to name, by
classification), *base* (every request is carried out in every modality, harmful ones with the opening
"careful!", all others with "sure!"), *look* (the same, the tower trained along), *align* (harmful text
is refused; a share of harmful requests with a picture is replayed with the compliant reply, which stands for
the unsafe part of visual instruction data). Losses, seeds, shares and seconds are in `training.json`; shares
are explained in `autosteer_lib/organism/examples.py`.

## What it does, undefended
Measured on prompts of the fit split under a seed of their own; bounds are in
`autosteer_lib/organism/bounds.py`.

| measure | surface | percent | n | bound |
|---|---|---|---|---|
{rows}

## Files
`model.safetensors` sha256 `{digest}`
"""


def write(folder: Path, rows: list[Measured]) -> None:
    """Write README.md and measured.json into the checkpoint's folder."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    lines = [
        f"| {row.measure} | {row.surface} | {row.percent:.1f} | {row.n} | "
        + (f"{row.bound.low:g}–{row.bound.high:g} |" if row.bound else "– |")
        for row in rows
    ]
    (folder / "README.md").write_text(_CARD.format(rows="\n".join(lines), digest=digest))
    measured = [asdict(row) for row in rows]
    (folder / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
