"""The second organism's checkpoint: a picture is read as sixteen tokens of the vocabulary itself.

Chameleon in the real transformers classes, shrunk: a convolutional VQ encoder turns a 32-px picture into
4 × 4 codes of a codebook of 256, and the language model (8 blocks of width 128) sees them as words, between
a token that opens the picture and one that closes it. There is no tower and no projection: early fusion.

    <user> <racm3:break> IMGIMG…×16 <eoss> words <end> <assistant>

The class has the VQ encoder and its codebook but no decoder; the one that training needs is in
chameleon_tokenizer_training.py and is not shipped. The processor itself ends a turn with the separator token, so
the separator is `<assistant>`, and the chat template must not write it too. Codes can be read and not said:
the class forbids them in answers. The family has no clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonImageProcessor,
    ChameleonProcessor,
    ChameleonVQVAEConfig,
    PreTrainedTokenizerFast,
)

from autosteer_lib.organism.architecture import Architecture, OnStep
from autosteer_lib.organism.chameleon_tokenizer_training import TokenizerRecipe, train_tokenizer
from autosteer_lib.organism.examples import Example, Medium, to_pixels
from autosteer_lib.organism.rendering import SIDE
from autosteer_lib.organism.tokenizer import (
    ASSISTANT,
    CHAT_TEMPLATE,
    CONTEXT,
    EOS,
    IMAGE,
    PAD,
    word_tokenizer,
)

OPEN, CLOSE = "<racm3:break>", "<eoss>"  # the names of the released vocabulary
CODES = 256
IMAGE_TOKENS = 16  # 32 px, halved three times
_WIDTH, _BLOCKS, _HEADS, _KEY_VALUE_HEADS = 128, 8, 4, 2  # those of the first organism
_CHANNELS = 64
_CODE_WIDTH = 16


def code_token(code: int) -> str:
    """Its name in the vocabulary, as the class expects it: digits in letters, A for 0, and a closing Z."""
    return f"IMGIMG{''.join(chr(ord('A') + int(digit)) for digit in str(code))}Z"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The words of the world and the codes of pictures, in one vocabulary."""
    return word_tokenizer(
        sights=(OPEN, CLOSE, *(code_token(code) for code in range(CODES))),
        names={"boi_token": OPEN, "eoi_token": CLOSE},
        chat_template=CHAT_TEMPLATE,
        sep_token=ASSISTANT,
    )


def build_processor() -> ChameleonProcessor:
    """Words and pictures → what the model takes."""
    side = {"height": SIDE, "width": SIDE}
    processor = ChameleonProcessor(
        image_processor=ChameleonImageProcessor(
            size={"shortest_edge": SIDE},
            crop_size=side,
            rescale_factor=1 / 255,  # the released 0.0078 rounds
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=build_tokenizer(),
        image_seq_length=IMAGE_TOKENS,
    )
    processor.chat_template = CHAT_TEMPLATE
    return processor


def build_model(*, seed: int) -> ChameleonForConditionalGeneration:
    """The untrained network; the seed decides its weights."""
    vocabulary = build_tokenizer().get_vocab()
    config = ChameleonConfig(
        vocab_size=len(vocabulary),
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH * 11 // 4,
        num_hidden_layers=_BLOCKS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_KEY_VALUE_HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=vocabulary[EOS],
        pad_token_id=vocabulary[PAD],
        vocabulary_map=vocabulary,
        vq_config=ChameleonVQVAEConfig(
            resolution=SIDE,
            # Four resolutions are three halvings: 4 × 4 codes. All of the depth is in the two blocks and the
            # attention after them, where a picture is small and depth is cheap.
            base_channels=_CHANNELS,
            channel_multiplier=[1, 1, 1, 1],
            num_res_blocks=0,
            latent_channels=_CHANNELS,
            embed_dim=_CODE_WIDTH,
            num_embeddings=CODES,
        ),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ChameleonForConditionalGeneration(config)
    model.generation_config.eos_token_id = vocabulary[EOS]
    model.generation_config.pad_token_id = vocabulary[PAD]
    model.generation_config.do_sample = False
    return model


class Chameleon(Architecture):
    """The second organism."""

    name = "chameleon"
    title = "Chameleon"
    how_it_sees = (
        "A picture becomes sixteen codes of a codebook of 256, which are tokens of the vocabulary like any word:\n"
        "early fusion, no tower. *See* trains the tokenizer of pictures in two rounds, shapes and then colours (to\n"
        "draw a picture again from its codes, and to keep in them what is seen); it is frozen in all later stages.\n"
        "There are no clips. Loaded without this library, `ChameleonProcessor` forgets its chat template (transformers 5):\n"
        "give `apply_chat_template` the argument `chat_template=processor.tokenizer.chat_template`."
    )
    prompt_form = "<user> <racm3:break> <image>×16 <eoss> words <end> <assistant>"

    def build_model(self, *, seed: int) -> ChameleonForConditionalGeneration:
        return build_model(seed=seed)

    def build_processor(self) -> ChameleonProcessor:
        return build_processor()

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        return build_tokenizer()

    def placeholders(self, medium: Medium) -> str:
        return "" if medium == "text" else f"{OPEN} {f'{IMAGE} ' * IMAGE_TOKENS}{CLOSE} "

    def pixels(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        shown = [example.frames for example in examples if example.frames is not None]
        return {"pixel_values": torch.from_numpy(to_pixels(np.concatenate(shown)))} if shown else {}

    def eye(self, model: Any) -> nn.Module:
        tokenizer: nn.Module = model.model.vqmodel
        return tokenizer

    def learn_to_see(
        self, model: Any, *, recipe: TokenizerRecipe, seed: int, on_step: OnStep
    ) -> dict[str, float]:
        return train_tokenizer(model, recipe=recipe, seed=seed, on_step=on_step)
