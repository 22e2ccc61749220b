"""Which checkpoints a profile needs, and what is on this machine. Nothing here goes on a network.

    checkpoints    the profile's model, and one of each further family
    judges         published models that judge the answers afterwards
    sets           benchmarks/needed.py
    machine        disk, accelerator, token

`plan` prints it and `fetch` gets it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from autosteer_lib.benchmarks import Benchmark, HubSet
from autosteer_lib.benchmarks.places import benchmarks_home, cached_snapshot
from autosteer_lib.checkpoints import MODEL_FILES
from autosteer_lib.profiles import Profile
from autosteer_lib.released import JUDGES, Checkpoint, checkpoint


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine, as far as a profile's needs go."""

    free_gigabytes: float
    """Where the hub's cache lies."""
    token: bool
    """Whether there is a token for gated downloads. The token itself is never read out."""
    accelerator: str
    """Its name; empty where there is none."""
    accelerator_gigabytes: float
    offline: bool
    """Whether HF_HUB_OFFLINE forbids downloads."""


def needed_checkpoints(profile: Profile) -> list[Checkpoint]:
    """The model of the profile first, then its further families."""
    name = profile.model.name
    own = [] if name.count("/") != 1 else [checkpoint(name)]  # a folder is there already
    return [*own, *(checkpoint(repo) for repo in profile.model.families)]


def needed_judges(profile: Profile) -> list[Checkpoint]:
    """The published judges that the profile asks afterwards, unless a folder holds them."""
    if profile.judges.folder:
        return []
    return [JUDGES[name] for name in profile.judges.second if name in JUDGES]


def machine() -> Machine:
    """Look at this machine (a second or more: it asks torch for its accelerator)."""
    import torch

    cuda = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if cuda else None
    return Machine(
        free_gigabytes=shutil.disk_usage(_existing(Path(constants.HF_HOME))).free / 1e9,
        token=get_token() is not None,
        accelerator=properties.name if properties else "mps" if torch.backends.mps.is_available() else "",
        accelerator_gigabytes=properties.total_memory / 1e9 if properties else 0.0,
        offline=bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_DATASETS_OFFLINE") == "1",
    )


def checkpoint_here(needed: Checkpoint, *, revision: str | None) -> bool:
    """Whether the hub's cache has it at that revision."""
    try:
        snapshot_download(
            needed.repo, revision=revision, allow_patterns=list(MODEL_FILES), local_files_only=True
        )
    except LocalEntryNotFoundError:
        return False
    return True


def set_here(benchmark: Benchmark) -> bool:
    """Whether anything of it is on this machine; whether all of it is, shows when it is loaded."""
    own = benchmarks_home() / benchmark.name
    patterns = ("*.json*", "*.csv", "*.md", "*.txt", "data", "output", "train")
    rows = any(path for pattern in patterns for path in own.glob(pattern))
    hub = isinstance(benchmark.source, HubSet) and cached_snapshot(benchmark.source) is not None
    return hub or rows


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())
