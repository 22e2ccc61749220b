"""MarsReading: its defaults, and what it refuses."""

from dataclasses import asdict, fields, replace
from typing import get_args, get_type_hints

import pytest

from autosteer_lib.mars_readings import MarsReading


def test_the_defaults_are_the_recommended_readings() -> None:
    assert asdict(MarsReading()) == {
        "text_centre": "pooled",
        "positions": "last_to_all",
        "text_inputs": "pooled",
        "video_centre": "clips",
        "candidates": "upper",
        "scaling": "candidates",
        "separability": "balanced",
    }


def test_every_choice_of_every_option_is_accepted() -> None:
    hints = get_type_hints(MarsReading)
    choices = {entry.name: get_args(hints[entry.name]) for entry in fields(MarsReading)}
    assert all(len(allowed) > 1 for allowed in choices.values())
    for name, allowed in choices.items():
        for choice in allowed:
            changed = replace(MarsReading(), **{name: choice})
            assert getattr(changed, name) == choice


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("name", [entry.name for entry in fields(MarsReading)])
def test_another_word_is_refused_with_those_allowed(name: str) -> None:
    allowed = ", ".join(map(repr, get_args(get_type_hints(MarsReading)[name])))
    with pytest.raises(ValueError, match=f"MarsReading {name} = 'other' is not known; allowed: {allowed}"):
        MarsReading(**{name: "other"})  # type: ignore[arg-type]
