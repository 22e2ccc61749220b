"""AutoSteer's gate and head at work on a tiny model, against the published formulas, row by row and step by step."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autosteer_lib.defences import AutoSteer, Undefended
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import Response
from autosteer_lib.models import MLLM, load
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.probers import SafetyProber
from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import Reading
from autosteer_lib.sites import attach, final_norm
from tests import autosteer_on_tiny
from tests.autosteer_on_tiny import REFUSAL, SETTINGS, unfitted
from tests.defence_checks import check_a_b_a, check_only_triggered_rows_change, check_order, see


@pytest.fixture(scope="module")
def pairs() -> ContrastPairs:
    return autosteer_on_tiny.pairs()


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> AutoSteer:
    return autosteer_on_tiny.fitted(tiny)


@pytest.fixture(scope="module")
def mixed(tiny: MLLM, mixed_prompts: list[Prompt]) -> AutoSteer:
    return autosteer_on_tiny.half_open(tiny, mixed_prompts)


def texts(responses: Sequence[Response]) -> list[str]:
    return [response.text for response in responses]


def official_logits(h: Tensor, words: Tensor, matrix: Tensor, epsilon: float) -> Tensor:
    """H · (E + ε · E · S)ᵀ."""
    return h @ (words + epsilon * words @ matrix).T


def plain_final_states(mllm: MLLM, encoded: Encoded, answers: Tensor) -> Tensor:
    """h at the last token of prompt + answer so far, of the plain model, in one pass without a cache."""
    inputs = dict(encoded.inputs)
    inputs["input_ids"] = torch.cat((inputs["input_ids"], answers), dim=1)
    inputs["attention_mask"] = torch.cat((inputs["attention_mask"], torch.ones_like(answers)), dim=1)
    read: list[Tensor] = []
    with torch.no_grad(), attach(mllm, {final_norm(): lambda hidden: read.append(hidden[:, -1].clone())}):
        mllm.forward(inputs)
    return read[0]


def test_cached_answers_equal_official_logits_without_a_cache(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    seen, responses = see(tiny, mixed, encoded, settings=SETTINGS)
    assert seen.triggered is not None
    words, matrix = tiny.lm_head.weight, mixed.head_.matrix
    assert isinstance(words, Tensor)
    answers = torch.zeros(len(mixed_prompts), 0, dtype=torch.long)
    for step in seen.logits:
        h = plain_final_states(tiny, encoded, answers)
        steered = official_logits(h, words, matrix, mixed.epsilon)
        plain = official_logits(h, words, matrix, 0.0)
        expected = torch.where(seen.triggered[:, None], steered, plain)
        torch.testing.assert_close(step, expected, atol=1e-4, rtol=1e-4)
        answers = torch.cat((answers, step.argmax(dim=-1, keepdim=True)), dim=1)
    assert texts(responses) == tiny.tokenizer.batch_decode(answers, skip_special_tokens=True)


def test_only_triggered_rows_change(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    check_only_triggered_rows_change(tiny, mixed, encode(tiny, mixed_prompts))


def test_a_row_of_a_batch_answers_as_alone(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    together = mixed.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    for prompt, response in zip(mixed_prompts, together, strict=True):
        (alone,) = mixed.respond(tiny, [prompt], settings=SETTINGS)
        assert (alone.text, alone.triggered) == (response.text, response.triggered)
        assert alone.gate_score == pytest.approx(response.gate_score, abs=1e-5)


def test_respond_keeps_the_prompts_order(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    check_order(tiny, mixed, mixed_prompts)


def test_a_b_a(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    """B's gates are others, so A's would not come again if one of B were kept."""
    some, others = (
        mixed.answer(tiny, encode(tiny, prompts), settings=SETTINGS)
        for prompts in (mixed_prompts[:4], mixed_prompts[3:])
    )
    assert [r.triggered for r in some] != [r.triggered for r in others]
    check_a_b_a(tiny, mixed, mixed_prompts)


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_the_gate_reads_the_last_prompt_token(
    tiny: MLLM,
    fitted: AutoSteer,
    mixed_prompts: list[Prompt],
    pairs: ContrastPairs,
    add_generation_prompt: bool,
) -> None:
    """The template is pinned: <user> words [<assistant>]. So is the state: hidden_states[layer] there."""
    mllm = replace(tiny, add_generation_prompt=add_generation_prompt)
    defence = fitted
    if not add_generation_prompt:
        reading = Reading(add_generation_prompt=False)
        defence = unfitted(reading).fit(mllm, pairs, refusal_prompts=pairs.toxic, refusal_text=REFUSAL)
    for prompt in mixed_prompts:
        encoded = encode(mllm, [prompt])
        last = tiny.tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"][0, -1].item())
        assert last == ("<assistant>" if add_generation_prompt else prompt.text.split()[-1])
        with torch.no_grad():
            output = tiny.model(**encoded.inputs, output_hidden_states=True, use_cache=False)
        state = output.hidden_states[defence.layer_][0, -1]
        (response,) = defence.answer(mllm, encoded, settings=SETTINGS)
        assert response.gate_score == pytest.approx(defence.prober_.score(state[None]).item(), abs=1e-5)


def test_score_is_what_the_gate_sees(tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    responses = mixed.respond(tiny, mixed_prompts, settings=SETTINGS)
    scores = mixed.score(tiny, mixed_prompts)
    assert [r.gate_score for r in responses] == pytest.approx(scores.tolist(), abs=1e-5)
    assert [r.triggered for r in responses] == (scores >= mixed.threshold).tolist()


def test_a_score_on_the_threshold_opens_the_papers_gate_and_not_the_codes(
    tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts[:1])
    seen, _ = see(tiny, fitted, encoded, settings=SETTINGS)
    assert seen.gate_score is not None
    exact = fitted.retuned(threshold=float(seen.gate_score[0]))
    strict = fitted.retuned(threshold=exact.threshold)
    strict.reading = replace(strict.reading, gate_comparison=">")
    assert exact.answer(tiny, encoded, settings=SETTINGS)[0].triggered is True
    assert strict.answer(tiny, encoded, settings=SETTINGS)[0].triggered is False


def test_hooks_that_have_done_their_work_are_gone(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    modules = (tiny.final_norm, *tiny.blocks)
    before = [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules]
    active, _ = see(tiny, mixed, encoded, settings=SETTINGS)
    assert active.sites == [{final_norm()}] * SETTINGS.max_new_tokens
    idle, _ = see(tiny, mixed.retuned(threshold=1.0), encoded, settings=SETTINGS)
    assert idle.sites == [set()] * SETTINGS.max_new_tokens
    assert [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules] == before


def test_the_gate_is_decided_once(
    tiny: MLLM, mixed: AutoSteer, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    score = SafetyProber.score

    def counted(self: SafetyProber, states: Tensor) -> Tensor:
        calls.append(len(states))
        return score(self, states)

    monkeypatch.setattr(SafetyProber, "score", counted)
    mixed.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    assert calls == [len(mixed_prompts)]


def test_a_score_that_is_not_a_number_does_not_pass_as_safe(
    tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    broken = fitted.retuned()
    prober = SafetyProber.from_tensors(
        {**fitted.prober_.tensors, "b1": fitted.prober_.weights_.b1 * float("nan")},
        hyperparameters=fitted.prober_.hyperparameters,
        history=[],
        chosen_epoch=1,
    )
    broken.prober_ = prober
    before = list(tiny.final_norm._forward_hooks)
    with pytest.raises(ValueError, match=r"not a number in rows \[0, 1\]"):
        broken.answer(tiny, encode(tiny, mixed_prompts[:2]), settings=SETTINGS)
    assert list(tiny.final_norm._forward_hooks) == before


def test_the_head_makes_the_model_refuse(tiny: MLLM, fitted: AutoSteer, pairs: ContrastPairs) -> None:
    plain = Undefended().respond(tiny, pairs.toxic, settings=SETTINGS)
    steered = fitted.always_on().respond(tiny, pairs.toxic, settings=SETTINGS)
    assert sum(REFUSAL in text for text in texts(plain)) == 0
    assert sum(REFUSAL in text for text in texts(steered)) > len(pairs) / 2


def test_steer_is_autosteer_with_every_gate_open(
    tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]
) -> None:
    always = fitted.retuned(epsilon=1.0).always_on()
    gated = fitted.retuned(epsilon=1.0, threshold=0.0)
    steered = always.respond(tiny, mixed_prompts, settings=SETTINGS)
    assert texts(steered) == texts(gated.respond(tiny, mixed_prompts, settings=SETTINGS))
    assert {(r.gate_score, r.triggered) for r in steered} == {(None, None)}


def test_epsilon_zero_is_the_plain_model(tiny: MLLM, fitted: AutoSteer, mixed_prompts: list[Prompt]) -> None:
    plain = texts(Undefended().respond(tiny, mixed_prompts, settings=SETTINGS))
    nothing = fitted.always_on(epsilon=0.0)
    assert nothing.steering(tiny, encode(tiny, mixed_prompts[:1])) is None
    assert texts(nothing.respond(tiny, mixed_prompts, settings=SETTINGS)) == plain
    gated = fitted.retuned(epsilon=0.0, threshold=0.0)
    assert texts(gated.respond(tiny, mixed_prompts, settings=SETTINGS)) == plain


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_models_are_gated_in_float32(
    tiny_folder: Path, mixed: AutoSteer, mixed_prompts: list[Prompt], dtype: str
) -> None:
    half = load(tiny_folder, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    seen, responses = see(half, mixed, encode(half, mixed_prompts), settings=SETTINGS)
    assert seen.gate_score is not None
    assert seen.gate_score.dtype == torch.float32
    assert {response.triggered for response in responses} == {True, False}
