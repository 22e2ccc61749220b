"""LLaVA-OneVision of any size with random weights, in memory: speed does not depend on what is learnt.

    words     w0 w1 w2 …, one token each, so a prompt of n words has n tokens
    picture   square, (p / patch)² base patches, as many of its one tile, one end a tile's row
    turn      <user> <image> words <assistant>

`REAL_7B` has the configuration of llava-hf/llava-onevision-qwen2-7b-ov-hf.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Config,
    SiglipVisionConfig,
)

from autosteer_lib.decoder import find_decoder
from autosteer_lib.models import MLLM
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.prompts import Prompt

SPECIAL = PAD, EOS, UNKNOWN, IMAGE, VIDEO, USER, ASSISTANT = (
    "<pad>",
    "<eos>",
    "<unk>",
    "<image>",
    "<video>",
    "<user>",
    "<assistant>",
)
TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '> ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% else %}{{ '<' + part['type'] + '> ' }}{% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
# The words in which twins differ; all other words of a prompt are drawn from those after them.
_TOXIC_WORD, _SAFE_WORD, _FIRST_WORD = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Size:
    """Width and depth of both towers."""

    blocks: int
    width: int
    hidden: int
    heads: int
    key_value_heads: int
    vocabulary: int
    context: int
    vision_blocks: int
    vision_width: int
    vision_hidden: int
    vision_heads: int
    picture: int
    """Side in pixels."""
    patch: int


TINY = Size(
    blocks=4, width=32, hidden=64, heads=4, key_value_heads=2, vocabulary=128, context=512,
    vision_blocks=2, vision_width=16, vision_hidden=32, vision_heads=2, picture=32, patch=8,
)  # fmt: skip
# 12 blocks of 512: a decoding step of which most is arithmetic, where on the organism most is Python.
MEDIUM = Size(
    blocks=12, width=512, hidden=1408, heads=8, key_value_heads=2, vocabulary=8192, context=2048,
    vision_blocks=4, vision_width=256, vision_hidden=512, vision_heads=4, picture=112, patch=14,
)  # fmt: skip
REAL_7B = Size(
    blocks=28, width=3584, hidden=18944, heads=28, key_value_heads=4,
    vocabulary=152_128,  # Qwen2-7B's 152,064, and the image's and the clip's token, up to a multiple of 64
    context=32_768,
    vision_blocks=26, vision_width=1152, vision_hidden=4304, vision_heads=16, picture=384, patch=14,
)  # fmt: skip


def random_mllm(size: Size, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> MLLM:
    """A model whose weights are drawn on its device."""
    processor = _processor(size)
    config = _config(size, processor.tokenizer)
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=cuda), torch.device(device):
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration._from_config(config, dtype=dtype)
    with torch.no_grad():
        # With a logit of 0 the special tokens never win: no answer ends early or asks for a picture.
        model.lm_head.weight[processor.tokenizer.convert_tokens_to_ids(list(SPECIAL))] = 0.0
    identity = hashlib.sha256(f"random {size} {seed} {dtype}".encode()).hexdigest()
    return assemble(model, processor, name=f"random {size.blocks} × {size.width}", fingerprint=identity)


def assemble(model: PreTrainedModel, processor: ProcessorMixin, *, name: str, fingerprint: str) -> MLLM:
    """What `models.load` makes of a folder, made of parts in memory."""
    model.eval().requires_grad_(False)
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    decoder = find_decoder(model)
    return MLLM(
        model=model,
        processor=processor,
        name=name,
        revision=None,
        blocks=decoder.blocks,
        final_norm=decoder.final_norm,
        lm_head=decoder.lm_head,
        fingerprint=fingerprint,
    )


def prompts(size: Size, *, count: int, words: int, pictures: bool = False, seed: int) -> list[Prompt]:
    """Prompts of `words` random words each, with one random picture each if asked for."""
    rng = np.random.default_rng(seed)
    return [
        Prompt(
            id=str(index),
            text=_text(rng, size, words=words),
            images=(_picture(rng, size),) if pictures else (),
        )
        for index in range(count)
    ]


def pairs(size: Size, *, count: int, words: int, seed: int) -> ContrastPairs:
    """Twins that differ in one word, always the same two."""
    rng = np.random.default_rng(seed)
    toxic: list[Prompt] = []
    safe: list[Prompt] = []
    for index in range(count):
        shared = _text(rng, size, words=words - 1)
        for side, word, harmful in ((toxic, _TOXIC_WORD, True), (safe, _SAFE_WORD, False)):
            text = f"w{word} {shared}"
            side.append(Prompt(id=f"{index}/{word}", text=text, harmful=harmful, pair_id=str(index)))
    return ContrastPairs(tuple(toxic), tuple(safe))


def _text(rng: np.random.Generator, size: Size, *, words: int) -> str:
    drawn = rng.integers(_FIRST_WORD, size.vocabulary - len(SPECIAL), size=words)
    return " ".join(f"w{number}" for number in drawn)


def _picture(rng: np.random.Generator, size: Size) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (size.picture, size.picture, 3), dtype=np.uint8))


def _processor(size: Size) -> LlavaOnevisionProcessor:
    words = (*SPECIAL, *(f"w{number}" for number in range(size.vocabulary - len(SPECIAL))))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pixels = {"size": {"height": size.picture, "width": size.picture}}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            image_grid_pinpoints=[[size.picture, size.picture]], **pixels
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=PAD,
            eos_token=EOS,
            unk_token=UNKNOWN,
            model_max_length=size.context,
            extra_special_tokens={
                "image_token": IMAGE,
                "video_token": VIDEO,
                "user_token": USER,
                "assistant_token": ASSISTANT,
            },
        ),
        video_processor=LlavaOnevisionVideoProcessor(**pixels),
        num_image_tokens=(size.picture // size.patch) ** 2,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )


def _config(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    image, video = tokenizer.convert_tokens_to_ids([IMAGE, VIDEO])
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=size.vision_width,
            intermediate_size=size.vision_hidden,
            num_hidden_layers=size.vision_blocks,
            num_attention_heads=size.vision_heads,
            image_size=size.picture,
            patch_size=size.patch,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.hidden,
            num_hidden_layers=size.blocks,
            num_attention_heads=size.heads,
            num_key_value_heads=size.key_value_heads,
            max_position_embeddings=size.context,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # Qwen2's
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=image,
        video_token_index=video,
        image_grid_pinpoints=[[size.picture, size.picture]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
