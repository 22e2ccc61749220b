"""SafeSteerReading: its defaults, and what it refuses."""

from dataclasses import asdict, fields, replace
from typing import get_args, get_type_hints

import pytest

from autosteer_lib.safesteer_readings import SafeSteerReading


def test_the_defaults_are_the_recommended_readings() -> None:
    assert asdict(SafeSteerReading()) == {
        "norm": "post",
        "solver": "converged",
        "sign": "held_out",
        "choice": "best",
        "gate": "prefill",
        "direction": "towards_text",
        "scale": "unit",
    }


def test_every_choice_of_every_option_is_accepted() -> None:
    hints = get_type_hints(SafeSteerReading)
    choices = {entry.name: get_args(hints[entry.name]) for entry in fields(SafeSteerReading)}
    assert all(len(allowed) > 1 for allowed in choices.values())
    for name, allowed in choices.items():
        for choice in allowed:
            assert getattr(replace(SafeSteerReading(), **{name: choice}), name) == choice


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("name", [entry.name for entry in fields(SafeSteerReading)])
def test_another_word_is_refused_with_those_allowed(name: str) -> None:
    allowed = ", ".join(map(repr, get_args(get_type_hints(SafeSteerReading)[name])))
    with pytest.raises(
        ValueError, match=f"SafeSteerReading {name} = 'other' is not known; allowed: {allowed}"
    ):
        SafeSteerReading(**{name: "other"})  # type: ignore[arg-type]
