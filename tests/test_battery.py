"""What every supported family must pass, on tiny random weights, in float32 to 1e-5.

Families come from tiny_models.BUILDERS; a builder entered there is put through all of this.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import GenerationSettings, generate
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Edit, Site, attach, final_norm, logits, resid_post, resid_pre
from tests.steerings import Recording, Shift

pytestmark = pytest.mark.battery

SETTINGS = GenerationSettings(max_new_tokens=8)
TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def every_site(mllm: MLLM) -> list[Site]:
    layers = range(mllm.layers)
    return [*map(resid_pre, layers), *map(resid_post, layers), final_norm()]


def vector(mllm: MLLM, *, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(mllm.dim, generator=torch.Generator().manual_seed(3))


def run(mllm: MLLM, encoded: Encoded, edits: Mapping[Site, Edit]) -> Tensor:
    with attach(mllm, edits):
        return mllm.forward(encoded.inputs).logits


def hooks_of(mllm: MLLM) -> int:
    return sum(hooks_on(module) for module in mllm.model.modules())


def hooks_on(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


@pytest.fixture(scope="module")
def encoded(family: MLLM, family_prompts: list[Prompt]) -> Encoded:
    return encode(family, family_prompts)


def test_a_zero_vector_changes_no_bit(family: MLLM, encoded: Encoded) -> None:
    plain = run(family, encoded, {})
    for site in every_site(family):
        steered = run(family, encoded, Shift(site, torch.zeros(family.dim)).edits())
        assert torch.equal(steered, plain), site


def test_after_the_hooks_no_bit_is_changed(family: MLLM, encoded: Encoded) -> None:
    plain = run(family, encoded, {})
    before = hooks_of(family)
    for site in every_site(family):
        run(family, encoded, {site: lambda hidden: hidden + 1.0})
        assert torch.equal(run(family, encoded, {}), plain), site
    assert hooks_of(family) == before


def test_the_change_at_a_site_is_the_vector(family: MLLM, encoded: Encoded) -> None:
    """Written at one site, read at the next one that names the same state."""
    shift = vector(family)
    for layer in range(family.layers - 1):
        seen: list[Tensor] = []
        reader = {resid_pre(layer + 1): seen.append}
        run(family, encoded, reader)
        run(family, encoded, {resid_post(layer): lambda h: h + shift, **reader})
        torch.testing.assert_close(seen[1] - seen[0], shift.expand_as(seen[0]), **TOLERANCE)


def test_a_row_of_a_mixed_batch_is_the_single_run(
    family: MLLM, encoded: Encoded, family_prompts: list[Prompt]
) -> None:
    together = run(family, encoded, {})
    for row, prompt in enumerate(family_prompts):
        alone = run(family, encode(family, [prompt]), {})
        torch.testing.assert_close(together[row : row + 1], alone, **TOLERANCE)


def test_a_row_of_a_mixed_batch_generates_what_it_does_alone(
    family: MLLM, encoded: Encoded, family_prompts: list[Prompt]
) -> None:
    together = generate(family, encoded, settings=SETTINGS)
    for prompt, response in zip(family_prompts, together, strict=True):
        (alone,) = generate(family, encode(family, [prompt]), settings=SETTINGS)
        assert (response.text, response.new_tokens) == (alone.text, alone.new_tokens)


def no_steering(family: MLLM) -> None:
    return None


def head_like(family: MLLM) -> Shift:
    return Shift(final_norm(), vector(family), gate=[True, False, True, True, False, False, True])


def block_steering(family: MLLM) -> Shift:
    shift = vector(family, scale=2.0)
    return Shift(resid_post(1), shift, gate=[False, True, True, False, True, False, True])


@pytest.mark.parametrize("make", [no_steering, head_like, block_steering])
def test_cached_generation_is_the_uncached_forward_at_every_step(
    family: MLLM, encoded: Encoded, make: Callable[[MLLM], Shift | None]
) -> None:
    """The phase after the prompt is steered as the prompt was, and nothing else leaks in."""
    recording = Recording(make(family))
    generate(family, encoded, settings=SETTINGS, steering=recording)
    assert len(recording.logits) == SETTINGS.max_new_tokens
    inputs = encoded.inputs
    for step, cached in enumerate(recording.logits):
        again = Recording(make(family))
        with attach(family, again.edits()):
            family.forward(inputs)
        torch.testing.assert_close(cached, again.logits[0], **TOLERANCE, msg=f"step {step}: ".__add__)
        inputs = one_more(inputs, cached.argmax(dim=-1, keepdim=True))


def one_more(inputs: dict[str, Tensor], token: Tensor) -> dict[str, Tensor]:
    """Inputs with a token of the answer at the right; it is a word, which is kind 0 where kinds are told."""
    shape = inputs["input_ids"].shape
    columns = {"input_ids": token, "attention_mask": torch.ones_like(token)}
    return {
        key: torch.cat([value, columns.get(key, torch.zeros_like(token)).to(value)], dim=1)
        if value.shape == shape
        else value
        for key, value in inputs.items()
    }


@pytest.mark.parametrize("site", [resid_pre(1), resid_post(1), final_norm(), logits()])
def test_only_gated_rows_change(family: MLLM, encoded: Encoded, site: Site) -> None:
    plain = run(family, encoded, {})
    gate = [True, False, True, True, False, False, True]
    width = plain.shape[-1] if site.kind == "logits" else family.dim
    shift = Shift(site, torch.linspace(-2, 2, width), gate=gate)
    steered = run(family, encoded, shift.edits())
    for row, on in enumerate(gate):
        assert torch.equal(steered[row], plain[row]) is not on


def test_hooks_are_gone_after_an_exception(family: MLLM, encoded: Encoded) -> None:
    plain, before = run(family, encoded, {}), hooks_of(family)

    def fail(hidden: Tensor) -> Tensor:
        raise KeyError("inside an edit")

    with pytest.raises(KeyError, match=r"inside an edit"):
        run(family, encoded, {resid_post(0): lambda hidden: hidden + 1.0, resid_pre(2): fail})
    with pytest.raises(KeyError, match=r"inside a pass"), attach(family, {final_norm(): torch.neg}):
        raise KeyError("inside a pass")
    assert hooks_of(family) == before
    assert torch.equal(run(family, encoded, {}), plain)


def test_two_models_are_independent(
    family: MLLM, other_of_family: MLLM, family_prompts: list[Prompt]
) -> None:
    models = (family, other_of_family)
    batches = [encode(mllm, family_prompts) for mllm in models]
    edits = [{resid_post(1): lambda h: h + 1.0}, {resid_post(1): lambda h: h * 0.5}]
    separate = [run(*each) for each in zip(models, batches, edits, strict=True)]
    with attach(family, edits[0]), attach(other_of_family, edits[1]):
        at_once = [m.forward(b.inputs).logits for m, b in zip(models, batches, strict=True)]
    for one, other in zip(separate, at_once, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(*separate)


def test_the_vision_tower_is_untouched(family: MLLM, encoded: Encoded) -> None:
    """What the decoder is given, resid_pre(0), carries the pictures: no edit may change it."""
    seen: list[Tensor] = []
    reader = {resid_pre(0): lambda hidden: seen.append(hidden.clone())}
    run(family, encoded, reader)
    for site in every_site(family):
        if site != resid_pre(0):
            run(family, encoded, {**reader, site: lambda hidden: hidden + 3.0})
    assert all(torch.equal(states, seen[0]) for states in seen)
    everywhere = {site: lambda hidden: hidden for site in every_site(family)}
    modules = list(family.model.modules())
    # Counted as a difference: transformers leaves hooks of its own on a tower whose states it reads.
    before = [hooks_on(module) for module in modules]
    with attach(family, everywhere):
        hooked = [m for m, count in zip(modules, before, strict=True) if hooks_on(m) > count]
    assert {id(module) for module in hooked} == {id(m) for m in [*family.blocks, family.final_norm]}


def test_steer_a_then_b_then_a_gives_the_answers_of_a(family: MLLM, encoded: Encoded) -> None:
    def answers(steering: Shift) -> list[str]:
        return [r.text for r in generate(family, encoded, settings=SETTINGS, steering=steering)]

    first = answers(head_like(family))
    between = answers(block_steering(family))
    assert answers(head_like(family)) == first
    assert between != first


def test_nothing_of_the_batch_is_consumed(family: MLLM, encoded: Encoded) -> None:
    before = {key: value.clone() for key, value in encoded.inputs.items()}
    first = generate(family, encoded, settings=SETTINGS)
    second = generate(family, encoded, settings=SETTINGS)
    assert [r.text for r in first] == [r.text for r in second]
    assert before.keys() == encoded.inputs.keys()
    assert all(torch.equal(before[key], encoded.inputs[key]) for key in before)


def test_a_saved_model_gives_the_same_answers(
    family: MLLM, encoded: Encoded, family_prompts: list[Prompt], tmp_path: Path
) -> None:
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    again = load(tmp_path, device="cpu")
    reencoded = encode(again, family_prompts)
    assert encoded.inputs.keys() == reencoded.inputs.keys()
    assert all(torch.equal(encoded.inputs[key], reencoded.inputs[key]) for key in encoded.inputs)
    assert torch.equal(run(family, encoded, {}), run(again, reencoded, {}))
    answers = [generate(mllm, encoded, settings=SETTINGS) for mllm in (family, again)]
    assert [r.text for r in answers[0]] == [r.text for r in answers[1]]


def test_clips_of_several_lengths(family: MLLM, sights: Any) -> None:
    """Beside words and alone, cached and whole: what is seen does not depend on what stands beside it."""
    if not family.sees_videos:
        with pytest.raises(ValueError, match=r"'film' has a clip, and .* has no video processor"):
            encode(family, [Prompt(id="film", text="what is this ?", videos=(sights.clip(),))])
        return
    for frames in (2, 3, 4):
        prompts = [
            Prompt(id="words", text="make a sun"),
            Prompt(id="clip", text="what is this ?", videos=(sights.clip(frames),)),
            Prompt(id="another", text="describe this picture please", videos=(sights.clip(frames),)),
        ]
        encoded = encode(family, prompts)
        recording = Recording(Shift(resid_post(1), vector(family), gate=[True, False, True]))
        together = generate(family, encoded, settings=SETTINGS, steering=recording)
        inputs = encoded.inputs
        for cached in recording.logits[:3]:
            again = Recording(Shift(resid_post(1), vector(family), gate=[True, False, True]))
            with attach(family, again.edits()):
                family.forward(inputs)
            torch.testing.assert_close(cached, again.logits[0], **TOLERANCE)
            inputs = one_more(inputs, cached.argmax(dim=-1, keepdim=True))
        shift = Shift(resid_post(1), torch.zeros(family.dim))
        (alone,) = generate(family, encode(family, prompts[1:2]), settings=SETTINGS, steering=shift)
        assert alone.text == together[1].text
