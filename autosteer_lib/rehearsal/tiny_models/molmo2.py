"""Molmo2: tower, pooling by attention, decoder; a picture is seen whole and in overlapping crops."""

from pathlib import Path

from transformers import (
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2VideoProcessor,
)

from autosteer_lib.rehearsal.tiny_models.parts import LAYERS, SIDE, WIDTH, build_tokenizer, save, text_sizes

# <|im_start|>user\n <|image|> words <|im_end|>\n<|im_start|>assistant\n
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<|' + part['type'] + '|>' }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VISUAL = (
    "<im_patch>",
    "<im_col>",
    "<im_start>",
    "<low_res_im_start>",
    "<frame_start>",
    "<im_end>",
    "<frame_end>",
    "<im_low>",
)


def build_molmo2(folder: Path, *, seed: int) -> Path:
    """4 tokens a frame; a picture has 4 for the whole and as many for each crop, and marks between rows."""
    names = {"image_token": "<|image|>", "video_token": "<|video|>"}
    tokenizer = build_tokenizer(
        special=("<|im_start|>", "<|im_end|>", *names.values(), *VISUAL),
        words=("user", "assistant"),
        names=names,
        bos_token="<|im_end|>",
        eos_token="<|im_end|>",
    )
    ids = tokenizer.convert_tokens_to_ids
    size = {"height": SIDE, "width": SIDE}
    processor = Molmo2Processor(
        image_processor=Molmo2ImageProcessor(
            size=size, patch_size=8, pooling_size=[2, 2], max_crops=2, overlap_margins=[1, 1]
        ),
        video_processor=Molmo2VideoProcessor(size=size, patch_size=8, pooling_size=[2, 2]),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
    )
    config = Molmo2Config(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": LAYERS + 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "image_size": [SIDE, SIDE],
            "patch_size": 8,
            "initializer_range": 0.15,
        },
        adapter_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vision_feature_layer": [-1, -3],
            "text_hidden_size": WIDTH,
            "initializer_range": 0.15,
        },
        text_config={**text_sizes(tokenizer), "head_dim": 8, "additional_vocab_size": 0},
        image_start_token_id=ids("<im_start>"),
        low_res_image_start_token_id=ids("<low_res_im_start>"),
        image_end_token_id=ids("<im_end>"),
        image_patch_id=ids("<im_patch>"),
        frame_start_token_id=ids("<frame_start>"),
        frame_end_token_id=ids("<frame_end>"),
        tie_word_embeddings=False,
    )
    return save(
        folder, model_class=Molmo2ForConditionalGeneration, config=config, processor=processor, seed=seed
    )
