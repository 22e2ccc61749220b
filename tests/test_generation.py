"""Answers: greedy, in order, counted, and under the edits of their own batch only."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from autosteer_lib.defences import AdaShieldS, AutoSteer, Coca, Undefended
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import GenerationSettings, Response, generate, respond
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import attach, final_norm, logits, resid_pre
from tests.steerings import Idle, Recording, Shift

SETTINGS = GenerationSettings(max_new_tokens=6)


def texts(responses: list[Response]) -> list[str]:
    return [response.text for response in responses]


def test_answers_are_the_argmax_of_each_step(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    recording = Recording()
    answers = generate(tiny, encode(tiny, mixed_prompts), settings=SETTINGS, steering=recording)
    greedy = torch.stack([step.argmax(dim=-1) for step in recording.logits], dim=1)
    assert texts(answers) == tiny.tokenizer.batch_decode(greedy)


def test_respond_keeps_the_prompts_order(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    small = replace(SETTINGS, batch_size=2)
    answers = respond(tiny, mixed_prompts, settings=small)
    assert [answer.prompt_id for answer in answers] == [prompt.id for prompt in mixed_prompts]
    alone = [respond(tiny, [prompt], settings=SETTINGS)[0] for prompt in mixed_prompts]
    assert texts(answers) == texts(alone)
    assert [answer.prompt_tokens for answer in answers] == list(encode(tiny, mixed_prompts).lengths)
    assert texts(respond(tiny, mixed_prompts[::-1], settings=small)) == texts(answers)[::-1]


def test_no_prompts_no_answers(tiny: MLLM) -> None:
    assert respond(tiny, [], settings=SETTINGS) == []


class EndAt(Recording):
    """Makes row `row` end at step `step` by its logits."""

    def __init__(self, *, row: int, step: int, token: int) -> None:
        super().__init__()
        self.row, self.step, self.token = row, step, token

    def read(self, hidden: Tensor) -> Tensor | None:  # type: ignore[override]
        super().read(hidden)
        if len(self.logits) <= self.step:
            return None
        changed = hidden.clone()
        changed[self.row, -1, self.token] = 1e3
        return changed


def test_tokens_are_counted_up_to_the_end(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    end = tiny.tokenizer.eos_token_id
    ending = EndAt(row=1, step=2, token=end)
    answers = generate(tiny, encode(tiny, mixed_prompts), settings=SETTINGS, steering=ending)
    assert [answer.new_tokens for answer in answers] == [6, 3, 6, 6, 6, 6, 6]
    assert len(answers[1].text.split()) == 2, "the end token is counted and not shown"


def test_costs_are_recorded(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    for answer in generate(tiny, encode(tiny, mixed_prompts), settings=SETTINGS):
        assert answer.seconds > 0
        assert answer.model_calls == 1
        assert (answer.gate_score, answer.triggered) == (None, None)


def test_gate_scores_go_to_their_rows(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    gate = [True, False, False, True, False, True, False]
    shift = Shift(final_norm(), torch.ones(tiny.dim), gate=gate)
    answers = generate(tiny, encode(tiny, mixed_prompts), settings=SETTINGS, steering=shift)
    assert [answer.triggered for answer in answers] == gate
    assert [answer.gate_score for answer in answers] == [float(on) for on in gate]


def test_only_gated_rows_answer_differently(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    encoded = encode(tiny, mixed_prompts)
    plain = texts(generate(tiny, encoded, settings=SETTINGS))
    gate = [True, False, False, True, False, True, False]
    shift = Shift(resid_pre(2), 5 * torch.linspace(-1, 1, tiny.dim), gate=gate)
    steered = texts(generate(tiny, encoded, settings=SETTINGS, steering=shift))
    assert [one != other for one, other in zip(plain, steered, strict=True)] == gate


def test_each_batch_has_a_steering_of_its_own(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    made: list[Idle] = []

    def make(encoded: Encoded) -> Idle:
        made.append(Idle(resid_pre(1)))
        return made[-1]

    respond(tiny, mixed_prompts, settings=replace(SETTINGS, batch_size=1), steering=make)
    assert len(made) == len(mixed_prompts)
    assert [idle.calls for idle in made] == [1] * len(made)


def test_a_batch_that_does_not_fit_is_halved_and_each_half_has_a_steering_of_its_own(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [replace(mixed_prompts[0], id=str(number)) for number in range(4)]
    shown: list[int] = []

    def steering(encoded: Encoded) -> Shift:
        shown.append(len(encoded.prompts))
        return Shift(final_norm(), torch.ones(tiny.dim))

    whole = respond(tiny, words, settings=SETTINGS, steering=steering)
    inner = tiny.model.generate

    def full(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(**inputs)

    monkeypatch.setattr(tiny.model, "generate", full)
    assert texts(respond(tiny, words, settings=SETTINGS, steering=steering)) == texts(whole)
    assert shown == [4, 4, 2, 2]


def test_a_steering_for_two_batches_is_an_error(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    shift = Shift(final_norm(), torch.zeros(tiny.dim), gate=[True, False])
    shift.edit = lambda hidden: hidden  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"gate values of shape \[2\] for a batch of 7"):
        generate(tiny, encode(tiny, mixed_prompts), settings=SETTINGS, steering=shift)


def test_an_inactive_defence_runs_on_the_plain_model(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    """After its look at the prefill no hook is left: the decoding steps cost nothing more."""
    encoded = encode(tiny, mixed_prompts)
    idle = Idle(resid_pre(1))
    hooks_in_decode: list[int] = []
    count = len(tiny.blocks[1]._forward_pre_hooks)

    def look(hidden: Tensor) -> None:
        if hidden.shape[1] == 1:
            hooks_in_decode.append(len(tiny.blocks[1]._forward_pre_hooks) - count)

    with attach(tiny, {resid_pre(0): look}):
        answers = generate(tiny, encoded, settings=SETTINGS, steering=idle)
    assert idle.calls == 1
    assert hooks_in_decode == [0] * (SETTINGS.max_new_tokens - 1)
    assert texts(answers) == texts(generate(tiny, encoded, settings=SETTINGS))
    assert [answer.triggered for answer in answers] == [False] * len(answers)


class Overflow(Shift):
    """Makes the states of one row infinite, as half precision does of large ones."""

    def edit(self, hidden: Tensor) -> Tensor:
        broken = hidden.clone()
        broken[1] = float("inf")
        return broken


def test_a_model_that_overflows_gives_an_error_and_no_noise(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    hooks = len(tiny.lm_head._forward_hooks)
    encoded = encode(tiny, mixed_prompts)
    name = encoded.prompts[1].id
    with pytest.raises(
        ValueError, match=rf"not finite .* for 1 of {len(mixed_prompts)} prompts \('{name}'\)"
    ):
        generate(tiny, encoded, settings=SETTINGS, steering=Overflow(resid_pre(1), torch.zeros(1)))
    assert len(tiny.lm_head._forward_hooks) == hooks


def test_the_first_logits_are_looked_at_and_no_others(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    hooks: list[int] = []

    class Counting(Recording):
        def read(self, hidden: Tensor) -> None:
            hooks.append(len(tiny.lm_head._forward_hooks))

    before = len(tiny.lm_head._forward_hooks)
    generate(tiny, encode(tiny, mixed_prompts), settings=SETTINGS, steering=Counting())
    assert hooks == [before + 1] * SETTINGS.max_new_tokens, "its own hook alone, from the first pass on"


def test_hooks_are_gone_when_generation_fails(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    encoded = encode(tiny, mixed_prompts)
    plain = texts(generate(tiny, encoded, settings=SETTINGS))
    shift = Shift(final_norm(), torch.ones(tiny.dim + 1))  # does not fit
    with pytest.raises(RuntimeError, match=r"size"):
        generate(tiny, encoded, settings=SETTINGS, steering=shift)
    assert texts(generate(tiny, encoded, settings=SETTINGS)) == plain


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(tiny_folder: Path, mixed_prompts: list[Prompt], dtype: str) -> None:
    half = load(tiny_folder, dtype=dtype, device="cpu")  # type: ignore[arg-type]
    shift = Shift(final_norm(), torch.ones(half.dim))  # cast by the edit, checked by attach
    answers = generate(half, encode(half, mixed_prompts), settings=SETTINGS, steering=shift)
    assert all(answer.new_tokens == 6 for answer in answers)


def test_the_models_own_header_is_no_part_of_the_answer(tiny: MLLM) -> None:
    """Without a generation prompt the model says `<assistant>` itself, as in AutoSteer's code."""
    bare = replace(tiny, add_generation_prompt=False)
    prompt = Prompt(text="make a sun")
    header = bare.tokenizer.convert_tokens_to_ids("<assistant>")
    start = EndAt(row=0, step=0, token=header)

    def only_first(hidden: Tensor) -> Tensor | None:
        start.logits.append(hidden[:, -1].clone())
        if len(start.logits) > 1:
            return None
        changed = hidden.clone()
        changed[0, -1, header] = 1e3
        return changed

    start.read = only_first  # type: ignore[method-assign]
    (answer,) = generate(bare, encode(bare, [prompt]), settings=SETTINGS, steering=start)
    assert answer.prompt_tokens == 4
    assert "<assistant>" not in answer.text
    (with_header,) = generate(tiny, encode(tiny, [prompt]), settings=replace(SETTINGS, max_new_tokens=5))
    assert answer.text == with_header.text


def test_a_forced_answer_cannot_be_generated_from(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    with pytest.raises(ValueError, match=r"holds a forced answer of 2 tokens"):
        generate(tiny, encode(tiny, mixed_prompts, answer="sorry"), settings=SETTINGS)


def test_no_room_for_the_answer(tiny: MLLM) -> None:
    prompt = Prompt(id="wide", text="sun " * 122)
    with pytest.raises(ValueError, match=r"'wide' has 124 tokens, which leaves room for 4 of the 6"):
        respond(tiny, [prompt], settings=SETTINGS)
    respond(tiny, [prompt], settings=replace(SETTINGS, max_new_tokens=4))


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"batch_size": -1}])
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"give at least 1"):
        GenerationSettings(**wrong)


def test_logits_are_read_in_every_pass(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    recording = Recording()
    assert logits() in recording.edits()
    generate(tiny, encode(tiny, mixed_prompts[:1]), settings=SETTINGS, steering=recording)
    assert len(recording.logits) == SETTINGS.max_new_tokens


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"prompts": Prompt(text="a")}, r"prompts holds Prompt\(.*; give a list of Prompt"),
        ({"prompts": ["a"]}, "prompts holds 'a', a str; give a list of Prompt"),
        ({"settings": {"max_new_tokens": 3}}, r"settings is .*; give GenerationSettings"),
        ({"mllm": "tiny"}, r"mllm is 'tiny'.*; give the model that load"),
    ],
)
def test_slips_are_told_before_the_model_runs(tiny: MLLM, changed: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {
        "mllm": tiny, "prompts": [Prompt(text="a")], "settings": GenerationSettings(max_new_tokens=1), **changed,
    }  # fmt: skip
    mllm, prompts, settings = given["mllm"], given["prompts"], given["settings"]
    with pytest.raises(TypeError, match=told):
        respond(mllm, prompts, settings=settings)
    for defence in (Undefended(), AutoSteer(), Coca(), AdaShieldS()):
        with pytest.raises(TypeError, match=told):
            defence.respond(mllm, prompts, settings=settings)


@pytest.mark.usefixtures("as_a_user")
def test_a_defence_in_place_of_its_steering_is_named(tiny: MLLM) -> None:
    with pytest.raises(TypeError, match=r"steering is .*Undefended; .*call defence\.respond"):
        respond(
            tiny,
            [Prompt(text="a")],
            settings=GenerationSettings(max_new_tokens=1),
            steering=cast(Any, Undefended()),
        )


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("value", ["5", 5.5, None, np.int64(5)])
def test_settings_are_whole_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match=r"max_new_tokens is .*; give a plain whole number"):
        GenerationSettings(max_new_tokens=value)


def test_a_second_thread_is_not_steered_by_the_first(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    plain = texts(respond(tiny, mixed_prompts, settings=SETTINGS))
    at_work, looked = threading.Event(), threading.Event()

    class Lingering(Shift):
        """Stays in its prefill until the other thread has had its chance."""

        def edit(self, hidden: Tensor) -> Tensor:
            at_work.set()
            looked.wait(0.5)
            looked.set()
            return super().edit(hidden)

    def unsteered() -> list[str]:
        at_work.wait()
        found = texts(respond(tiny, mixed_prompts, settings=SETTINGS))
        looked.set()
        return found

    steering = Lingering(final_norm(), torch.linspace(-50, 50, tiny.dim))
    with ThreadPoolExecutor(1) as other:
        answers = other.submit(unsteered)
        steered = respond(tiny, mixed_prompts, settings=SETTINGS, steering=lambda _: steering)
        assert answers.result() == plain
    assert texts(steered) != plain
