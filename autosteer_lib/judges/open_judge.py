"""The published judges by name: which checkpoint, and what it is asked.

    open_judge("llama-guard-3", replies=folder / "replies.jsonl", device="cuda")

Terms and gates are those of the checkpoints: the Llama Guards and WildGuard want an account that accepted their
licence; HarmBench's classifier is open (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from autosteer_lib.judges.asked import AskedJudge, Rubric
from autosteer_lib.judges.harmbench import HarmBenchClassifier
from autosteer_lib.judges.llama_guard import LlamaGuard
from autosteer_lib.judges.local_model import LocalModel
from autosteer_lib.judges.wildguard import WildGuard
from autosteer_lib.released import JUDGES


@dataclass(frozen=True, kw_only=True)
class PublishedJudge:
    """A checkpoint that was trained to judge."""

    checkpoint: str
    """Its hub id."""
    rubric: Rubric
    kind: Any = AutoModelForCausalLM
    """The auto class of transformers that knows it."""


PUBLISHED_JUDGES = {
    "llama-guard-3": PublishedJudge(checkpoint="meta-llama/Llama-Guard-3-8B", rubric=LlamaGuard()),
    "llama-guard-4": PublishedJudge(
        checkpoint="meta-llama/Llama-Guard-4-12B",
        rubric=LlamaGuard(name="Llama Guard 4", in_parts=True),
        kind=AutoModelForImageTextToText,
    ),
    "harmbench": PublishedJudge(
        checkpoint="cais/HarmBench-Llama-2-13b-cls", rubric=HarmBenchClassifier()
    ),
    "wildguard": PublishedJudge(checkpoint="allenai/wildguard", rubric=WildGuard()),
}  # fmt: skip


def open_judge(
    name: str,
    *,
    replies: Path,
    checkpoint: str | Path | None = None,
    revision: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    batch_size: int = 16,
    progress: bool = True,
) -> AskedJudge:
    """Load a published judge.

    Args:
        name: one of `PUBLISHED_JUDGES`.
        replies: JSONL file that keeps every reply.
        checkpoint: a folder or hub id in place of the published one (a copy on disk, the smaller sibling).
        revision: branch, tag or commit on the hub; None: of the published checkpoint, the one in released.py.
        device: where it runs.
        dtype: of its weights.
        batch_size: answers at once; halved where they do not fit.
        progress: show a bar.

    Raises:
        ValueError: an unknown name; the message lists those that are known.
        OSError, ImportError: the checkpoint cannot be fetched or loaded.
    """
    if name not in PUBLISHED_JUDGES:
        raise ValueError(f"no published judge {name!r} is known; there are {', '.join(PUBLISHED_JUDGES)}")
    judge = PUBLISHED_JUDGES[name]
    model = LocalModel(
        checkpoint or judge.checkpoint,
        kind=judge.kind,
        revision=revision if checkpoint or revision else JUDGES[name].revision,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    )
    return AskedJudge(judge.rubric, model, replies=replies, progress=progress)
