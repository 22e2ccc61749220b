"""SafeSteer at work on a tiny model, against its equations computed without a cache."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.defences import SafeSteer, SteeringDefence, Undefended
from autosteer_lib.defences.reranking import Reranking
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import GenerationSettings, Response, generate
from autosteer_lib.look_ahead import repeat_always
from autosteer_lib.models import MLLM, DtypeName, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.safesteer_readings import SafeSteerReading
from autosteer_lib.sites import attach, final_norm, logits
from tests.mars_on_tiny import answers, hooks_on
from tests.safesteer_on_tiny import SETTINGS, STEP, ByHand, K, by_hand, fit, half_open

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-5}


@pytest.fixture(scope="module")
def fitted(tiny: MLLM, mixed_prompts: list[Prompt]) -> SafeSteer:
    return half_open(fit(SafeSteer(k=K, step=STEP), tiny), tiny, mixed_prompts)


@pytest.fixture(scope="module")
def encoded(tiny: MLLM, mixed_prompts: list[Prompt]) -> Encoded:
    return encode(tiny, mixed_prompts)


def watched(
    mllm: MLLM, defence: SafeSteer, encoded: Encoded, *, settings: GenerationSettings = SETTINGS
) -> tuple[Reranking, list[Response], list[Tensor]]:
    """A batch's steering after its work, the answers, and the logits of every pass."""
    steering, passes = defence.steering(mllm, encoded), []
    with attach(mllm, {logits(): lambda h: passes.append(h.clone())}):
        responses = generate(mllm, encoded, settings=settings, steering=steering)
    return steering, responses, passes


def check(
    mllm: MLLM, steering: Reranking, responses: list[Response], expected: ByHand, first: Tensor
) -> None:
    assert [r.gate_score for r in responses] == pytest.approx(expected.scores.sigmoid().tolist(), abs=1e-5)
    assert [r.triggered for r in responses] == expected.opened.tolist()
    torch.testing.assert_close(first, expected.first, **CLOSE)
    assert len(steering.ranked) == len(expected.ranked)
    for found, (candidates, scores, choice) in zip(steering.ranked, expected.ranked, strict=True):
        assert torch.equal(found.candidates, candidates)
        torch.testing.assert_close(found.scores, scores, **CLOSE)
        assert torch.equal(found.choice, choice)
    said = mllm.tokenizer.batch_decode(expected.said, skip_special_tokens=True)
    assert [r.text for r in responses] == said
    assert {r.model_calls for r in responses} == {1}


READINGS: Mapping[str, dict[str, Any]] = {
    "default": {},
    "low": {"reading": SafeSteerReading(sign="low")},
    "always": {"reading": SafeSteerReading(gate="always")},
    "as printed": {"reading": SafeSteerReading(direction="as_printed", scale="as_printed")},
    "no MSAV": {"align": False},
    "no re-ranking": {"rerank": False},
    "always, no MSAV": {"align": False, "reading": SafeSteerReading(gate="always")},
    "always, no re-ranking": {"rerank": False, "reading": SafeSteerReading(gate="always")},
    "more candidates": {"k": 5, "step": 1},
    "longer than the answer": {"step": 9},
}


@pytest.mark.parametrize("name", READINGS)
def test_answers_are_the_equations_computed_without_a_cache(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded, name: str
) -> None:
    defence = fitted.retuned(**READINGS[name])
    expected = by_hand(tiny, defence, encoded, tokens=SETTINGS.max_new_tokens)
    assert set(expected.opened.tolist()) == ({True} if "always" in name and defence.rerank else {True, False})
    steering, responses, passes = watched(tiny, defence, encoded)
    check(tiny, steering, responses, expected, passes[0][:, -1])
    if name == "default":
        assert any(bool(choice.any()) for _, _, choice in expected.ranked)  # not the likeliest everywhere


def test_the_readings_lead_to_different_answers(tiny: MLLM, fitted: SafeSteer, encoded: Encoded) -> None:
    said = {
        name: tuple(r.text for r in fitted.retuned(**changes).answer(tiny, encoded, settings=SETTINGS))
        for name, changes in READINGS.items()
    }
    assert said["always, no re-ranking"] == said["no re-ranking"]  # the alignment vector is gated in any case
    assert [name for name in said if said[name] == said["default"]] == ["default"]
    assert len(set(said.values())) >= 8


def test_the_state_before_the_last_norm_can_be_read_and_moved_instead(
    tiny: MLLM, encoded: Encoded, mixed_prompts: list[Prompt]
) -> None:
    defence = SafeSteer(k=K, step=STEP, reading=SafeSteerReading(norm="pre"))
    defence = half_open(fit(defence, tiny), tiny, mixed_prompts)
    expected = by_hand(tiny, defence, encoded, tokens=SETTINGS.max_new_tokens)
    steering, responses, passes = watched(tiny, defence, encoded)
    check(tiny, steering, responses, expected, passes[0][:, -1])


def test_shut_rows_get_the_plain_models_answer_and_its_first_logits_bit_for_bit(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded
) -> None:
    plain: list[Tensor] = []
    with attach(tiny, {logits(): lambda h: plain.append(h.clone())}):
        undefended = Undefended().answer(tiny, encoded, settings=SETTINGS)
    _, responses, passes = watched(tiny, fitted, encoded)
    shut = [not r.triggered for r in responses]
    assert set(shut) == {True, False}
    assert torch.equal(passes[0][shut], plain[0][shut])
    assert not torch.equal(passes[0], plain[0])
    for row, is_shut in enumerate(shut):
        if is_shut:
            assert (responses[row].text, responses[row].new_tokens) == (
                undefended[row].text, undefended[row].new_tokens,
            )  # fmt: skip
    # Later passes of a batch with open rows are wider, so equal up to rounding only.
    for ours, theirs in zip(passes[1 + STEP :], plain[1 + STEP :], strict=True):
        torch.testing.assert_close(ours[shut], theirs[shut], atol=1e-5, rtol=1e-5)


def test_a_batch_without_an_open_gate_is_the_plain_models_bit_for_bit(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded
) -> None:
    plain: list[Tensor] = []
    with attach(tiny, {logits(): lambda h: plain.append(h.clone())}):
        undefended = Undefended().answer(tiny, encoded, settings=SETTINGS)
    shut = fitted.retuned(threshold=1.0)
    steering, responses, passes = watched(tiny, shut, encoded)
    assert steering.ranked == []
    assert [r.text for r in responses] == [r.text for r in undefended]
    assert all(torch.equal(a, b) for a, b in zip(passes, plain, strict=True))
    one = fitted.retuned(k=1, align=False, threshold=0.0)
    assert [r.text for r in one.answer(tiny, encoded, settings=SETTINGS)] == [r.text for r in undefended]


def test_no_pass_is_made_besides_those_of_plain_decoding(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded
) -> None:
    before = hooks_on(tiny)
    widths: list[int] = []
    with attach(tiny, {final_norm(): lambda h: widths.append(h.shape[1])}):
        fitted.answer(tiny, encoded, settings=SETTINGS)
    assert widths[1:] == [K] * STEP + [1] * (SETTINGS.max_new_tokens - 1 - STEP)
    assert hooks_on(tiny) == before


def test_the_hook_is_gone_while_the_plain_model_goes_on(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded
) -> None:
    steering = fitted.steering(tiny, encoded)
    there: list[int] = []

    def count(hidden: Tensor) -> None:
        assert steering._attachment is not None
        there.append(len(steering._attachment.sites))

    with attach(tiny, {logits(): count}):
        generate(tiny, encoded, settings=SETTINGS, steering=steering)
    assert there == [1] * (1 + STEP) + [0] * (SETTINGS.max_new_tokens - 1 - STEP)


def test_a_row_of_a_batch_is_answered_as_alone(tiny: MLLM, fitted: SafeSteer, encoded: Encoded) -> None:
    steering, together, _ = watched(tiny, fitted, encoded)
    for row, prompt in enumerate(encoded.prompts):
        mine, (alone,), _ = watched(tiny, fitted, encode(tiny, [prompt]))
        assert (alone.text, alone.triggered) == (together[row].text, together[row].triggered)
        assert alone.gate_score == pytest.approx(together[row].gate_score, abs=1e-5)
        for one, of_batch in zip(mine.ranked, steering.ranked if alone.triggered else [], strict=True):
            assert torch.equal(one.candidates[0], of_batch.candidates[row])
            torch.testing.assert_close(one.scores[0], of_batch.scores[row], **CLOSE)


def test_drawn_candidates_follow_the_softmax_and_do_not_depend_on_the_batch(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded
) -> None:
    drawn = fitted.retuned(reading=SafeSteerReading(choice="drawn", gate="always"), align=False, step=1)
    scores = torch.tensor([[2.0, 1.0, 0.0]])
    counts = torch.zeros(3)
    for seed in range(2000):
        noise = drawn.retuned(seed=seed)._noise(encoded.prompts[:1])
        counts[(scores + noise[:, 0]).argmax()] += 1
    torch.testing.assert_close(counts / 2000, scores[0].softmax(0), atol=0.03, rtol=0)
    state = torch.random.get_rng_state()
    together = drawn.answer(tiny, encoded, settings=SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    for row, prompt in enumerate(encoded.prompts):
        (alone,) = drawn.respond(tiny, [prompt], settings=SETTINGS)
        assert alone.text == together[row].text
    texts = {
        tuple(r.text for r in drawn.retuned(seed=seed).answer(tiny, encoded, settings=SETTINGS))
        for seed in range(4)
    }
    assert len(texts) > 1


def test_a_b_a(tiny: MLLM, fitted: SafeSteer, mixed_prompts: list[Prompt]) -> None:
    some, others = encode(tiny, mixed_prompts[:4]), encode(tiny, mixed_prompts[3:])
    first = answers(fitted.answer(tiny, some, settings=SETTINGS))
    assert answers(fitted.answer(tiny, others, settings=SETTINGS)) != first
    assert answers(fitted.answer(tiny, some, settings=SETTINGS)) == first


def test_respond_keeps_the_prompts_order(tiny: MLLM, fitted: SafeSteer, mixed_prompts: list[Prompt]) -> None:
    small = replace(SETTINGS, batch_size=2)
    forward = fitted.respond(tiny, mixed_prompts, settings=small)
    assert [r.prompt_id for r in forward] == [p.id for p in mixed_prompts]
    backward = fitted.respond(tiny, mixed_prompts[::-1], settings=small)
    assert [r.text for r in backward] == [r.text for r in forward[::-1]]


def test_hooks_are_gone_after_an_exception(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hooks_on(tiny)

    def broken(*_: object, step: int) -> None:
        raise KeyError("in the middle")

    monkeypatch.setattr(Reranking, "_choose", broken)
    with pytest.raises(KeyError):
        fitted.answer(tiny, encoded, settings=SETTINGS)
    assert hooks_on(tiny) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_do_not_pass_as_safe(
    tiny: MLLM, fitted: SafeSteer, encoded: Encoded, value: float
) -> None:
    broken = fitted.retuned()
    broken.probe_ = type(fitted.probe_).from_tensors(
        {**fitted.probe_.tensors, "mean": torch.full((tiny.dim,), value)},
        losses=(),
        **fitted.probe_.hyperparameters,
    )
    with pytest.raises(ValueError, match=r"final_norm or its score is not finite in rows \[0, 1, 2, 3, 4"):
        broken.answer(tiny, encoded, settings=SETTINGS)


@pytest.mark.parametrize(("dtype", "overflows"), [("float16", True), ("bfloat16", False)])
def test_a_shift_that_overflows_when_it_is_rounded_does_not_pass(
    tiny_folder: Path, fitted: SafeSteer, encoded: Encoded, dtype: DtypeName, overflows: bool
) -> None:
    """Finite in float32, in which it is computed, and beyond float16's 65504."""
    half = load(tiny_folder, device="cpu", dtype=dtype)
    steering = Reranking(
        fitted.probe_, site=final_norm(), threshold=0.0, shift=lambda h: 1e5 * torch.ones_like(h), k=K, steps=STEP, sign=1
    )  # fmt: skip
    batch = encode(half, encoded.prompts)
    fails = pytest.raises(
        ValueError, match=r"the state at final_norm or its score is not finite in rows \[0, 1"
    )
    with fails if overflows else nullcontext():
        generate(half, batch, settings=SETTINGS, steering=steering)


@pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason="needs two cards; with fewer, that a choice is moved between them is played in test_look_ahead.py",
)
def test_a_model_spread_over_two_cards_answers_as_on_one(
    tiny_folder: Path, fitted: SafeSteer, mixed_prompts: list[Prompt]
) -> None:
    one = load(tiny_folder, dtype="float32", device="cuda")
    two = load(tiny_folder, dtype="float32", device_map="balanced")
    assert len({parameter.device for parameter in two.model.parameters()}) == 2
    alone, spread = (fitted.respond(mllm, mixed_prompts, settings=SETTINGS) for mllm in (one, two))
    assert [response.text for response in alone] == [response.text for response in spread]


def test_half_precision_models_are_judged_and_moved_in_float32(
    tiny_folder: Path, fitted: SafeSteer, mixed_prompts: list[Prompt]
) -> None:
    half = load(tiny_folder, device="cpu", dtype="bfloat16")
    batch = encode(half, mixed_prompts)
    steering, responses, passes = watched(half, fitted, batch)
    assert steering.gate_score is not None
    assert steering.gate_score.dtype == torch.float32
    assert all(ranked.scores.dtype == torch.float32 for ranked in steering.ranked)
    plain: list[Tensor] = []
    with attach(half, {logits(): lambda h: plain.append(h.clone())}):
        undefended = Undefended().answer(half, batch, settings=SETTINGS)
    shut = [not r.triggered for r in responses]
    assert torch.equal(passes[0][shut], plain[0][shut])
    assert len(undefended) == len(responses)


@pytest.mark.battery
def test_every_family_is_steered_as_computed_without_a_cache(
    family: MLLM, family_prompts: list[Prompt]
) -> None:
    few = GenerationSettings(max_new_tokens=3)
    defence: SteeringDefence = half_open(fit(SafeSteer(k=K, step=STEP), family), family, family_prompts)
    assert isinstance(defence, SafeSteer)
    batch = encode(family, family_prompts)
    expected = by_hand(family, defence, batch, tokens=3)
    assert set(expected.opened.tolist()) == {True, False}
    steering, responses, passes = watched(family, defence, batch, settings=few)
    check(family, steering, responses, expected, passes[0][:, -1])


@pytest.mark.battery
def test_every_family_says_the_same_on_a_repeated_cache(
    family: MLLM, family_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    defence = half_open(fit(SafeSteer(k=K, step=STEP), family), family, family_prompts)
    batch = encode(family, family_prompts)
    shared = defence.answer(family, batch, settings=SETTINGS)
    steering = defence.steering(family, batch)
    monkeypatch.setattr(steering, "_sharing", repeat_always)
    repeated = generate(family, batch, settings=SETTINGS, steering=steering)
    assert [r.text for r in repeated] == [r.text for r in shared]
