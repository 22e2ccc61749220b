"""A checkpoint folder as released ones look, small and with random weights.

The tiny models (tiny_models/) have each family's classes, shapes and template. Released folders differ from what
`save_pretrained` writes today in ways that have broken loaders; what is added here:

    config.json              the type of its weights under the older key `torch_dtype`, an older `transformers_version`
    generation_config.json   sampling switched on, several tokens that end an answer
    weights                  half precision, in several files with an index
    tokenizer                knows every letter, so that no two requests read alike
    chat template            none for a family whose released checkpoints have none
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from autosteer_lib.families import DEFAULT_TEMPLATES
from autosteer_lib.rehearsal.tiny_models import BUILDERS

CONTEXT = 8192  # tokens, a letter each
SHARD = "60KB"  # of about 200 to 400: several files
LETTERS = tuple(
    c for c in string.printable if not c.isspace() and c != ":"
)  # a colon is a word of the tiny models
_OLDER = "4.49.0"


def released_checkpoint(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint of that family in the released layout.

    Args:
        family: one of `tiny_models.BUILDERS`.
        folder: which is made; a folder that is there already is taken as it is.
        seed: of the weights.

    Raises:
        ValueError: no stand-in of this family; lists those that there are.
    """
    if family not in BUILDERS:
        raise ValueError(f"no stand-in for the family {family!r}; there are {', '.join(sorted(BUILDERS))}")
    if (folder / "config.json").is_file():
        return folder
    plain = BUILDERS[family](folder.with_name(f"{folder.name}.plain"), seed=seed)
    processor: Any = AutoProcessor.from_pretrained(plain)
    model: Any = AutoModelForImageTextToText.from_pretrained(plain)
    tokenizer = processor.tokenizer
    tokenizer.model_max_length = CONTEXT
    model.config.get_text_config().max_position_embeddings = CONTEXT
    tokenizer.add_tokens([letter for letter in LETTERS if letter not in tokenizer.get_vocab()])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        known = model.get_input_embeddings().weight.shape[0]
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            torch.nn.init.normal_(table.data[known:], std=0.15)
    model.generation_config = _generation(tokenizer)
    model.to(torch.float16).save_pretrained(folder, max_shard_size=SHARD)
    processor.save_pretrained(folder)
    if family in DEFAULT_TEMPLATES:
        (folder / "chat_template.jinja").unlink()
    _make_older(folder / "config.json")
    return folder


def _generation(tokenizer: Any) -> GenerationConfig:
    """As Qwen's: it would sample, and two tokens end an answer."""
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    return GenerationConfig(
        do_sample=True, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.05, eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
    )  # fmt: skip


def _make_older(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["torch_dtype"] = config.pop("dtype", "float16")
    config["transformers_version"] = _OLDER
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
