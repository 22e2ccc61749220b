"""Judges by the names that profiles and tables give them.

    truth                the organism's world knows (of its own prompts alone)
    refusal phrases      this project's phrases
    phrases: MARS        a published list, and so on for each (refusal_lists.py)
    coin                 rehearsals
    llama-guard-3 …      published models (open_judge.py)

The first four need the words alone: one of them decides, also while a defence is fitted. A model is asked afterwards,
about answers on record.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autosteer_lib.judges.base import Judge
from autosteer_lib.judges.coin import Coin
from autosteer_lib.judges.phrases import RefusalPhrases
from autosteer_lib.judges.refusal_lists import REFUSAL_LISTS
from autosteer_lib.organism.judge import TruthJudge

if TYPE_CHECKING:
    from autosteer_lib.judges.asked import AskedJudge

MODELS = ("llama-guard-3", "llama-guard-4", "harmbench", "wildguard")  # of open_judge.py, which loads torch


def word_judges() -> dict[str, Callable[[], Judge]]:
    """Every judge that needs the words alone."""
    lists = {f"phrases: {name}": partial(RefusalPhrases.published, name) for name in REFUSAL_LISTS}
    return {"truth": TruthJudge, "refusal phrases": RefusalPhrases, **lists, "coin": Coin}


def word_judge(name: str) -> Judge:
    """One of `word_judges` by its name.

    Raises:
        ValueError: no such judge; lists those that there are.
    """
    known = word_judges()
    if name not in known:
        raise ValueError(f"no judge of words is called {name!r}; there are {', '.join(known)}")
    return known[name]()


def model_judge(name: str, *, replies: Path, folder: Path | None = None, batch_size: int = 16) -> AskedJudge:
    """A published judge, on an accelerator where there is one.

    Args:
        name: one of `MODELS`.
        replies: JSONL file that keeps every reply.
        folder: holds checkpoints by these names; None takes the hub's.
        batch_size: answers at once.

    Raises:
        OSError: its checkpoint is not on this machine and cannot be fetched.
    """
    import torch

    from autosteer_lib.judges.open_judge import open_judge

    device = "cuda" if torch.cuda.is_available() else "cpu"
    own = None if folder is None else folder / name
    return open_judge(
        name, replies=replies, checkpoint=own, device=device, batch_size=batch_size, progress=False
    )
