"""Qwen2.5-VL and Qwen3-VL: pictures of any size, positions in three dimensions (time, row, column)."""

from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from autosteer_lib.rehearsal.tiny_models.parts import LAYERS, WIDTH, build_tokenizer, save, text_sizes

# <|im_start|>user\n <|vision_start|><|image_pad|><|vision_end|> words <|im_end|>\n<|im_start|>assistant\n
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}{{ '<|vision_start|><|' + part['type'] + '_pad|><|vision_end|>' }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NAMES = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
PIXELS = {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
PATCHES: dict[str, Any] = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2, "size": PIXELS}


def build_qwen2_5_vl(folder: Path, *, seed: int) -> Path:
    """A token for 16 × 16 pixels of a picture or of two frames."""
    tokenizer = _tokenizer()
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**PATCHES),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**PATCHES),
        chat_template=TEMPLATE,
    )
    config = Qwen2_5_VLConfig(
        vision_config={
            **vision_sizes(),
            "window_size": 32,
            "fullatt_block_indexes": [1, 3],
            "intermediate_size": 32,
        },
        text_config={**text_sizes(tokenizer), "rope_parameters": rope(interleaved=False)},
        **token_ids(tokenizer),
    )
    return save(
        folder, model_class=Qwen2_5_VLForConditionalGeneration, config=config, processor=processor, seed=seed
    )


def build_qwen3_vl(folder: Path, *, seed: int) -> Path:
    """As before, with states of inner blocks of the tower added in the decoder's first blocks."""
    tokenizer = _tokenizer()
    config = Qwen3VLConfig(
        vision_config={**vision_sizes(), "num_position_embeddings": 16, "deepstack_visual_indexes": [1, 3]},
        text_config={**text_sizes(tokenizer), "head_dim": 8, "rope_parameters": rope(interleaved=True)},
        **token_ids(tokenizer),
    )
    return save(
        folder,
        model_class=Qwen3VLForConditionalGeneration,
        config=config,
        processor=qwen3_processor(tokenizer, template=TEMPLATE),
        seed=seed,
    )


def qwen3_processor(tokenizer: PreTrainedTokenizerFast, *, template: str) -> Qwen3VLProcessor:
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**PATCHES),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(
            **{**PATCHES, "size": {"shortest_edge": 16 * 16, "longest_edge": 6 * 32 * 32}},
            cap_pixels_per_frame=False,
        ),
        chat_template=template,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(
        special=("<|im_start|>", "<|im_end|>", *NAMES.values()),
        words=("user", "assistant"),
        names=NAMES,
        eos_token="<|im_end|>",
    )


def token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
        "tie_word_embeddings": False,
    }


def vision_sizes() -> dict[str, Any]:
    return {
        "depth": LAYERS + 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 8,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": WIDTH,
        "initializer_range": 0.15,
    }


def rope(*, interleaved: bool) -> dict[str, Any]:
    """Of each head's 8 numbers, taken by pairs, two pairs turn with time, one with the row, one with the column."""
    order = {"mrope_interleaved": True} if interleaved else {}
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], **order}
