"""LLaVA-1.5 and LLaVA-NeXT-Video: CLIP (deeper than the decoder) + Llama, prompted as Vicuna is."""

from pathlib import Path

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from autosteer_lib.rehearsal.tiny_models.parts import LAYERS, SIDE, build_tokenizer, save, text_sizes

# USER: <image>\n words ASSISTANT:
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% else %}{{ '<' + part['type'] + '>\n' }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SIZE = {"height": SIDE, "width": SIDE}


def build_llava(folder: Path, *, seed: int) -> Path:
    """16 tokens a picture: CLIP's own first token is left out."""
    tokenizer = _tokenizer("<image>")
    processor = LlavaProcessor(
        image_processor=LlavaImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=_vision(),
        text_config=LlamaConfig(**text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    return save(
        folder, model_class=LlavaForConditionalGeneration, config=config, processor=processor, seed=seed
    )


def build_llava_next_video(folder: Path, *, seed: int) -> Path:
    """A picture is seen whole and cut up; a frame of a clip is pooled to 4 tokens."""
    tokenizer = _tokenizer("<image>", "<video>")
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE),
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=SIZE, image_grid_pinpoints=pinpoints
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config = LlavaNextVideoConfig(
        vision_config=_vision(),
        text_config=LlamaConfig(**text_sizes(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    return save(
        folder,
        model_class=LlavaNextVideoForConditionalGeneration,
        config=config,
        processor=processor,
        seed=seed,
    )


def _tokenizer(*visual: str) -> PreTrainedTokenizerFast:
    return build_tokenizer(
        special=("<s>", "</s>", *visual),
        words=("USER", "ASSISTANT"),
        names={f"{token.strip('<>')}_token": token for token in visual},
        bos_token="<s>",
        eos_token="</s>",
    )


def _vision() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=LAYERS + 2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
    )
