"""A model and prompts of one's own, checked before anything depends on them: by the driver, and by `make plan`.

    [model] name       a folder: is it there, of a family that can be loaded, and whole?
                       a hub id under [run] offline: is it in the cache?
    [data] folder      every row, picture and film of six files (study/own_files.py)

Seconds, and no weight is read. Each import below loads transformers or the study, so it stands where it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autosteer_lib.profiles import Profile

if TYPE_CHECKING:
    from autosteer_lib.study.own_files import OwnFile


def has_own_model(profile: Profile, *, root: Path) -> bool:
    """Whether the model is a folder, there or lost, and no checkpoint of the hub."""
    return isinstance(profile.model_path(root), Path) or profile.model.name.count("/") != 1


def check_model(profile: Profile, *, root: Path) -> str:
    """The family of a model of one's own; "" for a checkpoint of the hub.

    Raises:
        ValueError, FileNotFoundError: no such folder, a family that cannot be loaded, a file that is missing or cut
            short, or a hub's checkpoint that is not here and may not be fetched.
    """
    from autosteer_lib.checkpoints import check_folder, locate
    from autosteer_lib.families import check_family, model_type

    name = profile.model.name
    if not has_own_model(profile, root=root):
        if profile.run.offline:
            _check_cached(profile, root=root)
        return ""
    if not (root / name).is_dir():
        raise ValueError(
            f"[model] name = {name!r}: there is no folder {root / name}; give one that save_pretrained wrote, relative to "
            "the repository's root or from / on, or owner/name of a checkpoint on the Hugging Face hub"
        )
    folder, _ = locate(root / name, revision=profile.model.revision or None)
    check_family(folder)
    check_folder(folder)
    return model_type(folder)


def check_prompts(profile: Profile, *, root: Path) -> list[OwnFile]:
    """What each file of one's own prompts holds; none for prompts of another source.

    Raises:
        ValueError: every fault in them.
    """
    if profile.data.source != "files":
        return []
    from autosteer_lib.study.own_files import check_own_files

    return check_own_files(profile, root=root)


def _check_cached(profile: Profile, *, root: Path) -> None:
    from autosteer_lib.needs import checkpoint_here
    from autosteer_lib.released import checkpoint

    name = profile.model.name
    if not checkpoint_here(checkpoint(name), revision=profile.model.revision or None):
        raise ValueError(
            f"[model] name = {name!r} is neither a folder ({root / name}) nor a checkpoint in the hub's cache, and [run] "
            "offline = true forbids fetching it; correct the path, or set offline = false and `make fetch`"
        )
