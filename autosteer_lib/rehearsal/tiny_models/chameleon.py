"""Chameleon: pictures become tokens of the vocabulary itself, by a convolutional VQ encoder."""

from pathlib import Path

from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonImageProcessor,
    ChameleonProcessor,
    ChameleonVQVAEConfig,
)

from autosteer_lib.rehearsal.tiny_models.parts import SIDE, build_tokenizer, save, text_sizes

CODES = 16
# <s> <image> words: the processor itself ends the turn with the separator <reserved08706>.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ '<reserved08706>' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def build_chameleon(folder: Path, *, seed: int) -> Path:
    """16 tokens a picture, between a token that opens it and one that closes it; blocks return tuples."""
    names = {"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"}
    # The released vocabulary spells a code's number in letters, A for 0.
    codes = [f"IMGIMG{''.join(chr(ord('A') + int(digit)) for digit in str(code))}Z" for code in range(CODES)]
    tokenizer = build_tokenizer(
        special=("<s>", "</s>", "<reserved08706>", *names.values(), *codes),
        names=names,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="<reserved08706>",
    )
    processor = ChameleonProcessor(
        image_processor=ChameleonImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=tokenizer,
        image_seq_length=CODES,
    )
    processor.chat_template = TEMPLATE
    config = ChameleonConfig(
        **text_sizes(tokenizer),
        vq_config=ChameleonVQVAEConfig(
            embed_dim=8,
            num_embeddings=CODES,
            latent_channels=8,
            resolution=SIDE,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1],
            num_res_blocks=1,
        ),
        vocabulary_map=tokenizer.get_vocab(),
    )
    return save(
        folder, model_class=ChameleonForConditionalGeneration, config=config, processor=processor, seed=seed
    )
