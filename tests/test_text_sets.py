"""The texts of MARS: what may be among them, and the filter by the model's own behaviour."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import RefusalPhrases, Verdict
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.text_sets import TextSets, keep_by_behaviour
from tests import mars_on_tiny
from tests.mars_on_tiny import ByLabel

SETTINGS = GenerationSettings(max_new_tokens=1)


@pytest.fixture
def texts() -> TextSets:
    """Twelve of each kind."""
    return mars_on_tiny.text_sets()


def ids(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.id for prompt in prompts]


class Planted:
    """Answers that were given beforehand, otherwise "sure"; keeps what it is asked."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers
        self.asked: list[tuple[list[str], GenerationSettings]] = []

    def __call__(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[str]:
        self.asked.append((ids(prompts), settings))
        return [self._answers.get(p.id, "sure") for p in prompts]


def test_kept_are_the_refused_of_the_unsafe_and_the_accepted_of_the_safe(tiny: MLLM, texts: TextSets) -> None:
    refused = [*ids(texts.unsafe[:5]), *ids(texts.unsafe[7:9]), *ids(texts.safe[2:4])]
    answers = Planted(dict.fromkeys(refused, "sorry , i cannot help with that ."))
    unsafe, safe = keep_by_behaviour(tiny, texts, settings=SETTINGS, fewest=7, answers=answers)
    assert ids(unsafe) == [*ids(texts.unsafe[:5]), *ids(texts.unsafe[7:9])]
    assert ids(safe) == [*ids(texts.safe[:2]), *ids(texts.safe[4:])]
    # the validation texts are not filtered, and so not asked
    assert answers.asked == [(ids(texts.unsafe), SETTINGS), (ids(texts.safe), SETTINGS)]


def test_the_judge_is_shown_the_models_own_answers(tiny: MLLM, texts: TextSets) -> None:
    shown: list[tuple[str, str]] = []

    class Listening(ByLabel):
        def __call__(self, prompt: Prompt, answer: str) -> Verdict:
            shown.append((prompt.id, answer))
            return super().__call__(prompt, answer)

        def __len__(self) -> int:  # a judge that keeps count is no less a judge while the count is 0
            return 0

    settings = GenerationSettings(max_new_tokens=3, batch_size=5)
    keep_by_behaviour(tiny, texts, settings=settings, judge=Listening())
    both = [*texts.unsafe, *texts.safe]
    assert [name for name, _ in shown] == ids(both)
    assert all(len(answer.split()) == 3 for _, answer in shown)


def test_too_few_left_says_how_many_of_each(tiny: MLLM, texts: TextSets) -> None:
    answered = ByLabel(otherwise=[*ids(texts.unsafe[:9]), *ids(texts.safe[:1])])
    with pytest.raises(
        ValueError, match=r"tiny refuses 3 of 12 unsafe texts and accepts 11 of 12 safe ones; at least 4"
    ):
        keep_by_behaviour(tiny, texts, settings=SETTINGS, judge=answered, fewest=4)
    refused, accepted = keep_by_behaviour(tiny, texts, settings=SETTINGS, judge=answered, fewest=3)
    assert (len(refused), len(accepted)) == (3, 11)


def test_a_model_that_never_refuses_has_no_direction(tiny: MLLM, texts: TextSets) -> None:
    with pytest.raises(ValueError, match=r"refuses 0 of 12 .* accepts 12 of 12 .* never refuses has no such"):
        keep_by_behaviour(tiny, texts, settings=SETTINGS, judge=RefusalPhrases(["never said"]))


def test_too_few_given_is_refused_before_the_model_runs(tiny: MLLM, texts: TextSets) -> None:
    answers = Planted({})
    few = replace(texts, safe=texts.safe[:9])
    with pytest.raises(ValueError, match="12 unsafe and 9 safe texts were given; at least 10 of each"):
        keep_by_behaviour(tiny, few, settings=SETTINGS, answers=answers)
    assert not answers.asked


@pytest.mark.parametrize(
    ("side", "label", "allowed"),
    [
        ("unsafe", False, True),
        ("safe", None, False),
        ("validation_unsafe", None, True),
        ("validation_safe", True, False),
    ],
)
def test_a_text_must_have_the_label_of_its_side(
    texts: TextSets, side: str, label: bool | None, allowed: bool
) -> None:
    wrong = replace(getattr(texts, side)[0], harmful=label)
    with pytest.raises(ValueError, match=f"^{side} holds .* harmful={label}, .* harmful={allowed}$"):
        replace(texts, **{side: (wrong,)})


def test_sights_are_not_texts(texts: TextSets) -> None:
    picture = replace(texts.safe[0], images=(Image.new("RGB", (4, 4)),))
    clip = replace(texts.safe[0], videos=(np.zeros((2, 4, 4, 3), dtype=np.uint8),))
    for shown, counts in ((picture, "1 pictures and 0 clips"), (clip, "0 pictures and 1 clips")):
        with pytest.raises(ValueError, match=f"{counts}; allowed are words alone"):
            replace(texts, safe=(*texts.safe, shown))


def test_a_side_may_not_be_empty(texts: TextSets) -> None:
    for name in ("unsafe", "safe", "validation_unsafe", "validation_safe"):
        with pytest.raises(ValueError, match=f"^{name} is empty"):
            replace(texts, **{name: ()})


def test_validation_texts_must_be_others(texts: TextSets) -> None:
    again = replace(texts.safe[3], id="under another name")
    with pytest.raises(
        ValueError, match=r"'under another name' \(1 in all\) are among those of the direction"
    ):
        replace(texts, validation_safe=(*texts.validation_safe, again))
    with pytest.raises(ValueError, match=r"\(12 in all\)"):
        replace(texts, validation_unsafe=texts.unsafe)


@pytest.mark.usefixtures("as_a_user")
def test_lists_are_welcome_and_strings_are_named(texts: TextSets) -> None:
    sides = {name: list(side) for name, side in vars(texts).items()}
    assert TextSets(**sides) == texts  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"unsafe holds 'a', a str; give a list of Prompt"):
        TextSets(**{**sides, "unsafe": ["a"]})  # type: ignore[arg-type]


@pytest.mark.usefixtures("as_a_user")
def test_a_name_is_no_judge(tiny: MLLM, texts: TextSets) -> None:
    with pytest.raises(
        TypeError, match=r"judge is .coin., of type str, and must judge answers one at a time"
    ):
        keep_by_behaviour(tiny, texts, settings=GenerationSettings(), judge="coin", fewest=1)  # type: ignore[arg-type]
