"""Checkpoints of published judges, small and random, so that a rehearsal loads and asks them as a real run does.

Their replies are nonsense that no rubric can read: every row stays open, which a real run has to show as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from autosteer_lib.judges.named import MODELS
from autosteer_lib.rehearsal.checkpoint import LETTERS
from autosteer_lib.rehearsal.tiny_models.parts import build_tokenizer, text_sizes

CONTEXT = 4096  # tokens, a letter each: rubrics are long
TEMPLATE = (
    "<s>{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} \n {% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def write_judges(names: Iterable[str], folder: Path) -> Path:
    """Write a folder for each published judge among the names; return the folder that holds them."""
    for name in names:
        if name in MODELS and not (folder / name / "config.json").is_file():
            _write(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(folder: Path) -> None:
    tokenizer = build_tokenizer(
        special=("<s>", "</s>", "<|assistant|>"), names={}, bos_token="<s>", eos_token="</s>"
    )
    tokenizer.add_tokens([letter for letter in LETTERS if letter not in tokenizer.get_vocab()])
    tokenizer.chat_template = TEMPLATE
    tokenizer.model_max_length = CONTEXT
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**text_sizes(tokenizer), "max_position_embeddings": CONTEXT}))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
