"""Collected states are those of the model, whatever the batches, and are never stale."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from autosteer_lib import activations
from autosteer_lib.activations import answer_states, collect
from autosteer_lib.encoding import encode
from autosteer_lib.models import MLLM, load
from autosteer_lib.pooled_states import mean_states
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.tiny_models import SIDE
from autosteer_lib.sites import Site, attach, final_norm, logits, resid_post, resid_pre
from autosteer_lib.tensor_cache import cache_key

TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
SITES = [resid_pre(0), resid_pre(2), resid_post(3), final_norm()]


@pytest.fixture(scope="module")
def one_by_one(tiny: MLLM, mixed_prompts: list[Prompt]) -> Tensor:
    """The reference: each prompt alone, so without padding, states taken from transformers itself."""
    rows = []
    for prompt in mixed_prompts:
        inputs = encode(tiny, [prompt]).inputs
        states = tiny.model(**inputs, output_hidden_states=True).hidden_states
        after_last_block: list[Tensor] = []
        with attach(tiny, {resid_post(3): after_last_block.append}):
            tiny.model(**inputs)
        kept = [states[0], states[2], after_last_block[0], states[-1]]
        rows.append(torch.stack([hidden[0, -1] for hidden in kept]))
    return torch.stack(rows)


def test_collect_is_the_last_token_of_each_prompt(
    tiny: MLLM, mixed_prompts: list[Prompt], one_by_one: Tensor
) -> None:
    states = collect(tiny, mixed_prompts, sites=SITES)
    assert (states.dtype, states.device.type) == (torch.float32, "cpu")
    torch.testing.assert_close(states, one_by_one, **TOLERANCE)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(7)), kept=st.integers(1, 7), batch_size=st.integers(1, 8))
def test_neither_order_nor_batches_nor_padding_change_a_state(
    tiny: MLLM,
    mixed_prompts: list[Prompt],
    one_by_one: Tensor,
    order: list[int],
    kept: int,
    batch_size: int,
) -> None:
    chosen = list(order)[:kept]
    states = collect(tiny, [mixed_prompts[i] for i in chosen], sites=SITES, batch_size=batch_size)
    torch.testing.assert_close(states, one_by_one[chosen], **TOLERANCE)


def test_layer_0_of_one_template_token_is_one_embedding(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    """Why nobody probes resid_pre(0): it knows nothing of the prompt."""
    states = collect(tiny, mixed_prompts, sites=[resid_pre(0)])[:, 0]
    assert torch.equal(states, states[:1].expand_as(states))


def test_logits_are_collected_alone(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    head, norm = (collect(tiny, mixed_prompts, sites=[site])[:, 0] for site in (logits(), final_norm()))
    torch.testing.assert_close(head, norm @ tiny.unembedding.T, **TOLERANCE)
    with pytest.raises(ValueError, match=r"differ in width.*in a call of its own"):
        collect(tiny, mixed_prompts, sites=[logits(), final_norm()])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_states_come_as_float32(
    tiny_folder: Path, mixed_prompts: list[Prompt], one_by_one: Tensor, dtype: str
) -> None:
    states = collect(load(tiny_folder, dtype=dtype), mixed_prompts, sites=SITES)  # type: ignore[arg-type]
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, one_by_one, rtol=0.1, atol=0.15)


def test_memory_does_not_grow_with_the_prompts_length(tiny: MLLM) -> None:
    """What is kept of a long prompt takes as many bytes as of a short one."""
    short, long = Prompt(text="sun"), Prompt(text="sun " * 120)
    kept = [collect(tiny, [p], sites=SITES).untyped_storage().nbytes() for p in (short, long)]
    assert kept[0] == kept[1] == len(SITES) * tiny.dim * 4


def test_nothing_to_collect(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    with pytest.raises(ValueError, match=r"0 prompts and 1 sites"):
        collect(tiny, [], sites=[final_norm()])
    with pytest.raises(ValueError, match=r"7 prompts and 0 sites"):
        collect(tiny, mixed_prompts, sites=[])
    with pytest.raises(ValueError, match=r"layer 9 does not exist"):
        collect(tiny, mixed_prompts, sites=[resid_pre(9)])
    with pytest.raises(ValueError, match=r"prompts is empty"):
        answer_states(tiny, [], answer="sorry")


@contextmanager
def broken_weight(mllm: MLLM, value: float) -> Iterator[None]:
    """One weight of block 2's last norm is not finite."""
    weight = list(mllm.blocks[2].parameters())[-1].data.view(-1)
    kept = weight[0].clone()
    weight[0] = value
    try:
        yield
    finally:
        weight[0] = kept


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_an_error(
    tiny: MLLM, mixed_prompts: list[Prompt], value: float
) -> None:
    with broken_weight(tiny, value):
        with pytest.raises(
            ValueError, match=r"prompt 'short' has a state at resid_post\(2\) of tiny .*not finite"
        ):
            collect(tiny, mixed_prompts[:1], sites=[resid_post(1), resid_post(2)])
        with pytest.raises(ValueError, match=r"prompt 'long' has a state at final_norm of tiny"):
            answer_states(tiny, mixed_prompts[1:2], answer="sorry")


# --- forced answers ---


def test_answer_states_predict_the_answer(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    found = answer_states(tiny, mixed_prompts, answer="sorry i cannot", batch_size=2)
    names = tiny.tokenizer.convert_ids_to_tokens(found.targets.tolist())
    assert names == ["sorry", "i", "cannot", "<eos>"] * len(mixed_prompts)
    assert found.rows.tolist() == [row for row in range(len(mixed_prompts)) for _ in range(4)]
    first = found.states[::4]
    torch.testing.assert_close(first, collect(tiny, mixed_prompts, sites=[final_norm()])[:, 0], **TOLERANCE)


def test_answer_states_give_the_loss_of_transformers(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    """Cross-entropy over these states and targets is the model's own loss on the answer."""
    prompt = mixed_prompts[2]
    found = answer_states(tiny, [prompt], answer="sorry i cannot")
    ours = torch.nn.functional.cross_entropy(found.states @ tiny.unembedding.T, found.targets)
    inputs = encode(tiny, [prompt], answer="sorry i cannot").inputs
    labels = inputs["input_ids"].clone()
    labels[:, :-4] = -100
    torch.testing.assert_close(ours, tiny.model(**inputs, labels=labels).loss, **TOLERANCE)


def test_the_question_after_the_last_picture_is_supervised_on_request(
    tiny: MLLM, mixed_prompts: list[Prompt]
) -> None:
    found = answer_states(tiny, mixed_prompts, answer="sorry", include_question=True)

    def targets(row: int) -> list[str]:
        return list(tiny.tokenizer.convert_ids_to_tokens(found.targets[found.rows == row].tolist()))

    end = ["<assistant>", "sorry", "<eos>"]
    assert targets(0) == ["make", "a", "sun", *end]
    assert targets(2) == ["what", "is", "this", "?", *end]
    assert targets(4) == ["what", "is", "that", "?", *end]
    assert targets(6) == ["describe", *end]
    alone = answer_states(tiny, mixed_prompts[:1], answer="sorry", include_question=True)
    torch.testing.assert_close(found.states[found.rows == 0], alone.states, **TOLERANCE)
    only_answer = answer_states(tiny, mixed_prompts, answer="sorry")
    kept = torch.cat([found.states[found.rows == row][-2:] for row in range(7)])
    torch.testing.assert_close(kept, only_answer.states, **TOLERANCE)


# --- where memory ends ---


def at_most(rows: int, forward: Any, sizes: list[int]) -> Any:
    def full(self: MLLM, inputs: dict[str, Tensor]) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, inputs)

    return full


def test_a_batch_that_does_not_fit_is_halved(
    tiny: MLLM, mixed_prompts: list[Prompt], one_by_one: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [replace(mixed_prompts[0], id=str(number)) for number in range(5)]
    forced = answer_states(tiny, words, answer="sorry")
    mean = mean_states(tiny, words, sites=SITES)
    sizes: list[int] = []
    monkeypatch.setattr(MLLM, "forward", at_most(2, MLLM.forward, sizes))
    states = collect(tiny, words, sites=SITES, batch_size=4)
    assert sizes == [4, 2, 2, 1]
    torch.testing.assert_close(states, one_by_one[:1].expand_as(states), **TOLERANCE)
    torch.testing.assert_close(answer_states(tiny, words, answer="sorry").states, forced.states, **TOLERANCE)
    torch.testing.assert_close(mean_states(tiny, words, sites=SITES), mean, **TOLERANCE)


def test_a_prompt_that_does_not_fit_even_alone_is_named(
    tiny: MLLM, mixed_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MLLM, "forward", at_most(0, MLLM.forward, []))
    with pytest.raises(
        MemoryError, match=r"prompt '.*' does not fit into memory .* fewer or smaller pictures"
    ):
        collect(tiny, mixed_prompts, sites=SITES)


# --- on disk ---


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(activations, "over_batches", fail)


def test_a_second_call_takes_the_stored_states(
    tiny: MLLM, mixed_prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made" / "on demand"
    first = collect(tiny, mixed_prompts, sites=SITES, cache=folder)
    forced = answer_states(tiny, mixed_prompts, answer="sorry", cache=folder)
    assert sorted(file.suffix for file in folder.iterdir()) == [".lock"] * 2 + [".safetensors"] * 2
    forbid_computing(monkeypatch)
    assert torch.equal(collect(tiny, mixed_prompts, sites=SITES, cache=folder), first)
    again = answer_states(tiny, mixed_prompts, answer="sorry", cache=folder)
    assert torch.equal(again.states, forced.states)
    assert torch.equal(again.targets, forced.targets)


def test_a_file_cut_short_is_computed_again(tiny: MLLM, mixed_prompts: list[Prompt], tmp_path: Path) -> None:
    first = collect(tiny, mixed_prompts, sites=SITES, cache=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    assert torch.equal(collect(tiny, mixed_prompts, sites=SITES, cache=tmp_path), first)
    assert list(tmp_path.glob("*.safetensors")) == [file]


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_computed(
    tiny: MLLM, mixed_prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as patched:
        forbid_computing(patched)
        with pytest.raises(OSError, match=r"states cannot be kept in cache .*below .*or give cache=None"):
            collect(tiny, mixed_prompts, sites=SITES, cache=tmp_path / "file" / "below")

    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("autosteer_lib.tensor_cache.save_file", full)
    with pytest.raises(OSError, match=r"No space left on device\); name a folder"):
        collect(tiny, mixed_prompts, sites=SITES, cache=tmp_path / "full")
    assert {path.suffix for path in (tmp_path / "full").iterdir()} <= {".lock"}


def test_all_that_the_states_depend_on_is_in_the_key(
    tiny: MLLM, other_tiny: MLLM, tiny_folder: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (SIDE, SIDE), "red").save(picture)
    prompt = Prompt(text="what is this ?", images=(picture,))
    arguments = {"sites": ["final_norm"], "batch_size": 2}

    def key(mllm: MLLM = tiny, prompts: tuple[Prompt, ...] = (prompt,), **changed: object) -> str:
        return cache_key("collect", mllm=mllm, prompts=prompts, arguments={**arguments, **changed})

    reference = key()
    assert key() == reference
    assert key(prompts=(replace(prompt, id="renamed"),)) == reference, "a label changes no state"
    other_template = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    template = other_template / "chat_template.jinja"
    template.write_text(template.read_text().replace("<assistant>", "<eos>"))
    keys = [
        reference,
        key(other_tiny),
        key(load(tiny_folder, dtype="bfloat16", device="cpu")),
        key(load(other_template, device="cpu")),
        key(replace(tiny, add_generation_prompt=False)),
        key(prompts=(replace(prompt, text="what is that ?"),)),
        key(prompts=(prompt, prompt)),
        key(sites=["resid_pre(1)"]),
        key(batch_size=3),
        cache_key("answer_states", mllm=tiny, prompts=(prompt,), arguments=arguments),
    ]
    other_pixels = load(tiny_folder, device="cpu")
    other_pixels.processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    keys.append(key(other_pixels))  # the same files: set after loading
    Image.new("RGB", (SIDE, SIDE), "blue").save(picture)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_sites_may_repeat(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    sites: list[Site] = [final_norm(), resid_pre(1), final_norm()]
    states = collect(tiny, mixed_prompts, sites=sites)
    assert torch.equal(states[:, 0], states[:, 2])
