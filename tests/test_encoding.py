"""Prompts become left-padded tensors, and the last prompt token is the one that is meant."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from autosteer_lib.encoding import (
    batches,
    check_batch_size,
    check_prompts,
    encode,
    visual_token_ids,
)
from autosteer_lib.forced_answer import answer_header, check_answer
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.tiny_models import SIDE

PICTURE = Image.new("RGB", (SIDE, SIDE), "red")


def words(mllm: MLLM, row: torch.Tensor) -> list[str]:
    return list(mllm.tokenizer.convert_ids_to_tokens(row.tolist()))


def test_the_probed_token_is_pinned(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    """The template decides which token a prober reads; a change of it must not go unseen."""
    with_header = encode(tiny, mixed_prompts).inputs["input_ids"][:, -1]
    assert set(words(tiny, with_header)) == {"<assistant>"}
    without = replace(tiny, add_generation_prompt=False)
    bare = encode(without, mixed_prompts[:1]).inputs["input_ids"][0]
    assert words(tiny, bare) == ["<user>", "make", "a", "sun"]


def test_rows_are_padded_on_the_left(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    encoded = encode(tiny, mixed_prompts)
    mask = encoded.inputs["attention_mask"]
    assert mask[:, -1].all()
    assert (mask.diff(dim=1) >= 0).all(), "once a row has begun it has no gap"
    assert tuple(mask.sum(dim=1).tolist()) == encoded.lengths


def test_pictures_stand_before_the_words(tiny: MLLM) -> None:
    encoded = encode(tiny, [Prompt(text="what is this ?", images=(PICTURE,))])
    row = words(tiny, encoded.inputs["input_ids"][0])
    assert row == ["<user>", *["<image>"] * 36, "what", "is", "this", "?", "<assistant>"]


def test_every_frame_of_a_clip_is_shown(tiny: MLLM) -> None:
    clip = np.zeros((4, SIDE, SIDE, 3), dtype=np.uint8)
    encoded = encode(tiny, [Prompt(text="what ?", videos=(clip,))])
    assert encoded.inputs["pixel_values_videos"].shape[:2] == (1, 4)
    assert words(tiny, encoded.inputs["input_ids"][0]).count("<video>") == 17


def test_visual_tokens_are_those_of_the_processor(tiny: MLLM) -> None:
    assert words(tiny, torch.tensor(visual_token_ids(tiny))) == ["<image>", "<video>"]


def test_a_forced_answer_stands_at_the_right_of_every_row(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    plain, forced = encode(tiny, mixed_prompts), encode(tiny, mixed_prompts, answer="sorry i cannot")
    assert forced.answer_tokens == 4
    assert forced.lengths == plain.lengths
    assert torch.equal(forced.inputs["input_ids"][:, :-4], plain.inputs["input_ids"])
    for row in forced.inputs["input_ids"]:
        assert words(tiny, row[-5:]) == ["<assistant>", "sorry", "i", "cannot", "<eos>"]
    assert forced.inputs["attention_mask"][:, -4:].all()


def test_without_the_header_a_forced_answer_brings_it(tiny: MLLM) -> None:
    bare = replace(tiny, add_generation_prompt=False)
    assert answer_header(bare).strip() == "<assistant>"
    forced = encode(bare, [Prompt(text="make a sun")], answer="sorry")
    row = words(tiny, forced.inputs["input_ids"][0])
    assert row == ["<user>", "make", "a", "sun", "<assistant>", "sorry", "<eos>"]


def test_an_empty_answer_is_refused(tiny: MLLM) -> None:
    with pytest.raises(ValueError, match=r"answer=' ' is empty"):
        encode(tiny, [Prompt(text="make a sun")], answer=" ")


def test_a_prompt_that_is_too_long_is_named(tiny: MLLM) -> None:
    prompts = [Prompt(id="fine", text="a sun"), Prompt(id="endless", text="sun " * 200)]
    with pytest.raises(ValueError, match=r"prompt 'endless' has 202 tokens, more than the 128 of tiny's"):
        encode(tiny, prompts)


def test_a_forced_answer_counts_for_the_length(tiny: MLLM) -> None:
    prompt = Prompt(id="full", text="sun " * 126)
    assert encode(tiny, [prompt]).lengths == (128,)
    with pytest.raises(ValueError, match=r"'full' has 128 tokens and 2 of the forced answer"):
        encode(tiny, [prompt], answer="sorry")


def test_a_placeholder_in_the_words_is_refused(tiny: MLLM) -> None:
    with pytest.raises(ValueError, match=r"prompt 'trick': its text contains '<image>', the placeholder"):
        encode(tiny, [Prompt(id="trick", text="what is <image> ?", images=(PICTURE,))])


def test_clips_of_different_length_need_batches(tiny: MLLM) -> None:
    prompts = [
        Prompt(id=f"{n}", text="?", videos=(np.zeros((n, SIDE, SIDE, 3), dtype=np.uint8),)) for n in (2, 4, 2)
    ]
    with pytest.raises(ValueError, match=r"2 frames in '2', 4 frames in '4'.*use batches\(\)"):
        encode(tiny, prompts)
    assert [rows for rows, _ in batches(tiny, prompts, batch_size=8)] == [[0, 2], [1]]


def test_nothing_to_encode(tiny: MLLM) -> None:
    with pytest.raises(ValueError, match=r"nothing to encode"):
        encode(tiny, [])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_batches_hold_each_prompt_once(tiny: MLLM, mixed_prompts: list[Prompt], batch_size: int) -> None:
    found: list[int] = []
    for rows, encoded in batches(tiny, mixed_prompts, batch_size=batch_size):
        assert [prompt.id for prompt in encoded.prompts] == [mixed_prompts[row].id for row in rows]
        assert len(rows) <= batch_size
        found += rows
    assert sorted(found) == list(range(len(mixed_prompts)))


def test_batches_of_no_size(tiny: MLLM, mixed_prompts: list[Prompt]) -> None:
    with pytest.raises(ValueError, match=r"batch_size=0; give at least 1"):
        list(batches(tiny, mixed_prompts, batch_size=0))


def test_every_prompt_is_held_against_the_model_before_any_is_encoded(tiny: MLLM, tmp_path: Path) -> None:
    fine = Prompt(id="fine", text="make a sun")
    for prompt, told in (
        (Prompt(id="p", text="a <image>"), "its text contains '<image>'"),
        (Prompt(id="p", text="a", images=(tmp_path / "lost.png",)), "does not exist"),
    ):
        with pytest.raises(ValueError, match=f"prompt 'p'.*{told}"):
            check_prompts(tiny, [fine, prompt])
    assert check_prompts(tiny, [fine]) == (fine,)


@pytest.mark.usefixtures("as_a_user")
def test_a_name_in_place_of_the_model_is_named() -> None:
    with pytest.raises(
        TypeError, match=r"mllm is 'tiny', of type str; give the model that load\(…\) returned"
    ):
        check_prompts(cast(Any, "tiny"), [])


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("answer", [None, ["i am sorry"]])
def test_an_answer_is_one_string(answer: Any) -> None:
    with pytest.raises(TypeError, match=r"refusal_text is .*; give the words as one string"):
        check_answer(answer, name="refusal_text")


@pytest.mark.usefixtures("as_a_user")
def test_a_batch_size_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match=r"batch_size is 2\.5, of type float"):
        check_batch_size(cast(Any, 2.5))
