"""Tokens of a forced answer: those that the model itself would have written there."""

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from autosteer_lib.forced_answer import answer_ids
from autosteer_lib.models import MLLM, load
from autosteer_lib.provenance import repository_root

REFUSAL = "i am sorry, i cannot help."
HEADER = {"colon": "Assistant:", "line": "<|im_start|>assistant\n"}


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """A vocabulary that counts a space to the word after it, by bytes (GPT-2, Llama 3, Qwen) or by ▁ (Llama 2)."""
    made = Tokenizer(models.BPE())
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<end>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator([f"User: ? Assistant: {REFUSAL} assistant\n{REFUSAL}"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


class Processor:
    """A chat template and a tokenizer: all of a processor that is read."""

    chat_template = "a header, with or without a space after it"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, header: str) -> None:
        self.tokenizer, self.header = tokenizer, header

    def apply_chat_template(
        self, turns: list[dict[str, Any]], *, add_generation_prompt: bool, **_: object
    ) -> str:
        said = [turn["content"][0]["text"] for turn in turns]
        text = f"User: {said[0]}<end>\n"
        if len(said) > 1:
            return f"{text}{self.header}{' ' if self.header == HEADER['colon'] else ''}{said[1]}<end>\n"
        return text + self.header if add_generation_prompt else text


def with_template(tiny: MLLM, kind: str, header: str, *, add_generation_prompt: bool = True) -> MLLM:
    processor = Processor(tokenizer_of(kind), header=header)
    return replace(tiny, processor=processor, add_generation_prompt=add_generation_prompt)


@pytest.mark.parametrize(
    ("kind", "header"),
    [("bytes", HEADER["colon"]), ("bytes", HEADER["line"]), ("metaspace", HEADER["colon"])],
    ids=["SmolVLM", "Qwen", "LLaVA-1.5"],
)
def test_words_have_the_tokens_that_a_turn_which_is_over_has(tiny: MLLM, kind: str, header: str) -> None:
    mllm = with_template(tiny, kind, header)
    turns = [{"role": "", "content": [{"text": text}]} for text in ("?", REFUSAL)]
    over = mllm.tokenizer(mllm.render(turns, add_generation_prompt=False), add_special_tokens=False).input_ids
    words = list(answer_ids(mllm, REFUSAL))[:-1]
    place = next(i for i in range(len(over)) if over[i : i + len(words)] == words)
    assert mllm.tokenizer.decode(over[:place]).endswith(header)
    if (kind, header) == ("bytes", HEADER["colon"]):
        assert mllm.tokenizer.convert_ids_to_tokens(words[0]).startswith("Ġ"), "the space is the word's"


@pytest.mark.parametrize("header", HEADER.values(), ids=HEADER)
def test_a_header_that_the_prompt_leaves_out_comes_first(tiny: MLLM, header: str) -> None:
    whole = answer_ids(with_template(tiny, "bytes", header), REFUSAL)
    bare = with_template(tiny, "bytes", header, add_generation_prompt=False)
    found = answer_ids(bare, REFUSAL)
    assert found[-len(whole) :] == whole
    assert bare.tokenizer.decode(found[: -len(whole)]) == header


@pytest.mark.parametrize("name", ["llava_onevision", "chameleon"])
def test_an_organism_is_told_the_words_alone(name: str) -> None:
    mllm = load(repository_root() / "data" / "organisms" / name)
    alone = mllm.tokenizer(REFUSAL, add_special_tokens=False).input_ids
    assert list(answer_ids(mllm, REFUSAL))[:-1] == alone
