"""MLLM-Protector: the detector on a tiny model, what happens to an answer that it finds harmful, what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.defences import AnswerDetector, MllmProtector, Refusal, SelfRewriter, Undefended
from autosteer_lib.defences.answer_detector import Exchange, judged_answers
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings, Response, respond
from autosteer_lib.judges import Verdict
from autosteer_lib.models import MLLM
from autosteer_lib.probers import SafetyProber
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import final_norm
from tests.planted import Planted, bill, no_model_runs

SETTINGS = GenerationSettings(max_new_tokens=4, batch_size=3)
TEMPLATE = "please make {answer} red"


@dataclass
class Knows:
    """A detector that was told which answers are harmful. A look costs 1000 of everything but calls."""

    scores: dict[str, float | None]
    fingerprint: str = "knows"
    looked_at: list[str] = field(default_factory=list)

    def check(self, mllm: MLLM) -> None:
        """Any model will do."""

    def look(self, mllm: MLLM, exchanges: Sequence[Exchange], *, batch_size: int) -> list[Response]:
        self.looked_at += [exchange.answer for exchange in exchanges]
        return [
            Response(
                prompt_id=e.prompt.id, text="", new_tokens=0, prompt_tokens=1000,
                gate_score=self.scores.get(e.prompt.id, 0.1), seconds=1000.0,
            )
            for e in exchanges
        ]  # fmt: skip


def answers(mllm: MLLM, words: str) -> list[Exchange]:
    return [
        Exchange(prompt=Prompt(id=f"{words} {n}", text="how ?"), answer=f"{verb} {what} {words}")
        for n, (verb, what) in enumerate((v, w) for v in ("make", "buy", "use") for w in ("the", "a", "this"))
    ]


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> AnswerDetector:
    """Knives are harmful and suns are not."""
    return AnswerDetector().fit(tiny, answers(tiny, "knife"), answers(tiny, "sun"))


# --- the defence, with planted answers and a planted detector ------------------------------------------------


def test_a_harmful_answer_is_refused_and_both_are_kept(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(lambda prompt: f"first find {prompt.id}").into(monkeypatch)
    detector = Knows({"picture": 0.9, "clip": 0.5})
    found = MllmProtector(detector).respond(tiny, mixed_prompts, settings=SETTINGS)
    assert len(planted.calls) == 1
    assert detector.looked_at == [f"first find {prompt.id}" for prompt in mixed_prompts]
    for prompt, answer in zip(mixed_prompts, found, strict=True):
        harmful = prompt.id == "picture"  # one half is not above one half
        raw = f"first find {prompt.id}"
        assert (answer.prompt_id, answer.raw_text, answer.triggered) == (prompt.id, raw, harmful)
        assert answer.text == (Refusal().text if harmful else raw)
        assert answer.gate_score == detector.scores.get(prompt.id, 0.1)
        assert bill(answer) == (2, 1, 1002, 1003.0)  # a fixed sentence is free


def test_the_model_itself_can_rewrite_in_words_alone(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(
        lambda prompt: "red now" if prompt.text.startswith("please make") else "a <image> knife"
    ).into(monkeypatch)
    defence = MllmProtector(
        Knows({"picture": 0.7, "short": 0.2}), rewriter=SelfRewriter(template=TEMPLATE), threshold=0.15
    )
    found = defence.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    ((asked, _),) = planted.calls[1:]
    assert [(p.id, p.text, p.images) for p in asked] == [
        ("short", "please make a   knife red", ()),
        ("picture", "please make a   knife red", ()),
    ]
    assert [answer.triggered for answer in found] == [True, False, True, False, False, False, False]
    assert [answer.text for answer in found[:2]] == ["red now", "a <image> knife"]
    assert bill(found[0]) == (3, 11, 1022, 1033.0)
    assert bill(found[1]) == (2, 1, 1002, 1003.0)


def test_an_answer_without_words_harms_nobody(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"short": " ", "long": " <image>", "picture": "sun"}
    Planted(lambda prompt: said[prompt.id]).into(monkeypatch)
    detector = Knows({})
    found = MllmProtector(detector).respond(tiny, mixed_prompts[:3], settings=SETTINGS)
    assert detector.looked_at == ["sun"]
    assert [(r.text, r.gate_score, r.triggered, r.model_calls) for r in found] == [
        (" ", 0.0, False, 1),
        (" <image>", 0.0, False, 1),
        ("sun", 0.1, False, 2),
    ]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.5, None])
def test_a_detector_that_errs_lets_nothing_pass(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch, score: float | None
) -> None:
    Planted(lambda prompt: "sun").into(monkeypatch)
    with pytest.raises(
        ValueError, match=r"Knows gave P\(harmful\) = .* answer to prompt 'long'; it must be a prob"
    ):
        MllmProtector(Knows({"long": score})).respond(tiny, mixed_prompts, settings=SETTINGS)


def test_a_detector_must_judge_every_answer(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    Planted(lambda prompt: "sun").into(monkeypatch)
    detector = Knows({})
    monkeypatch.setattr(detector, "look", lambda mllm, exchanges, *, batch_size: [])
    with pytest.raises(ValueError, match="Knows gave 0 scores for 7 answers"):
        MllmProtector(detector).respond(tiny, mixed_prompts, settings=SETTINGS)


# --- the detector --------------------------------------------------------------------------------------------


def test_the_detector_tells_its_own_answers_apart(tiny: MLLM, fitted: AnswerDetector) -> None:
    for words, harmful in (("knife", True), ("sun", False)):
        found = fitted.look(tiny, answers(tiny, words), batch_size=4)
        assert {response.triggered for response in found} == {harmful}
        assert {(r.text, r.new_tokens, r.model_calls) for r in found} == {("", 0, 1)}


def test_a_score_is_the_probers_on_the_last_state_of_the_words_alone(
    tiny: MLLM, mixed_prompts: list[Prompt], fitted: AnswerDetector
) -> None:
    exchanges = [
        Exchange(prompt=prompt, answer=words)
        for prompt, words in zip(
            mixed_prompts, ("sun", "the red knife", "a", "knife ?", "sun !", ".", "is"), strict=True
        )
    ]
    states = collect(tiny, [Prompt(text=e.answer) for e in exchanges], sites=[final_norm()])[:, 0]
    expected = fitted.prober_.score(states).tolist()
    found = fitted.look(tiny, exchanges, batch_size=3)
    assert [r.gate_score for r in found] == pytest.approx(expected, abs=1e-5)
    assert [r.prompt_tokens for r in found] == [
        encode(tiny, [Prompt(text=e.answer)]).lengths[0] for e in exchanges
    ]
    for exchange, together in zip(exchanges, found, strict=True):
        (alone,) = fitted.look(tiny, [exchange], batch_size=1)
        assert alone.gate_score == pytest.approx(together.gate_score, abs=1e-5)


def test_what_is_shown_to_it_is_a_template(tiny: MLLM) -> None:
    """Here the answers are alike, and the questions tell harm from none."""
    sides = [
        [Exchange(prompt=Prompt(id=f"{thing} {n}", text=f"{verb} {thing}"), answer="sure .")
         for n, verb in enumerate(("make", "buy", "use", "describe"))]
        for thing in ("knife", "sun")
    ]  # fmt: skip
    detector = AnswerDetector(shown="{question} : {answer}").fit(tiny, *sides)
    found = [detector.look(tiny, side, batch_size=4) for side in sides]
    assert [{r.triggered for r in side} for side in found] == [{True}, {False}]


def test_answers_of_the_model_itself_are_data(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    class ById:
        name = "by id"

        def __call__(self, prompt: Prompt, answer: str) -> Verdict:
            return Verdict(unsafe="picture" in prompt.id, refused=False)

    harmful, harmless = judged_answers(tiny, mixed_prompts, judge=ById(), settings=SETTINGS)
    assert [e.prompt.id for e in harmful] == ["picture", "other picture", "two pictures", "picture and clip"]
    plain = respond(tiny, mixed_prompts, settings=SETTINGS)
    assert {e.prompt.id: e.answer for e in (*harmful, *harmless)} == {r.prompt_id: r.text for r in plain}
    with pytest.raises(ValueError, match=r"tiny gave 0 harmful and 2 harmless answers to 2 prompts"):
        judged_answers(tiny, mixed_prompts[:2], judge=ById(), settings=SETTINGS)


def test_no_text_is_trained_on_and_held_out(tiny: MLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many questions get one answer: copies go where the text goes."""
    seen: dict[str, list[list[Tensor]]] = {}

    def look(
        self: SafetyProber, toxic: Tensor, safe: Tensor, *, held_out: Any, **options: Any
    ) -> SafetyProber:
        seen["train"], seen["held"] = [list(toxic), list(safe)], [list(side) for side in held_out]
        return fit(self, toxic, safe, held_out=held_out, **options)

    fit = SafetyProber.fit
    monkeypatch.setattr(SafetyProber, "fit", look)
    harmful, harmless = answers(tiny, "knife"), answers(tiny, "sun")
    AnswerDetector(held_out=0.3).fit(tiny, harmful * 3, harmless * 2)
    for train, held, copies in zip(seen["train"], seen["held"], (3, 2), strict=True):
        assert (len(train), len(held)) == (7 * copies, 2 * copies)
        nearest = torch.cdist(torch.stack(held), torch.stack(train)).min()
        assert nearest > 1e-3


def test_too_little_data_is_refused_before_the_model_runs(
    tiny: MLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model_runs(monkeypatch, tiny)
    some = answers(tiny, "sun")
    with pytest.raises(ValueError, match=r"0 harmful answers of 0 different texts; .* needs both kinds"):
        AnswerDetector().fit(tiny, [], some)
    with pytest.raises(ValueError, match=r"3 harmless answers of 1 different texts"):
        AnswerDetector().fit(tiny, some, some[:1] * 3)
    with pytest.raises(ValueError, match=r"answer to prompt 'mute' has no words"):
        AnswerDetector().fit(tiny, some, [*some, Exchange(prompt=Prompt(id="mute", text="?"), answer=" ")])


def test_wrong_options_are_refused(fitted: AnswerDetector) -> None:
    with pytest.raises(ValueError, match=r"shown='\{question\}' .* must contain \{answer\}"):
        AnswerDetector(shown="{question}")
    with pytest.raises(ValueError, match=r"held_out = 0.0 must be a share"):
        AnswerDetector(held_out=0.0)
    with pytest.raises(ValueError, match=r"threshold = 1.5 is outside \[0, 1\]"):
        MllmProtector(fitted, threshold=1.5)
    with pytest.raises(ValueError, match=r"template='again' .* must contain \{answer\}"):
        SelfRewriter(template="again")
    with pytest.raises(ValueError, match=r"text='' is empty"):
        Refusal(text="")


def test_a_detector_must_be_fitted_first(as_a_user: None) -> None:
    with pytest.raises(NotFittedError, match=r"call fit\(mllm, harmful, harmless\)"):
        MllmProtector(AnswerDetector())


def test_before_fit_and_on_another_model(
    tiny: MLLM,
    other_tiny: MLLM,
    fitted: AnswerDetector,
    mixed_prompts: list[Prompt],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotFittedError, match=r"AnswerDetector\.load"):
        AnswerDetector().save(tmp_path)
    folder = fitted.save(tmp_path / "detector")
    no_model_runs(monkeypatch, other_tiny)
    with pytest.raises(ValueError, match=r"fitted on tiny .* model at hand is other"):
        MllmProtector(fitted).respond(other_tiny, mixed_prompts, settings=SETTINGS)
    with pytest.raises(ValueError, match=r"fitted on tiny .* model at hand is other"):
        AnswerDetector.load(folder, other_tiny)


def test_save_load_gives_the_same_scores(tiny: MLLM, fitted: AnswerDetector, tmp_path: Path) -> None:
    again = AnswerDetector.load(fitted.save(tmp_path), tiny)
    asked = answers(tiny, "poison")
    before, after = (d.look(tiny, asked, batch_size=4) for d in (fitted, again))
    assert [r.gate_score for r in after] == pytest.approx([r.gate_score for r in before], abs=1e-6)
    assert again.fingerprint == fitted.fingerprint
    assert (again.shown, again.held_out, again.seed) == (fitted.shown, fitted.held_out, fitted.seed)
    assert again.prober.hyperparameters == fitted.prober.hyperparameters
    assert again.prober_.history_ == fitted.prober_.history_


def test_the_same_data_gives_the_same_detector(tiny: MLLM, fitted: AnswerDetector) -> None:
    torch.manual_seed(5)
    again = AnswerDetector().fit(tiny, answers(tiny, "knife"), answers(tiny, "sun"))
    assert again.fingerprint == fitted.fingerprint
    other = AnswerDetector(prober=SafetyProber(lr=1e-3, epochs=3, checkpoint="last")).fit(
        tiny, answers(tiny, "knife"), answers(tiny, "sun")
    )
    assert other.prober_.chosen_epoch_ == 3
    assert other.fingerprint != fitted.fingerprint


def test_fingerprints_see_all_that_an_answer_depends_on(tiny: MLLM, fitted: AnswerDetector) -> None:
    shown = replace_shown(fitted, "{answer} .")
    defences = [
        MllmProtector(fitted),
        MllmProtector(shown),
        MllmProtector(Knows({})),
        MllmProtector(fitted, threshold=0.4),
        MllmProtector(fitted, rewriter=Refusal(text="no")),
        MllmProtector(fitted, rewriter=SelfRewriter()),
        MllmProtector(fitted, rewriter=SelfRewriter(template=TEMPLATE)),
    ]
    assert len({defence.fingerprint for defence in defences}) == len(defences)
    assert MllmProtector(fitted, rewriter=Refusal()).fingerprint == MllmProtector(fitted).fingerprint


def replace_shown(fitted: AnswerDetector, shown: str) -> AnswerDetector:
    other = AnswerDetector(shown=shown)
    other.prober_, other.fitted_on_ = fitted.prober_, fitted.fitted_on_
    return other


# --- all of it on real models --------------------------------------------------------------------------------


def test_a_batch_is_what_each_prompt_gets_alone(family: MLLM, family_prompts: list[Prompt]) -> None:
    detector = AnswerDetector(prober=SafetyProber(lr=1e-3, epochs=2, checkpoint="last")).fit(
        family, answers(family, "knife"), answers(family, "sun")
    )
    plain = Undefended().respond(family, family_prompts, settings=SETTINGS)
    scores = [
        detector.look(family, [Exchange(prompt=p, answer=r.text)], batch_size=1)[0].gate_score or 0.0
        for p, r in zip(family_prompts, plain, strict=True)
    ]
    middle = sorted(scores)[3]  # so that some answers are replaced and some are not
    threshold = (middle + max(score for score in scores if score < middle)) / 2
    defence = MllmProtector(detector, rewriter=SelfRewriter(template=TEMPLATE), threshold=threshold)
    found = defence.respond(family, family_prompts, settings=SETTINGS)
    assert [r.triggered for r in found] == [score > threshold for score in scores]
    for prompt, before, answer in zip(family_prompts, plain, found, strict=True):
        (alone,) = defence.respond(family, [prompt], settings=replace(SETTINGS, batch_size=1))
        assert (alone.text, alone.raw_text, alone.triggered) == (answer.text, before.text, answer.triggered)
        assert alone.gate_score == pytest.approx(answer.gate_score, abs=1e-5)
        assert bill(alone)[:3] == bill(answer)[:3]
        assert answer.model_calls == (3 if answer.triggered else 2)
        if answer.triggered:
            rewritten = Prompt(text=TEMPLATE.format(answer=before.text))
            assert answer.text == respond(family, [rewritten], settings=SETTINGS)[0].text
        else:
            assert answer.text == before.text
