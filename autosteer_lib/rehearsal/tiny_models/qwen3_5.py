"""Qwen3.5: three blocks of linear attention, one of full attention; byte-level tokens; it thinks first."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from autosteer_lib.rehearsal.tiny_models.parts import CONTEXT, WORDS, save, text_sizes
from autosteer_lib.rehearsal.tiny_models.qwen_vl import (
    NAMES,
    TEMPLATE,
    qwen3_processor,
    rope,
    token_ids,
    vision_sizes,
)

# As released: the assistant's header opens its thought, … <|im_start|>assistant\n<think>\n, or closes it at once.
THINKING_TEMPLATE = TEMPLATE.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% else %}{{ '<think>\n' }}{% endif %}",
)


def build_qwen3_5(folder: Path, *, seed: int) -> Path:
    """Sees as Qwen3-VL does, without what that adds inside the decoder."""
    tokenizer = _tokenizer()
    config = Qwen3_5Config(
        vision_config={**vision_sizes(), "num_position_embeddings": 16},
        text_config={
            **text_sizes(tokenizer),
            "head_dim": 8,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            # Linear attention is computed in chunks in the prefill and recurrently afterwards: sums in another
            # order. Measured over 12 tokens: logits differ by 4e-5 at 0.15 and by 2e-6 at 0.07.
            "initializer_range": 0.07,
            "rope_parameters": {**rope(interleaved=True), "partial_rotary_factor": 1.0},
        },
        **token_ids(tokenizer),
    )
    return save(
        folder,
        model_class=Qwen3_5ForConditionalGeneration,
        config=config,
        processor=qwen3_processor(tokenizer, template=THINKING_TEMPLATE),
        seed=seed,
        # Four heads of random decay can all have forgotten a word by the end of a longer prompt, whose two twins would
        # then have one state. Here a word keeps 0.97 of its weight from token to token.
        filled={"A_log": math.log(0.02)},
    )


def _tokenizer() -> Qwen3_5Tokenizer:
    """This family's own class, which transformers insists on, with merges learned from the few words there are."""
    trained = Qwen3_5Tokenizer().train_new_from_iterator(_texts(), vocab_size=1000, show_progress=False)
    model = json.loads(trained.backend_tokenizer.to_str())["model"]
    tokenizer = Qwen3_5Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        eos_token="<|im_end|>",
        extra_special_tokens=dict(NAMES),
        model_max_length=CONTEXT,
    )
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    # Known to the tokenizer and no special tokens: a thought is part of the answer's text.
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def _texts() -> Iterator[str]:
    for word in (*WORDS, "user", "assistant", "seconds"):
        yield from (word, f" {word}")
