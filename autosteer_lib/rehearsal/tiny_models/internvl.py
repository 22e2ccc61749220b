"""InternVL 3 and 3.5 as transformers has them: its own tower, Qwen decoder, pictures cut into tiles."""

from pathlib import Path

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    Qwen3Config,
)

from autosteer_lib.rehearsal.tiny_models.parts import LAYERS, SIDE, build_tokenizer, save, text_sizes

# <|im_start|>user\n <IMG_CONTEXT>\n words <|im_end|>\n<|im_start|>assistant\n
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}{{ ('<IMG_CONTEXT>' if part['type'] == 'image' else '<video>') + '\n' }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_internvl(folder: Path, *, seed: int) -> Path:
    """4 tokens a tile and a frame; a picture that is not square is cut into two tiles and seen whole."""
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = build_tokenizer(
        special=("<|im_start|>", "<|im_end|>", *names.values()),
        words=("user", "assistant", "Frame1", "Frame2", "Frame3", "Frame4"),
        names=names,
        eos_token="<|im_end|>",
    )
    size = {"height": SIDE, "width": SIDE}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=2),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=TEMPLATE,
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=LAYERS + 1,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=8,
            initializer_range=0.15,
        ),
        text_config=Qwen3Config(**text_sizes(tokenizer), head_dim=8),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return save(
        folder, model_class=InternVLForConditionalGeneration, config=config, processor=processor, seed=seed
    )
