"""Every difference between paper and code is listed, and every switch belongs to one."""

from dataclasses import fields

import pytest
import torch

from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import DIFFERENCES, Reading


def test_differences_are_numbered_and_explained() -> None:
    assert [difference.number for difference in DIFFERENCES] == list(range(1, 17))
    assert all(d.what and d.paper and d.code and d.measurable for d in DIFFERENCES)


def test_every_option_belongs_to_exactly_one_difference() -> None:
    listed = sorted(option for difference in DIFFERENCES for option in difference.options)
    assert listed == sorted(field.name for field in fields(Reading))


def test_paper_and_code_differ_in_every_option() -> None:
    paper, code = Reading(), Reading.official_code()
    same = [
        field.name for field in fields(Reading) if getattr(paper, field.name) == getattr(code, field.name)
    ]
    assert same == []


def test_official_code_can_be_adapted() -> None:
    code = Reading.official_code(prober_checkpoint="last", refusal_text="sorry")
    assert (code.prober_checkpoint, code.refusal_text, code.prober_output) == ("last", "sorry", "softmax2")


def test_gates_differ_only_where_the_score_is_the_threshold() -> None:
    scores = torch.tensor([0.49, 0.5, 0.51])
    assert Reading().opens(scores, threshold=0.5).tolist() == [False, True, True]
    assert Reading.official_code().opens(scores, threshold=0.5).tolist() == [False, False, True]


def prompts() -> list[Prompt]:
    surfaces = ["text", "image", "text", "image", "image"]
    return [Prompt(text=f"words {i}", id=str(i), surface=surface) for i, surface in enumerate(surfaces)]


def test_head_prompts_keep_all_words_and_so_many_pictures() -> None:
    assert [p.id for p in Reading().head_prompts(prompts())] == ["0", "1", "2", "3", "4"]
    fewer = Reading(toxic_image_rows=1).head_prompts(prompts())
    assert [p.id for p in fewer] == ["0", "1", "2"]
    assert [p.id for p in Reading(toxic_image_rows=0).head_prompts(prompts())] == ["0", "2"]
    with pytest.raises(ValueError, match="4 prompts of surface 'image' and 3 were given"):
        Reading(toxic_image_rows=4).head_prompts(prompts())


def test_constant_query_is_asked_of_pictures_only() -> None:
    asked = Reading(image_query="describe").image_prompts(prompts())
    assert [p.text for p in asked] == ["words 0", "describe", "words 2", "describe", "describe"]
    assert [p.id for p in asked] == ["0", "1", "2", "3", "4"]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("prober_output", "softmax", "'sigmoid', 'softmax2'"),
        ("gate_comparison", "=", "'>=', '>'"),
        ("candidate_layers", "some", "'all', 'multiples_of_4'"),
        ("head_supervision", "all", "'refusal', 'question_and_refusal'"),
        ("toxic_image_rows", -1, "None for all"),
        ("refusal_text", " ", "must have words"),
        ("image_query", "", "must have words"),
    ],
)
def test_values_that_cannot_be(option: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Reading(**{option: value})  # type: ignore[arg-type]
