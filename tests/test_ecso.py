"""ECSO: which calls it makes, with which pictures and words, what they cost; planted answers, and a real tiny model."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch

from autosteer_lib.defences import Ecso, Undefended
from autosteer_lib.defences.ecso import ANSWER_LIMIT, NOTHING_SHOWN, REPLY_TOKENS, log_odds, verdict_tokens
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings, Response, respond
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from tests.planted import Planted, bill, no_model_runs

SETTINGS = GenerationSettings(max_new_tokens=4, batch_size=3)
TEMPLATES: dict[str, Any] = {
    "check": "is it {answer} {question}",
    "caption": "show {question}",
    "retell": "with {caption} please {question}",
}


def world(verdicts: dict[str, str], *, answer: str = "first find iron") -> Callable[[Prompt], str]:
    """Says by the wording of a prompt: a verdict by id, a caption, the last answer, or the plain one."""

    def says(prompt: Prompt) -> str:
        if prompt.text.startswith("is it "):
            return verdicts.get(prompt.id, "no")
        if prompt.text.startswith("show "):
            return f"a picture of {prompt.id}"
        return f"sorry {prompt.id}" if prompt.text.startswith("with ") else answer

    return says


@pytest.fixture
def prompts(mixed_prompts: list[Prompt]) -> list[Prompt]:
    return mixed_prompts


def test_two_calls_for_an_answer_that_passes_and_four_for_one_that_does_not(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(world({"picture": "Yes", "clip": "yes."})).into(monkeypatch)
    found = Ecso(**TEMPLATES).respond(tiny, prompts, settings=SETTINGS)
    (plain, check, caption, retold) = [asked for asked, _ in planted.calls]
    assert plain == prompts
    assert [p.text for p in check] == [f"is it first find iron {p.text}" for p in prompts]
    assert [(p.images, p.videos) for p in check] == [(p.images, p.videos) for p in prompts]  # eyes open
    assert [p.text for p in caption] == ["show what is this ?"] * 2
    assert [(len(p.images), len(p.videos)) for p in caption] == [(1, 0), (0, 1)]
    assert [p.text for p in retold] == [
        f"with a picture of {n} please what is this ?" for n in ("picture", "clip")
    ]
    assert {(p.images, p.videos) for p in retold} == {((), ())}  # eyes closed
    for prompt, answer in zip(prompts, found, strict=True):
        flagged = prompt.id in ("picture", "clip")
        assert answer.prompt_id == prompt.id
        assert answer.triggered is flagged
        assert answer.raw_text == "first find iron"
        assert answer.text == (f"sorry {prompt.id}" if flagged else "first find iron")
        # the call numbered k costs 10ᵏ: which calls were paid for can be read off the sum
        assert bill(answer) == ((4, 1111, 2222, 3333.0) if flagged else (2, 11, 22, 33.0))
        assert answer.gate_score is None


def test_each_call_is_as_long_as_it_should_be(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(world({prompt.id: "yes" for prompt in prompts})).into(monkeypatch)
    Ecso(**TEMPLATES).respond(tiny, prompts, settings=SETTINGS)
    assert [settings.max_new_tokens for _, settings in planted.calls] == [4, REPLY_TOKENS, 4, 4]
    assert {settings.batch_size for _, settings in planted.calls} == {3}


def test_a_request_with_nothing_to_see_needs_no_caption(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(world({"short": "yes"})).into(monkeypatch)
    found = Ecso(**TEMPLATES).respond(tiny, prompts[:2], settings=SETTINGS)
    assert [p.text for p in planted.calls[-1][0]] == [f"with {NOTHING_SHOWN} please make a sun"]
    assert [bill(answer) for answer in found] == [(3, 111, 222, 333.0), (2, 11, 22, 33.0)]
    assert found[0].text == "sorry short"


def test_nothing_flagged_nothing_asked_again(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(world({})).into(monkeypatch)
    found = Ecso(**TEMPLATES).answer(tiny, encode(tiny, prompts), settings=SETTINGS)
    assert len(planted.calls) == 2
    assert {answer.triggered for answer in found} == {False}


@pytest.mark.parametrize(
    ("option", "check_sees", "answer_sees"), [("check_sees", False, False), ("answer_sees", True, True)]
)
def test_where_the_eyes_are_open_is_a_named_choice(
    tiny: MLLM,
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    check_sees: bool,
    answer_sees: bool,
) -> None:
    planted = Planted(world({"picture": "yes"})).into(monkeypatch)
    changed: dict[str, Any] = {option: check_sees if option == "check_sees" else answer_sees}
    Ecso(**TEMPLATES, **changed).respond(tiny, prompts[2:3], settings=SETTINGS)
    assert [len(asked[0].images) for asked, _ in planted.calls] == [1, int(check_sees), 1, int(answer_sees)]


@pytest.mark.parametrize(
    ("reply", "exact", "prefix"),
    [
        ("yes", True, True),
        (" Yes.\n", True, True),
        ("YES", True, True),
        ("Yes, it is.", False, True),
        ("yes !", False, True),
        ('"Yes"', False, True),
        ("yesterday", False, False),
        ("no", False, False),
        ("The answer is yes.", False, False),
        ("", False, False),
    ],
)
def test_what_counts_as_a_yes(reply: str, exact: bool, prefix: bool) -> None:
    assert Ecso(verdict="exact").condemns(reply) is exact
    assert Ecso(verdict="prefix").condemns(reply) is prefix


def test_other_words_of_judgement() -> None:
    defence = Ecso(yes="Bad!", no="good", verdict="prefix")
    assert [defence.condemns(reply) for reply in ("bad! it is", "yes", "bad")] == [True, False, False]


def test_only_the_beginning_of_a_long_answer_is_quoted(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(world({}, answer="a" * 5000)).into(monkeypatch)
    found = Ecso(**TEMPLATES).respond(tiny, prompts[:1], settings=SETTINGS)
    assert planted.calls[1][0][0].text == f"is it {'a' * ANSWER_LIMIT} make a sun"
    assert found[0].text == "a" * 5000


def test_a_picture_that_the_model_writes_is_not_quoted(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(world({}, answer="sun <image>")).into(monkeypatch)
    Ecso(**TEMPLATES).respond(tiny, prompts[:1], settings=SETTINGS)
    (asked, _) = planted.calls[1]
    assert "<image>" not in asked[0].text
    encode(tiny, asked)


# --- a real model: its own words, and a verdict by its own logits ---------------------------------------------


def by_logits(**changes: Any) -> Ecso:
    return Ecso(verdict="logit", yes="sure", no="sorry", **{**TEMPLATES, **changes})


def by_hand(mllm: MLLM, prompt: Prompt) -> tuple[str, str, float]:
    """(answer, raw answer, log odds), one prompt at a time."""

    def says(text: str, *, seen: bool) -> Response:
        shown: dict[str, Any] = {"images": prompt.images, "videos": prompt.videos} if seen else {}
        return respond(mllm, [Prompt(id=prompt.id, text=text, **shown)], settings=SETTINGS)[0]

    raw = says(prompt.text, seen=True).text
    check = Prompt(
        id=prompt.id, text=f"is it {raw} {prompt.text}", images=prompt.images, videos=prompt.videos
    )
    with torch.no_grad():
        scores = mllm.forward(encode(mllm, [check]).inputs).logits[0, -1]
    yes, no = (torch.logsumexp(scores[ids], dim=0) for ids in verdict_tokens(mllm, yes="sure", no="sorry"))
    odds = float(yes - no)
    if odds <= 0:
        return raw, raw, odds
    seen = bool(prompt.images or prompt.videos)
    caption = says(f"show {prompt.text}", seen=True).text if seen else NOTHING_SHOWN
    return says(f"with {caption} please {prompt.text}", seen=False).text, raw, odds


def test_a_batch_is_what_each_prompt_gets_step_by_step(family: MLLM, family_prompts: list[Prompt]) -> None:
    found = by_logits().respond(family, family_prompts, settings=SETTINGS)
    shared = by_logits().answer(family, encode(family, family_prompts), settings=SETTINGS)
    for prompt, answer, other in zip(family_prompts, found, shared, strict=True):
        text, raw, odds = by_hand(family, prompt)
        assert (answer.text, answer.raw_text, answer.triggered) == (text, raw, odds > 0)
        assert answer.gate_score == pytest.approx(odds, abs=1e-4)
        seen = bool(prompt.images or prompt.videos)
        assert answer.model_calls == (2 if odds <= 0 else 4 if seen else 3)
        assert (other.text, other.triggered, bill(other)[:3]) == (text, odds > 0, bill(answer)[:3])


def test_only_flagged_rows_change(tiny: MLLM, prompts: list[Prompt]) -> None:
    plain = Undefended().respond(tiny, prompts, settings=SETTINGS)
    found = by_logits().respond(tiny, prompts, settings=SETTINGS)
    assert {answer.triggered for answer in found} == {True, False}
    assert [answer.raw_text for answer in found] == [answer.text for answer in plain]
    for before, after in zip(plain, found, strict=True):
        assert after.triggered or after.text == before.text
    again = by_logits().respond(tiny, prompts, settings=SETTINGS)
    assert [(r.text, r.gate_score) for r in again] == [(r.text, r.gate_score) for r in found]


def test_the_bill_of_a_real_model(tiny: MLLM, prompts: list[Prompt]) -> None:
    found = by_logits().respond(tiny, prompts, settings=SETTINGS)
    for prompt, answer in zip(prompts, found, strict=True):
        raw = answer.raw_text
        lengths = encode(tiny, [prompt]).lengths[0]
        check = Prompt(text=f"is it {raw} {prompt.text}", images=prompt.images, videos=prompt.videos)
        lengths += encode(tiny, [check]).lengths[0]
        if not answer.triggered:
            assert (answer.prompt_tokens, answer.new_tokens) == (lengths, 4)  # the verdict writes nothing
        else:
            assert answer.prompt_tokens > lengths
            assert answer.new_tokens == (12 if prompt.images or prompt.videos else 8)
        assert answer.seconds > 0


def test_log_odds_sum_the_spellings() -> None:
    scores = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]))
    odds = log_odds(scores, yes=[0, 1], no=[3])
    torch.testing.assert_close(odds, torch.log(torch.tensor([0.3 / 0.4, 0.7 / 0.1])))


def test_words_that_the_tokenizer_cannot_tell_are_refused_before_the_model_runs(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model_runs(monkeypatch, tiny)
    with pytest.raises(ValueError, match=r"tokenizer of tiny has no token .* reply 'yes' .* verdict='exact'"):
        Ecso(verdict="logit").respond(tiny, prompts, settings=SETTINGS)
    with pytest.raises(ValueError, match=r"no token"):
        Ecso(verdict="logit", yes="sure", no="sure").answer(tiny, encode(tiny, prompts), settings=SETTINGS)
    yes, no = verdict_tokens(tiny, yes="sure", no="sorry")
    assert [tiny.tokenizer.convert_ids_to_tokens(ids) for ids in (yes, no)] == [["sure"], ["sorry"]]


def test_wrong_options_are_refused(as_a_user: None) -> None:
    with pytest.raises(
        ValueError, match=r"verdict='maybe' is not known; allowed: 'exact', 'prefix', 'logit'"
    ):
        Ecso(verdict="maybe")  # type: ignore[arg-type]
    for name, text in (("check", "{question}"), ("caption", "what is this"), ("retell", "{question}")):
        with pytest.raises(ValueError, match=rf"{name}=.* must contain"):
            Ecso(**{name: text})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"yes=' ' is empty"):
        Ecso(yes=" ")
    with pytest.raises(ValueError, match=r"answer_limit=0"):
        Ecso(answer_limit=0)


def test_fingerprints_see_all_that_an_answer_depends_on() -> None:
    verdicts: tuple[Literal["prefix", "logit"], ...] = ("prefix", "logit")
    defences = [
        Ecso(),
        *(Ecso(verdict=verdict) for verdict in verdicts),
        *(Ecso(**{name: text}) for name, text in TEMPLATES.items()),
        Ecso(check_sees=False),
        Ecso(answer_sees=True),
        Ecso(yes="ja"),
        Ecso(no="nein"),
        Ecso(answer_limit=10),
    ]
    assert len({defence.fingerprint for defence in defences}) == len(defences)
    assert Ecso().fingerprint == Ecso(verdict="exact").fingerprint
    assert Ecso().name == "ECSO"
