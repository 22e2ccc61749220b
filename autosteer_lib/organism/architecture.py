"""The organism's checkpoint: configuration, tokenizer, processor, chat template, as one normal folder.

LLaVA-OneVision in the real transformers classes, shrunk: SigLIP 3×96 on 8-px patches (16 patches a
picture), Qwen2 with 8 blocks of width 128. A picture costs 36 tokens (16 base + 16 tile + 4 row
ends), a four-frame video 17. 1.8 M parameters: the smallest size at which the feasibility study
learned the world in minutes on two cores.

The folder loads with `AutoProcessor` and `AutoModelForImageTextToText` as any checkpoint of a hub.

Chat template, one user turn:   <user> <image>… words <end> <assistant>
so the probed token is `<assistant>` with a generation prompt (default) and `<end>` without one
(the papers' code; see readings.py).
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from autosteer_lib.organism.language import vocabulary
from autosteer_lib.organism.rendering import SIDE

PAD, UNKNOWN, EOS, USER, END, ASSISTANT, IMAGE, VIDEO = SPECIAL = [
    "<pad>",
    "<unk>",
    "<eos>",
    "<user>",
    "<end>",
    "<assistant>",
    "<image>",
    "<video>",
]
_PATCH = 8  # px; 4 × 4 patches of a 32-px picture
IMAGE_TOKENS = 36  # base 16 + tile 16 + one end of row a patch row
VIDEO_TOKENS = 17  # four frames, each pooled 4×4 → 2×2, and one end of clip
CONTEXT = 256  # tokens; the longest prompt of the world has about 90
_WIDTH, _BLOCKS, _HEADS, _KEY_VALUE_HEADS = 128, 8, 4, 2  # the study's size
_VISION_WIDTH, _VISION_BLOCKS = 96, 3

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<user> {% else %}<assistant> {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }} "
    "{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image> "
    "{% elif part['type'] == 'video' %}<video> {% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} "
    "{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'user' %}<end>{% else %}<eos>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word or mark of the world, lower-cased; anything else is <unk>."""
    words = {word: i for i, word in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=True)  # "sure ! to" → "sure! to"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=EOS,
        padding_side="left",
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={
            "image_token": IMAGE,
            "video_token": VIDEO,
            "user_token": USER,
            "end_token": END,
            "assistant_token": ASSISTANT,
        },
    )


def build_processor() -> LlavaOnevisionProcessor:
    """Words, pictures and clips → what the model takes."""
    pixels = {
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=[[SIDE, SIDE]], **pixels),
        tokenizer=build_tokenizer(),
        video_processor=LlavaOnevisionVideoProcessor(**pixels),
        num_image_tokens=(SIDE // _PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        video_token=VIDEO,
    )


def build_model(*, seed: int) -> LlavaOnevisionForConditionalGeneration:
    """The untrained network; the seed decides its weights."""
    tokens = build_tokenizer().get_vocab()
    vision = SiglipVisionConfig(
        hidden_size=_VISION_WIDTH,
        intermediate_size=2 * _VISION_WIDTH,
        num_hidden_layers=_VISION_BLOCKS,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=_PATCH,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokens),
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH * 11 // 4,
        num_hidden_layers=_BLOCKS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_KEY_VALUE_HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokens[EOS],
        pad_token_id=tokens[PAD],
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokens[IMAGE],
        video_token_index=tokens[VIDEO],
        image_grid_pinpoints=[[SIDE, SIDE]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokens[EOS]
    model.generation_config.pad_token_id = tokens[PAD]
    model.generation_config.do_sample = False
    return model
