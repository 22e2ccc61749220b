"""AdaShield-S and the self-reminder: the plain model, asked in other words."""

import pytest

from autosteer_lib.defences import AdaShieldS, Prompted, SelfReminder, Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from tests.planted import Planted

SETTINGS = GenerationSettings(max_new_tokens=4, batch_size=3)
TEMPLATE = "please tell me : {question} sorry"


def test_the_answer_is_that_of_the_plain_model_to_the_template(
    family: MLLM, family_prompts: list[Prompt]
) -> None:
    """By hand: the same pictures, other words, one call, priced as such."""
    found = Prompted(TEMPLATE).respond(family, family_prompts, settings=SETTINGS)
    for prompt, answer in zip(family_prompts, found, strict=True):
        asked = Prompt(
            id=prompt.id,
            text=f"please tell me : {prompt.text} sorry",
            images=prompt.images,
            videos=prompt.videos,
        )
        (alone,) = Undefended().respond(family, [asked], settings=SETTINGS)
        assert (answer.text, answer.prompt_tokens, answer.new_tokens) == (
            alone.text, alone.prompt_tokens, alone.new_tokens,
        )  # fmt: skip
        assert (answer.prompt_id, answer.model_calls, answer.triggered, answer.raw_text) == (
            prompt.id,
            1,
            None,
            None,
        )


def test_a_batch_that_others_share_gives_the_same(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    defence = Prompted(TEMPLATE)
    alone = defence.respond(tiny, mixed_prompts, settings=SETTINGS)
    shared = defence.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    assert [r.text for r in shared] == [r.text for r in alone]
    plain = Undefended().respond(tiny, mixed_prompts, settings=SETTINGS)
    assert [r.text for r in plain] != [r.text for r in alone]


@pytest.mark.parametrize("kind", [AdaShieldS, SelfReminder])
def test_the_default_words_stand_around_the_request(
    kind: type[AdaShieldS] | type[SelfReminder],
    tiny: MLLM,
    mixed_prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = Planted(lambda prompt: prompt.text)
    monkeypatch.setattr("autosteer_lib.defences.prompted.respond", planted.respond)
    asked = kind().respond(tiny, mixed_prompts, settings=SETTINGS)
    ((prompts, _),) = planted.calls
    for before, after, answer in zip(mixed_prompts, prompts, asked, strict=True):
        assert answer.text.count(before.text) >= 1
        assert (after.images, after.videos) == (before.images, before.videos)
    head, tail = kind().template.split("{question}")
    assert asked[0].text == f"{head}make a sun{tail}"
    assert bool(head) is (kind is SelfReminder)
    assert tail.strip()


def test_fingerprints_and_names() -> None:
    defences = [AdaShieldS(), SelfReminder(), AdaShieldS(TEMPLATE)]
    assert len({defence.fingerprint for defence in defences}) == 3
    assert (
        AdaShieldS(TEMPLATE).fingerprint
        == SelfReminder(TEMPLATE).fingerprint
        == Prompted(TEMPLATE).fingerprint
    )
    assert [defence.name for defence in defences] == ["AdaShield-S", "Self-reminder", "AdaShield-S"]


@pytest.mark.parametrize("kind", [Prompted, AdaShieldS, SelfReminder])
def test_a_template_must_hold_the_request(kind: type[Prompted]) -> None:
    with pytest.raises(ValueError, match=r"must contain \{question\}"):
        kind("be good")
