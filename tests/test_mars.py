"""MARS on a tiny model: what it adds, to which rows and tokens, against the formula computed by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import torch
from torch import Tensor

from autosteer_lib.defences import Mars
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Edit, attach, resid_post
from autosteer_lib.trust_region import EPSILON
from tests.mars_on_tiny import (
    LAYER,
    SETTINGS,
    Watched,
    answers,
    fit,
    hooks_on,
    neutral,
    outputs,
    text_sets,
    watch,
)

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> Mars:
    return fit(Mars(layer=LAYER), tiny)


@pytest.fixture(scope="module")
def encoded(tiny: MLLM, mixed_prompts: list[Prompt]) -> Encoded:
    return encode(tiny, mixed_prompts)


@pytest.fixture(scope="module")
def plain(tiny: MLLM, encoded: Encoded) -> Watched:
    """The same answers without a defence."""
    return watch(tiny, None, encoded)[0]


Step: TypeAlias = Callable[[int, Tensor], tuple[Tensor, float]]
"""(row, h) → (what is added to h, ⟨h_c, d̂⟩)."""


def means(mllm: MLLM, layer: int) -> dict[str, Tensor]:
    """μ of refused and accepted texts, of both, of neutral pictures and clips, each read anew."""
    sets, (pictures, clips) = text_sets(), neutral()
    refused, accepted = (outputs(mllm, side, layer=layer) for side in (sets.unsafe, sets.safe))
    of_sights = {"image": pictures, **({"video": clips} if mllm.sees_videos else {})}
    return {
        "refused": refused.mean(0),
        "accepted": accepted.mean(0),
        "texts": torch.cat((refused, accepted)).mean(0),
        **{kind: outputs(mllm, prompts, layer=layer).mean(0) for kind, prompts in of_sights.items()},
    }


def by_hand(
    mllm: MLLM,
    prompts: Sequence[Prompt],
    *,
    layer: int = LAYER,
    text_centre: str = "pooled",
    text_inputs: str = "pooled",
    video_centre: str = "clips",
    recentre: bool = True,
    rectified: bool = True,
) -> Step:
    """The formula of the paper for one state at a time."""
    mu = means(mllm, layer)
    d = (mu["refused"] - mu["accepted"]) / (mu["refused"] - mu["accepted"]).norm()
    of_kind = {"text": "texts" if text_inputs == "pooled" else "image", "image": "image"}
    of_kind["video"] = "video" if video_centre == "clips" else "image"

    def step(row: int, h: Tensor) -> tuple[Tensor, float]:
        nowhere = torch.zeros_like(h)
        centre = mu[of_kind[prompts[row].modality]] if recentre else nowhere
        of_texts = {"pooled": mu["texts"], "neutral": centre, "none": nowhere}
        taken = of_texts[text_centre if recentre else "none"]
        h_c = h - centre
        r = min(torch.dist(h_c, mu["accepted"] - taken), torch.dist(h_c, mu["refused"] - taken))
        p = float(h_c @ d)
        length = r * p / (abs(p) + EPSILON)
        return (length * d if p > 0 or not rectified else nowhere), p

    return step


def steps_of_last(mllm: MLLM, prompts: Sequence[Prompt], **reading: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(h, its step, its projection) of each prompt's last token."""
    states = outputs(mllm, prompts, layer=reading.get("layer", LAYER))
    step = by_hand(mllm, prompts, **reading)
    steps, projections = zip(*(step(row, h) for row, h in enumerate(states)), strict=True)
    return states, torch.stack(steps), torch.tensor(projections)


def test_an_open_row_has_h_plus_r_d_and_the_others_h_bit_for_bit(
    tiny: MLLM, fitted: Mars, encoded: Encoded, plain: Watched
) -> None:
    h, step, projection = steps_of_last(tiny, encoded.prompts)
    opened = projection > 0
    assert opened.tolist() == [False, True, True, False, False, False, True]  # some of each modality
    steered, responses = watch(tiny, fitted, encoded)
    torch.testing.assert_close(steered.states[0][:, -1], h + step, **CLOSE)
    assert (step[opened].norm(dim=-1) > 0.5).all()
    for with_gate, without in zip(
        (*steered.states, *steered.logits), (*plain.states, *plain.logits), strict=True
    ):
        assert torch.equal(with_gate[~opened], without[~opened])
    assert [r.triggered for r in responses] == opened.tolist()
    assert [r.gate_score for r in responses] == pytest.approx(projection.tolist(), abs=1e-5)
    assert {r.model_calls for r in responses} == {1}


def test_a_row_of_a_batch_is_steered_as_alone(tiny: MLLM, fitted: Mars, encoded: Encoded) -> None:
    together, responses = watch(tiny, fitted, encoded)
    for row, (prompt, length) in enumerate(zip(encoded.prompts, encoded.lengths, strict=True)):
        alone, (response,) = watch(tiny, fitted, encode(tiny, [prompt]))
        torch.testing.assert_close(alone.states[0][0], together.states[0][row, -length:], **CLOSE)
        for mine, of_batch in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(mine[0], of_batch[row], **CLOSE)
        assert (response.text, response.triggered) == (responses[row].text, responses[row].triggered)
        assert response.gate_score == pytest.approx(responses[row].gate_score, abs=1e-5)


def test_nothing_is_left_to_run_while_decoding(tiny: MLLM, fitted: Mars, encoded: Encoded) -> None:
    """So an answer costs one hook in one pass, and no question to the device after it."""
    before = hooks_on(tiny)
    for defence in (fitted, fitted.retuned(every_layer=True)):
        steered, _ = watch(tiny, defence, encoded)
        assert steered.sites == [set()] * SETTINGS.max_new_tokens
        assert len(steered.logits) == SETTINGS.max_new_tokens  # and no pass besides
        assert not any(logits.requires_grad for logits in steered.logits)
        assert hooks_on(tiny) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_states_that_are_not_finite_do_not_pass_as_safe(
    tiny: MLLM, fitted: Mars, encoded: Encoded, value: float
) -> None:
    before = hooks_on(tiny)
    image = fitted.neutral_["image"].clone()
    image[LAYER, 0] = value
    broken = fitted.recentred_on({**fitted.neutral_, "image": image})
    with pytest.raises(ValueError, match=r"resid_post\(1\) is not finite in rows \[2, 3, 4\]"):
        broken.answer(tiny, encoded, settings=SETTINGS)
    assert hooks_on(tiny) == before


POSITIONS = ("last_to_all", "each", "last_only")


def moved_prompt(hidden: Tensor, step: Step, *, tokens: int, positions: str) -> Tensor:
    """States of prompt and answer of which the prompt's `tokens` columns are steered as the reading says."""
    moved = hidden.clone()
    for row, states in enumerate(hidden):
        last = step(row, states[tokens - 1])[0]
        for column in range(tokens):
            if positions == "each":
                moved[row, column] += step(row, states[column])[0]
            elif positions == "last_to_all" or column == tokens - 1:
                moved[row, column] += last
    return moved


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_tokens_that_move_are_those_of_the_reading(
    tiny: MLLM,
    fitted: Mars,
    encoded: Encoded,
    plain: Watched,
    positions: Literal["last_to_all", "each", "last_only"],
) -> None:
    before = plain.states[0]
    steered, responses = watch(tiny, fitted.retuned(reading=MarsReading(positions=positions)), encoded)
    step = by_hand(tiny, encoded.prompts)
    expected = moved_prompt(before, step, tokens=before.shape[1], positions=positions)
    for row, length in enumerate(encoded.lengths):  # what stands in padding is nobody's
        torch.testing.assert_close(steered.states[0][row, -length:], expected[row, -length:], **CLOSE)
    changed = (steered.states[0] != before).any(dim=-1).tolist()
    for row, response in enumerate(responses):
        tokens = changed[row][-encoded.lengths[row] :]
        assert tokens[-1] is response.triggered
        if positions == "last_to_all":
            assert set(tokens) == {response.triggered}
        if positions == "last_only":
            assert not any(tokens[:-1])
    if positions == "each":
        assert any(
            any(tokens) and not all(tokens[-n:]) for tokens, n in zip(changed, encoded.lengths, strict=True)
        )


@pytest.mark.parametrize("positions", POSITIONS)
def test_cached_answers_equal_a_pass_without_cache_in_which_the_prompt_alone_is_shifted(
    tiny: MLLM, fitted: Mars, encoded: Encoded, positions: Literal["last_to_all", "each", "last_only"]
) -> None:
    steered, responses = watch(tiny, fitted.retuned(reading=MarsReading(positions=positions)), encoded)
    step = by_hand(tiny, encoded.prompts)
    inputs = dict(encoded.inputs)
    width = inputs["input_ids"].shape[1]

    def edit(hidden: Tensor) -> Tensor:
        return moved_prompt(hidden, step, tokens=width, positions=positions)

    for cached in steered.logits:
        with torch.no_grad(), attach(tiny, {resid_post(LAYER): edit}):
            again = tiny.forward(inputs).logits[:, -1]
        torch.testing.assert_close(cached, again, atol=1e-4, rtol=1e-4)
        said = cached.argmax(dim=-1, keepdim=True)
        inputs["input_ids"] = torch.cat((inputs["input_ids"], said), dim=1)
        inputs["attention_mask"] = torch.cat((inputs["attention_mask"], torch.ones_like(said)), dim=1)
    said = inputs["input_ids"][:, width:]
    assert [r.text for r in responses] == tiny.tokenizer.batch_decode(said, skip_special_tokens=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"text_centre": "neutral"},
        {"text_centre": "none"},
        {"text_inputs": "neutral"},
        {"text_inputs": "neutral", "text_centre": "neutral"},
        {"video_centre": "pictures"},
        {"recentre": False},
        {"layer": 2},
    ],
    ids=str,
)
def test_each_reading_centres_as_it_says(
    tiny: MLLM, fitted: Mars, encoded: Encoded, changes: dict[str, Any]
) -> None:
    of_mars = {name: value for name, value in changes.items() if name in ("recentre", "layer")}
    of_reading = {name: value for name, value in changes.items() if name not in of_mars}
    defence = fitted.retuned(reading=MarsReading(**of_reading), **of_mars)
    h, step, projection = steps_of_last(tiny, encoded.prompts, **changes)
    steered, responses = watch(tiny, defence, encoded, layer=defence.layer_)
    torch.testing.assert_close(steered.states[0][:, -1], h + step, **CLOSE)
    assert [r.gate_score for r in responses] == pytest.approx(projection.tolist(), abs=1e-5)
    usual = steps_of_last(tiny, encoded.prompts)
    assert not (torch.allclose(step, usual[1]) and torch.allclose(projection, usual[2]))


def test_centres_are_the_means_of_what_there_is_to_see(
    tiny: MLLM, fitted: Mars, mixed_prompts: list[Prompt]
) -> None:
    sets, (pictures, clips) = text_sets(), neutral()
    of_texts = outputs(tiny, [*sets.unsafe, *sets.safe]).mean(0)
    of_pictures, of_clips = (outputs(tiny, prompts).mean(0) for prompts in (pictures, clips))
    expected = [of_texts] * 2 + [of_pictures] * 3 + [of_clips] * 2
    torch.testing.assert_close(fitted.centres(mixed_prompts, layer=LAYER), torch.stack(expected), **CLOSE)
    uncentred = fitted.retuned(recentre=False).centres(mixed_prompts, layer=LAYER)
    assert torch.equal(uncentred, torch.zeros(7, tiny.dim))


def test_clips_need_neutral_clips(tiny: MLLM, encoded: Encoded) -> None:
    without = fit(Mars(layer=LAYER), tiny, clips=False)
    assert set(without.neutral_) == {"image"}
    with pytest.raises(
        ValueError, match=r"without neutral clips .* clips=neutral_clips.*video_centre='pictures'"
    ):
        without.answer(tiny, encoded, settings=SETTINGS)
    assert len(without.respond(tiny, encoded.prompts[:5], settings=SETTINGS)) == 5
    as_pictures = without.retuned(reading=MarsReading(video_centre="pictures"))
    assert len(as_pictures.answer(tiny, encoded, settings=SETTINGS)) == 7
    assert len(without.retuned(recentre=False).answer(tiny, encoded, settings=SETTINGS)) == 7


def test_without_the_relu_every_row_moves_the_shut_ones_backwards(
    tiny: MLLM, fitted: Mars, encoded: Encoded
) -> None:
    h, step, projection = steps_of_last(tiny, encoded.prompts, rectified=False)
    shut = projection <= 0
    assert (step[shut] @ fitted.direction[LAYER] < -0.5).all()
    steered, responses = watch(tiny, fitted.retuned(rectified=False), encoded)
    torch.testing.assert_close(steered.states[0][:, -1], h + step, **CLOSE)
    assert [r.triggered for r in responses] == [True] * 7
    assert [r.gate_score for r in responses] == pytest.approx(projection.tolist(), abs=1e-5)


def test_every_layer_is_steered_by_its_own_direction(tiny: MLLM, fitted: Mars, encoded: Encoded) -> None:
    everywhere = fitted.retuned(every_layer=True)
    steered, responses = watch(tiny, everywhere, encoded)
    seen: dict[int, list[float]] = {}

    def edit(layer: int) -> Edit:
        step = by_hand(tiny, encoded.prompts, layer=layer)

        def write(hidden: Tensor) -> Tensor:
            seen[layer] = [step(row, states[-1])[1] for row, states in enumerate(hidden)]
            return moved_prompt(hidden, step, tokens=hidden.shape[1], positions="last_to_all")

        return write

    with torch.no_grad(), attach(tiny, {resid_post(layer): edit(layer) for layer in range(tiny.layers)}):
        expected = tiny.forward(encoded.inputs).logits[:, -1]
    torch.testing.assert_close(steered.logits[0], expected, atol=1e-4, rtol=1e-4)
    assert [r.triggered for r in responses] == [any(p[row] > 0 for p in seen.values()) for row in range(7)]
    assert [r.gate_score for r in responses] == pytest.approx(seen[tiny.layers - 1], abs=1e-4)


def test_respond_keeps_the_prompts_order_and_centres_each_batch_by_its_own_prompts(
    tiny: MLLM, fitted: Mars, mixed_prompts: list[Prompt]
) -> None:
    small = replace(SETTINGS, batch_size=2)
    forward = fitted.respond(tiny, mixed_prompts, settings=small)
    assert [r.prompt_id for r in forward] == [prompt.id for prompt in mixed_prompts]
    backward = fitted.respond(tiny, mixed_prompts[::-1], settings=small)
    assert [r.text for r in backward] == [r.text for r in forward[::-1]]
    together = fitted.answer(tiny, encode(tiny, mixed_prompts), settings=SETTINGS)
    assert [(r.text, r.triggered) for r in forward] == [(r.text, r.triggered) for r in together]


def test_a_b_a(tiny: MLLM, fitted: Mars, mixed_prompts: list[Prompt]) -> None:
    some, others = encode(tiny, mixed_prompts[:4]), encode(tiny, mixed_prompts[3:])
    first = answers(fitted.answer(tiny, some, settings=SETTINGS))
    middle = answers(fitted.answer(tiny, others, settings=SETTINGS))
    assert answers(fitted.answer(tiny, some, settings=SETTINGS)) == first
    assert [gate for _, _, gate in middle] != [gate for _, _, gate in first]


def test_two_models_are_independent(
    tiny: MLLM, other_tiny: MLLM, fitted: Mars, mixed_prompts: list[Prompt]
) -> None:
    defences = (fitted, fit(Mars(layer=LAYER), other_tiny))
    models, batches = (tiny, other_tiny), [encode(mllm, mixed_prompts) for mllm in (tiny, other_tiny)]
    separate = [watch(*each)[0].logits[0] for each in zip(models, defences, batches, strict=True)]
    steerings = [d.steering(m, b) for m, d, b in zip(models, defences, batches, strict=True)]
    with (
        torch.no_grad(),
        attach(tiny, steerings[0].edits()) as first,
        attach(other_tiny, steerings[1].edits()) as second,
    ):
        steerings[0].bind(first)
        steerings[1].bind(second)
        at_once = [m.forward(b.inputs).logits[:, -1] for m, b in zip(models, batches, strict=True)]
    for one, other in zip(separate, at_once, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_half_precision_models_are_steered_in_float32(
    tiny_folder: Path, fitted: Mars, mixed_prompts: list[Prompt]
) -> None:
    half = load(tiny_folder, device="cpu", dtype="bfloat16")
    batch = encode(half, mixed_prompts)
    steered, responses = watch(half, fitted, batch)
    assert steered.gate_score is not None
    assert steered.gate_score.dtype == torch.float32
    assert [r.triggered for r in responses] == [False, True, True, False, False, False, True]
    without = watch(half, None, batch)[0]
    shut = [not r.triggered for r in responses]
    assert torch.equal(steered.states[0][shut], without.states[0][shut])
    own = fit(Mars(layer=LAYER), half)
    assert own.direction.dtype == torch.float32
    assert torch.cosine_similarity(own.direction[LAYER], fitted.direction[LAYER], dim=0) > 0.99


@pytest.mark.battery
def test_every_family_is_steered_as_computed_by_hand(family: MLLM, family_prompts: list[Prompt]) -> None:
    layer, few = 2, GenerationSettings(max_new_tokens=2)
    defence = fit(Mars(layer=layer), family, clips=family.sees_videos)
    batch = encode(family, family_prompts)
    h, step, projection = steps_of_last(family, family_prompts, layer=layer)
    opened = projection > 0
    assert set(opened.tolist()) == {True, False}
    before = watch(family, None, batch, layer=layer, settings=few)[0]
    steered, responses = watch(family, defence, batch, layer=layer, settings=few)
    torch.testing.assert_close(steered.states[0][:, -1], h + step, atol=1e-4, rtol=1e-5)
    assert [r.triggered for r in responses] == opened.tolist()
    assert steered.sites == [set(), set()]
    same = (steered.logits[0] == before.logits[0]).all(dim=-1)
    assert torch.equal(same, ~opened)
    row = int(opened.int().argmax())
    (alone,) = defence.respond(family, family_prompts[row : row + 1], settings=few)
    assert (alone.text, alone.triggered) == (responses[row].text, True)
