"""SmolVLM: its SigLIP + Llama; several pictures of a row are padded to the row that has most of them."""

from pathlib import Path

from transformers import (
    LlamaConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    SmolVLMVisionConfig,
)

from autosteer_lib.rehearsal.tiny_models.parts import LAYERS, SIDE, build_tokenizer, save, text_sizes

# <|im_start|>User:<image> words <end_of_utterance>\nAssistant:
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<' + part['type'] + '>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def build_smolvlm(folder: Path, *, seed: int) -> Path:
    """4 tokens a tile and a frame."""
    names = {
        "image_token": "<image>",
        "video_token": "<video>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = build_tokenizer(
        special=("<|im_start|>", *names.values(), *tiles),
        words=("User", "Assistant", "Frame", "from"),
        names=names,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
    )
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(
            size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
        ),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(
            size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, num_frames=4, fps=1
        ),
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    config = SmolVLMConfig(
        vision_config=SmolVLMVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=LAYERS + 1,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=8,
            initializer_range=0.15,
        ),
        text_config=LlamaConfig(**text_sizes(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return save(
        folder, model_class=SmolVLMForConditionalGeneration, config=config, processor=processor, seed=seed
    )
