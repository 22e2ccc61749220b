"""The profile of a rehearsal: another profile's settings with a stand-in model and the sizes of the smoke profile.

Sizes, rates of learning (`SIZES`) and the gate's threshold alone are replaced, so methods, layers, sets, strengths,
type of the weights, template and placement on devices are those of the profile that is rehearsed. At the papers' rates
the head would not have moved at all after the few steps of a rehearsal, and its answers would be the undefended model's.
Nor does a prober of random states come near the papers' threshold: no answer would be steered.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autosteer_lib.ingredients import check_model, has_own_model
from autosteer_lib.profiles import PROFILE_FOLDER, Profile, load_profile
from autosteer_lib.released import CHECKPOINTS

SIZES: dict[str, tuple[str, ...]] = {
    "run": ("threads", "notebooks_at_once", "disk_gb"),
    "data": ("pairs", "refusal_prompts", "tests_per_surface"),
    "prober": ("width", "epochs", "held_out", "lr"),
    "head": ("epochs", "batch_size", "lr"),
    "mars": ("neutral", "side", "frames", "alphas", "neutral_counts", "sweep_tests"),
    "safesteer": (
        "image_attacks", "text_attacks", "other_attacks", "harmless", "held_out", "ks", "steps", "sweep_tests",
    ),
    "generation": ("max_new_tokens", "batch_size"),
    "compared": ("tests", "validation", "candidates", "role_plays"),
    "evaluation": ("seeds", "epsilons", "thresholds", "widths", "pair_counts"),
}  # fmt: skip
"""Keys that are taken from the smoke profile, by section."""
TEXTS = {"texts": 40, "validation": 24}
"""Sizes of [mars]: fits need up to ten texts that were refused and ten that were not, and a coin leaves half of each."""

THRESHOLD = 1e-6
"""Of the gate: it opens on every prompt. That it can stay shut is for the battery to show."""


def families_of(profile: Profile, *, root: Path, further: bool = False) -> list[str]:
    """The family of a profile's model, a folder's by its config.json, then those of its further checkpoints, if wanted.

    Raises:
        ValueError, FileNotFoundError: a family that is not known, or a folder that is none or not whole.
    """
    own = profile.model.name
    first = check_model(profile, root=root) if has_own_model(profile, root=root) else family_of(own)
    return list(dict.fromkeys([first, *map(family_of, profile.model.families if further else ())]))


def family_of(name: str) -> str:
    """The family of a released checkpoint that a profile names.

    Raises:
        ValueError: nothing is known of it: there is nothing to stand in for.
    """
    found = CHECKPOINTS[name].family if name in CHECKPOINTS else ""
    if not found:
        raise ValueError(
            f"{name!r} is no released checkpoint of which the family is known (autosteer_lib/released.py); fetch it and "
            "give its folder as [model] name: the config.json in it says of which family it is"
        )
    return found


def write_rehearsal(profile: Profile, target: Path, *, model: Path, judges: Path) -> Path:
    """Write the profile of a rehearsal.

    Args:
        profile: which is rehearsed.
        target: the TOML file; its name is the rehearsal's.
        model: folder of the stand-in.
        judges: folder that holds stand-ins of published judges.
    """
    content: dict[str, Any] = json.loads(profile.model_dump_json(exclude={"name"}))
    smoke = tomllib.loads((PROFILE_FOLDER / "smoke.toml").read_text(encoding="utf-8"))
    for section, keys in SIZES.items():
        content[section] |= {key: smoke[section][key] for key in keys}
    content["mars"] |= TEXTS
    content["gate"]["threshold"] = THRESHOLD
    content["run"] |= {"description": f"rehearsal of {profile.name} on stand-ins; no number means anything"}
    content["run"]["offline"] = True
    content["model"] |= {"name": str(model), "revision": False, "families": []}
    content["judges"] |= {"decides": "coin", "folder": str(judges)}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_toml(content), encoding="utf-8")
    load_profile(target)  # checks it
    return target


def _toml(content: Mapping[str, Any], prefix: str = "") -> str:
    """Tables of scalars, lists and tables: all that a profile has."""
    plain = {key: value for key, value in content.items() if not isinstance(value, dict) or not value}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    head = [f"[{prefix}]"] if prefix and lines else []
    tables = [
        _toml(value, f"{prefix}.{key}" if prefix else key)
        for key, value in content.items()
        if isinstance(value, dict) and value
    ]
    return "\n".join([*head, *lines, *tables]) + "\n"
