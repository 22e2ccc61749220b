"""What is pinned for each family by name: the probed token, the decoder that was found, and what it can see."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autosteer_lib.encoding import batches, encode, visual_token_ids
from autosteer_lib.families import ONE_KIND_OF_SIGHT
from autosteer_lib.forced_answer import answer_header
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.tiny_models import BUILDERS
from autosteer_lib.sites import attach, final_norm

pytestmark = pytest.mark.battery

# The end of a prompt with the assistant's header, the last of which is probed, and without it.
ENDS = {
    "chameleon": (("sun", "<reserved08706>"), ("a", "sun")),
    "gemma3": (("<start_of_turn>", "model", "\n"), ("sun", "<end_of_turn>", "\n")),
    "internvl": (("<|im_start|>", "assistant", "\n"), ("sun", "<|im_end|>", "\n")),
    "llava": (("ASSISTANT", ":"), ("a", "sun")),
    "llava_next_video": (("ASSISTANT", ":"), ("a", "sun")),
    "llava_onevision": (("sun", "<assistant>"), ("a", "sun")),
    "molmo2": (("<|im_start|>", "assistant", "\n"), ("sun", "<|im_end|>", "\n")),
    "qwen2_5_vl": (("<|im_start|>", "assistant", "\n"), ("sun", "<|im_end|>", "\n")),
    "qwen3_5": (("assistant", "Ċ", "<think>", "Ċ"), ("Ġsun", "<|im_end|>", "Ċ")),
    "qwen3_vl": (("<|im_start|>", "assistant", "\n"), ("sun", "<|im_end|>", "\n")),
    "smolvlm": (("<end_of_utterance>", "\n", "Assistant", ":"), ("sun", "<end_of_utterance>", "\n")),
}
# Told to leave out its thought: closed before it begins.
WITHOUT_THOUGHT = ("assistant", "Ċ", "<think>", "Ċ", "Ċ", "</think>", "Ċ", "Ċ")
WITH_VIDEO = {
    "internvl", "llava_next_video", "llava_onevision", "molmo2", "qwen2_5_vl", "qwen3_5", "qwen3_vl", "smolvlm",
}  # fmt: skip
SUN = Prompt(id="sun", text="make a sun")


def tokens(mllm: MLLM, ids: Tensor) -> tuple[str, ...]:
    return tuple(mllm.tokenizer.convert_ids_to_tokens(ids.tolist()))


def without_header(mllm: MLLM) -> MLLM:
    return replace(mllm, add_generation_prompt=False)


def test_every_family_is_pinned() -> None:
    assert ENDS.keys() == BUILDERS.keys()
    assert BUILDERS.keys() > WITH_VIDEO
    assert ONE_KIND_OF_SIGHT.keys() <= WITH_VIDEO


def test_the_probed_token_is_pinned(family_name: str, family: MLLM, family_prompts: list[Prompt]) -> None:
    """The template decides which token a prober reads; a change of it must not go unseen."""
    opened, closed = ENDS[family_name]
    for mllm, end in ((family, opened), (without_header(family), closed)):
        row = encode(mllm, [SUN]).inputs["input_ids"][0]
        assert tokens(mllm, row[-len(end) :]) == end
        lasts = encode(mllm, family_prompts).inputs["input_ids"][:, -1]
        if mllm.add_generation_prompt:
            assert set(tokens(mllm, lasts)) == {end[-1]}


def test_one_family_alone_can_be_told_not_to_think(family_name: str, family: MLLM) -> None:
    assert family.origin is not None
    told = replace(family.origin, template_options={"enable_thinking": False})
    if family_name != "qwen3_5":
        with pytest.raises(ValueError, match="does not read template_options 'enable_thinking'"):
            told.load()
        return
    row = encode(told.load(), [SUN]).inputs["input_ids"][0]
    assert tokens(family, row[-len(WITHOUT_THOUGHT) :]) == WITHOUT_THOUGHT


def test_rows_are_padded_on_the_left(family: MLLM, family_prompts: list[Prompt]) -> None:
    encoded = encode(family, family_prompts)
    mask = encoded.inputs["attention_mask"]
    assert mask[:, -1].all()
    assert (mask.diff(dim=1) >= 0).all(), "once a row has begun it has no gap"
    assert tuple(mask.sum(dim=1).tolist()) == encoded.lengths


def test_a_forced_answer_brings_the_header_that_the_prompt_leaves_out(
    family: MLLM, family_prompts: list[Prompt]
) -> None:
    """Whoever writes the header, template or processor: with it or without, the whole is the same."""
    whole = encode(family, family_prompts, answer="sorry i cannot")
    bare = encode(without_header(family), family_prompts, answer="sorry i cannot")
    assert len(whole.answer_ids) < len(bare.answer_ids)
    for key in ("input_ids", "attention_mask"):
        assert torch.equal(whole.inputs[key], bare.inputs[key])
    assert answer_header(without_header(family)).strip()


def test_a_forced_answer_ends_as_the_template_ends_a_turn(
    family_name: str, family: MLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3's checkpoints list <eos> first, with which none of its turns ends."""
    turn_end = family.tokenizer.eos_token_id
    assert encode(family, [SUN], answer="sorry").answer_ids[-1] == turn_end
    monkeypatch.setattr(
        family.model.generation_config, "eos_token_id", [family.tokenizer.pad_token_id, turn_end]
    )
    # These two templates write no end after an answer: the first of the list is taken.
    silent = family_name in ("chameleon", "llava_onevision")
    expected = family.tokenizer.pad_token_id if silent else turn_end
    assert encode(family, [SUN], answer="sorry").answer_ids[-1] == expected


def test_pictures_stand_before_the_words(family: MLLM, sights: Any) -> None:
    prompt = Prompt(text="what is this ?", images=(sights.picture(),))
    row = encode(family, [prompt]).inputs["input_ids"][0]
    visual = torch.isin(row, torch.tensor(visual_token_ids(family))).nonzero().flatten()
    assert len(visual) >= 4
    after = tokens(family, row[int(visual[-1]) + 1 :])
    assert [word.strip("Ġ") for word in after if word.strip("Ġ") in ("what", "is", "this", "?")] == [
        "what",
        "is",
        "this",
        "?",
    ]


def test_pixels_change_the_answer(family: MLLM, sights: Any) -> None:
    """Without this, all that the battery says of pictures would be said of a blind model."""
    pairs = [[Prompt(text="what ?", images=(sights.picture(),)) for _ in range(2)]]
    if family.sees_videos:
        pairs.append([Prompt(text="what ?", videos=(sights.clip(),)) for _ in range(2)])
    for pair in pairs:
        one, other = (encode(family, [prompt]).inputs for prompt in pair)
        assert torch.equal(one["input_ids"], other["input_ids"])
        difference = family.forward(one).logits - family.forward(other).logits
        assert difference.abs().max() > 1e-2  # a thousand times what the battery tolerates


def test_the_decoder_is_found(family_name: str, family: MLLM) -> None:
    assert (family.layers, family.dim) == (4, 32)
    deeper = [
        module
        for module in family.model.modules()
        if isinstance(module, nn.ModuleList) and len(module) > family.layers
    ]
    # Early fusion has no tower of blocks; its VQ encoder holds a list of the decoder's very length instead.
    assert bool(deeper) is (family_name != "chameleon")
    rivals = [m for m in family.model.modules() if isinstance(m, nn.ModuleList) and len(m) == family.layers]
    assert (len(rivals) > 1) is (family_name == "chameleon")


def test_final_norm_then_unembedding_gives_the_logits(family: MLLM, family_prompts: list[Prompt]) -> None:
    """What was found is what the model computes its answer with."""
    seen: list[Tensor] = []
    with attach(family, {final_norm(): lambda hidden: seen.append(hidden)}):
        actual = family.forward(encode(family, family_prompts).inputs).logits[:, -1]
    expected = seen[0][:, -1] @ family.unembedding.T
    allowed = actual > torch.finfo(actual.dtype).min  # Chameleon forbids itself to answer in pictures
    assert allowed.any(dim=1).all()
    torch.testing.assert_close(actual[allowed], expected[allowed], rtol=1e-5, atol=1e-5)


def test_what_a_block_returns(family_name: str, family: MLLM) -> None:
    """Both kinds are among the families, so the battery tries both."""
    outputs: list[object] = []
    handle = family.blocks[0].register_forward_hook(lambda _m, _a, output: outputs.append(output))
    family.forward(encode(family, [SUN]).inputs)
    handle.remove()
    assert isinstance(outputs[0], tuple if family_name == "chameleon" else Tensor)


def test_what_a_family_sees(family_name: str, family: MLLM) -> None:
    assert family.sees_images
    assert family.sees_videos is (family_name in WITH_VIDEO)


def test_a_clip_for_a_family_without_video(family_name: str, family: MLLM, sights: Any) -> None:
    film = Prompt(id="film", text="what ?", videos=(sights.clip(),))
    if family.sees_videos:
        shown = encode(family, [film])
        visual = torch.isin(shown.inputs["input_ids"], torch.tensor(visual_token_ids(family)))
        assert visual.sum() >= 4
        return
    with pytest.raises(
        ValueError, match=rf"'film' has a clip, and .*{family_name} \(.*give frames of it as imag"
    ):
        encode(family, [film])


def test_a_picture_for_a_model_without_pictures(family: MLLM, sights: Any) -> None:
    blind = replace(
        family,
        processor=SimpleNamespace(tokenizer=family.tokenizer, **placeholders(family), image_processor=None),
    )
    with pytest.raises(
        ValueError, match=r"'seen' has a picture, and .* has no image processor; leave images= out"
    ):
        encode(blind, [Prompt(id="seen", text="what ?", images=(sights.picture(),))])


def placeholders(mllm: MLLM) -> dict[str, object]:
    names = ("all_special_multimodal_tokens", "image_token_ids", "video_token_ids")
    return {name: getattr(mllm.processor, name) for name in names}


def test_families_that_take_one_kind_at_a_time(family_name: str, family: MLLM, sights: Any) -> None:
    picture, clip = (sights.picture(),), (sights.clip(),)
    both = [Prompt(id="both", text="what ?", images=picture, videos=clip)]
    beside = [Prompt(id="a", text="what ?", images=picture), Prompt(id="b", text="what ?", videos=clip), SUN]
    if family_name not in ONE_KIND_OF_SIGHT:
        if family.sees_videos:
            assert [len(encode(family, prompts).lengths) for prompts in (both, beside)] == [1, 3]
        return
    with pytest.raises(
        ValueError, match=r"'both' has a picture and a clip.*takes one kind at a time.*leave one"
    ):
        encode(family, both)
    with pytest.raises(ValueError, match=r"pictures and clips cannot share a batch of.*use batches\(\)"):
        encode(family, beside)
    assert sorted(index for rows, _ in batches(family, beside, batch_size=8) for index in rows) == [0, 1, 2]


def test_a_placeholder_in_the_words_is_refused(family: MLLM) -> None:
    for token in tokens(family, torch.tensor(visual_token_ids(family))):
        with pytest.raises(ValueError, match=r"prompt 'trick': its text contains .*the placeholder"):
            encode(family, [Prompt(id="trick", text=f"what is {token} ?")])


def test_what_the_processor_refuses_is_passed_on_with_the_prompt(
    family_name: str, family: MLLM, sights: Any
) -> None:
    """Qwen3-VL's processor, which Qwen3.5 shares, cannot take a clip of one frame."""
    if family_name not in ("qwen3_vl", "qwen3_5"):
        assert not family.sees_videos or one_frame(family, sights) >= 1
        return
    with pytest.raises(
        ValueError, match=r"Qwen3VLProcessor of .* cannot encode the prompts 'still' \(.*one by one"
    ):
        one_frame(family, sights)


def one_frame(family: MLLM, sights: Any) -> int:
    still = Prompt(id="still", text="what ?", videos=(sights.clip(1),))
    row = encode(family, [still]).inputs["input_ids"]
    return int(torch.isin(row, torch.tensor(visual_token_ids(family))).sum())


@pytest.mark.parametrize("kept", ["chat_template.jinja", None])
def test_chameleon_needs_no_template_of_its_own(kept: str | None, tmp_path: Path) -> None:
    """The released checkpoints have none; and the processor does not read the one that saving it wrote."""
    folder = BUILDERS["chameleon"](tmp_path / "chameleon", seed=0)
    if kept is None:
        (folder / "chat_template.jinja").unlink()
    mllm = load(folder, device="cpu")
    assert text_of(mllm, [SUN]) == ["<s>", "make", "a", "sun", "<reserved08706>"]


def text_of(mllm: MLLM, prompts: Sequence[Prompt]) -> list[str]:
    return list(tokens(mllm, encode(mllm, prompts).inputs["input_ids"][0]))


def test_another_family_without_a_template_is_an_error(tmp_path: Path) -> None:
    folder = BUILDERS["llava"](tmp_path / "llava", seed=0)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"has no chat template"):
        load(shutil.copytree(folder, tmp_path / "copy"), device="cpu")
