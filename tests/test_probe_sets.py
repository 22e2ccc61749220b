"""ProbeSets: labels are checked, and a share of each kind is kept back."""

from typing import Any

import pytest

from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.prompts import Prompt
from tests.conftest import Sights


def prompts(kind: str, count: int, *, harmful: bool = True, seen: bool = False) -> tuple[Prompt, ...]:
    sights = Sights()
    return tuple(
        Prompt(
            id=f"{kind} {i}", text=f"{kind} {i}", harmful=harmful, images=(sights.picture(),) if seen else ()
        )
        for i in range(count)
    )


KINDS: dict[str, Any] = {
    "image_attacks": prompts("image", 10, seen=True),
    "text_attacks": prompts("text", 5),
    "harmless": prompts("plain", 20, harmful=False),
}


def test_a_share_of_each_kind_is_kept_back_and_nothing_is_lost() -> None:
    sets = ProbeSets(**KINDS)
    train, kept_back = sets.split(held_out=0.2, seed=0)
    counts = [(len(s.image_attacks), len(s.text_attacks), len(s.other_attacks), len(s.harmless)) for s in (train, kept_back)]  # fmt: skip # noqa: E501
    assert counts == [(8, 4, 0, 16), (2, 1, 0, 4)]
    for name, whole in KINDS.items():
        assert sorted(p.id for s in (train, kept_back) for p in getattr(s, name)) == sorted(
            p.id for p in whole
        )
    assert [p.id for p in sets.split(held_out=0.2, seed=0)[1].attacks] == [p.id for p in kept_back.attacks]
    assert len(sets.attacks) == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"harmless": prompts("bad", 1)}, "harmless holds prompt 'bad 0' with harmful=True"),
        ({"text_attacks": prompts("good", 1, harmful=False)}, "text_attacks holds prompt 'good 0'"),
        ({"other_attacks": (Prompt(id="x", text="x"),)}, "harmful=None; it must be labelled harmful=True"),
        ({"image_attacks": prompts("blind", 1)}, "image_attacks holds prompt 'blind 0', which shows nothing"),
        ({"other_attacks": prompts("plain", 2)}, r"'plain 0', 'plain 1' \(2 in all\) are among the attacks"),
    ],
)
def test_sets_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeSets(**{**KINDS, **changes})


def test_one_prompt_of_a_kind_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="1 rows cannot be split"):
        ProbeSets(**{**KINDS, "text_attacks": prompts("text", 1)}).split(held_out=0.2, seed=0)
