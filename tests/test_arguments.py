"""What is given in place of a number, a flag or an object is named, with the remedy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autosteer_lib.arguments import (
    check_choice,
    check_flags,
    check_given,
    check_list,
    check_numbers,
    check_whole,
)
from autosteer_lib.defences import (
    ActivationTransfer,
    AdaShieldS,
    AdaSteer,
    Cast,
    Ecso,
    KSteering,
    MllmProtector,
    RefusalDirection,
    SafeSteer,
)
from autosteer_lib.judges import RefusalPhrases
from autosteer_lib.readings import Reading


@pytest.mark.parametrize("value", ["0.1", None, True, np.float32(0.1), [0.1]])
def test_what_is_no_plain_number_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=r"epsilon is .*; give a plain number"):
        check_numbers(epsilon=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match=f"lr = {value}; give a finite number"):
        check_numbers(epsilon=0.1, lr=value)


@pytest.mark.parametrize("value", ["3", 3.0, True, np.int64(3), None])
def test_what_is_no_whole_number_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=r"layer is .*; give a plain whole number"):
        check_whole(layer=value)


def test_a_word_is_no_flag() -> None:
    with pytest.raises(TypeError, match="recentre is 'no', of type str; give True or False"):
        check_flags(every_layer=True, recentre="no")


def test_a_class_in_place_of_an_object_is_named() -> None:
    with pytest.raises(TypeError, match="head is the class int itself; give a number"):
        check_given(int, int, name="head", remedy="a number")


def test_plain_values_pass() -> None:
    check_numbers(epsilon=0, threshold=np.float64(0.5))
    check_whole(seed=-1)
    check_flags(align=False)
    check_given("a", (str, int), name="folder", remedy="a name")


@pytest.mark.parametrize("value", ["refused", {"refused"}, 3, None, ["refused", 1], [True]])
def test_what_is_no_list_of_a_kind_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=r"target (is|holds) .*; give labels"):
        check_list(value, str, name="target", remedy="labels")
    check_list(("refused",), str, name="target", remedy="labels")


def test_a_choice_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"grid=\['data'\] is not known; allowed: 'data', 'code'"):
        check_choice(["data"], ("data", "code"), name="grid")


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("make", "changes", "told"),
    [
        (AdaSteer, {"rejection": 0.1}, "rejection is 0.1, .*give ClippedLine"),
        (AdaSteer, {"compliance": {"slope": 1.0}}, r"compliance has \['slope'\], a line has .*'offset', 'slope'"),
        (AdaSteer, {"logic_layers": 3}, "logic_layers is 3, of type int; give two layers"),
        (AdaSteer, {"rejection_strengths": "0.1"}, "rejection_strengths is '0.1', of type str; give a list"),
        (AdaSteer, {"compliance_strengths": [float("nan")]}, r"compliance_strengths\[0\] = nan"),
        (AdaSteer, {"fewest": "3"}, "fewest is '3', of type str"),
        (Cast, {"condition_layers": "12"}, "condition_layers is '12', of type str; give a list of layers"),
        (Cast, {"behaviour_layers": []}, "behaviour_layers is empty; give a list of layers"),
        (Cast, {"centring": "none"}, "centring='none' is not known; allowed: 'pairwise', 'global'"),
        (Cast, {"grid": "fine"}, "grid='fine' is not known"),
        (Cast, {"point": (1, 0.5)}, r"point=\(1, 0.5\) has 2 parts; give ConditionPoint"),
        (Cast, {"point": (1, 0.5, "over", 1.0)}, "point.side='over' is not known; allowed: 'above', 'below'"),
        (Ecso, {"check_sees": "no"}, "check_sees is 'no', of type str; give True or False"),
        (Ecso, {"answer_limit": 1.5}, "answer_limit is 1.5"),
        (Ecso, {"yes": 1}, "yes is 1, of type int; give the word"),
        (Ecso, {"check": 5}, "check is 5, of type int; give a template"),
        (AdaShieldS, {"template": None}, "template is None; give a template"),
        (KSteering, {"target": "refused"}, r"target is 'refused', of type str; give a list of labels"),
        (KSteering, {"gate": 1}, "gate is 1, of type int; give a label"),
        (KSteering, {"layer": "2"}, "layer is '2', of type str"),
        (SafeSteer, {"reading": "paper"}, "reading is 'paper', of type str; give SafeSteerReading"),
        (RefusalDirection, {"most_kl": "small"}, "most_kl is 'small', of type str"),
        (RefusalDirection, {"layer": "2", "position": -1}, "layer is '2', of type str"),
        (MllmProtector, {"detector": "mine"}, "detector is 'mine', of type str; give a fitted AnswerDetector"),
        (ActivationTransfer, {"source_layer": 1, "target_layer": 1, "mapper": "cnn"}, "mapper='cnn' is not known"),
        (ActivationTransfer, {"source_layer": 1, "target_layer": 1, "epochs": 0}, "epochs = 0; use 1 or more"),
        (RefusalPhrases, {"phrases": "sorry"}, "phrases is 'sorry', of type str; give a list of phrases"),
        (Reading, {"toxic_image_rows": "many"}, "toxic_image_rows is 'many', of type str"),
        (Reading, {"refusal_text": None}, "refusal_text is None; give the words"),
    ],
    ids=str,
)  # fmt: skip
def test_slips_in_settings_are_told_when_they_are_made(
    make: Callable[..., Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        make(**changes)
