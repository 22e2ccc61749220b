"""Gemma 3: SigLIP + its own decoder, which sees a picture's tokens from both sides and slides its window."""

from pathlib import Path

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from autosteer_lib.rehearsal.tiny_models.parts import LAYERS, SIDE, build_tokenizer, save, text_sizes

# <bos><start_of_turn>user\n <start_of_image> words <end_of_turn>\n<start_of_turn>model\n
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<start_of_image>' }}{% endif %}"
    "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def build_gemma3(folder: Path, *, seed: int) -> Path:
    """4 tokens a picture, between a token that opens it and one that closes it; one unembedding for both."""
    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = build_tokenizer(
        special=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", *names.values()),
        words=("user", "model"),
        names=names,
        bos_token="<bos>",
        eos_token="<end_of_turn>",
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
        image_seq_length=4,
    )
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=LAYERS + 1,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config=Gemma3TextConfig(
            **{**text_sizes(tokenizer), "tie_word_embeddings": True},
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
        ),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    return save(
        folder,
        model_class=Gemma3ForConditionalGeneration,
        config=config,
        processor=processor,
        seed=seed,
        zeros=["model.multi_modal_projector.mm_input_projection_weight"],
    )
