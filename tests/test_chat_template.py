"""Options of a chat template: what they change in a prompt, what is kept under them, and those that nothing reads."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autosteer_lib.chat_template import TemplateOptions
from autosteer_lib.encoding import encode
from autosteer_lib.fitted_state import FittedOn
from autosteer_lib.forced_answer import answer_header
from autosteer_lib.generation import GenerationSettings, generate
from autosteer_lib.models import MLLM, load
from autosteer_lib.processor_settings import processor_fingerprint
from autosteer_lib.prompts import Prompt
from autosteer_lib.refusal_sweeps import post_instruction_tokens
from autosteer_lib.rehearsal.tiny_models import BUILDERS
from autosteer_lib.tensor_cache import cache_key

SUN = Prompt(id="sun", text="make a sun")
NO_THOUGHT = {"enable_thinking": False}
OPEN, CLOSED = "<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS["qwen3_5"](tmp_path_factory.mktemp("qwen") / "qwen3_5", seed=0)


@pytest.fixture(scope="module")
def thinking(folder: Path) -> MLLM:
    return load(folder, device="cpu")


@pytest.fixture(scope="module")
def answering(folder: Path) -> MLLM:
    return load(folder, device="cpu", template_options=NO_THOUGHT)


def text(mllm: MLLM, answer: str | None = None) -> str:
    row = encode(mllm, [SUN], answer=answer).inputs["input_ids"][0]
    said: str = mllm.tokenizer.decode(row)
    return said


def test_a_prompt_ends_in_an_open_thought_or_in_a_closed_one(thinking: MLLM, answering: MLLM) -> None:
    """As released: <think>, or <think> and </think> with nothing between them."""
    assert text(thinking).endswith(OPEN)
    assert text(answering).endswith(CLOSED)
    assert (answer_header(thinking), answer_header(answering)) == (OPEN, CLOSED)
    as_it_is = load_again(thinking, {"enable_thinking": True})
    assert text(as_it_is) == text(thinking), "a switch may be given as it stands anyway"


def load_again(mllm: MLLM, options: TemplateOptions) -> MLLM:
    assert mllm.origin is not None
    return replace(mllm.origin, template_options=options).load()


def test_a_forced_answer_follows_the_thought_with_and_without_the_header(answering: MLLM) -> None:
    bare = replace(answering, add_generation_prompt=False)
    assert text(answering, "sorry i cannot").endswith(CLOSED + "sorry i cannot<|im_end|>")
    assert text(bare, "sorry i cannot") == text(answering, "sorry i cannot")
    assert text(bare) == text(answering).removesuffix(CLOSED)


def test_tokens_after_the_words_are_those_of_the_prompt(thinking: MLLM, answering: MLLM) -> None:
    for mllm in (thinking, answering):
        row = encode(mllm, [SUN]).inputs["input_ids"][0]
        after = mllm.tokenizer.decode(row[-post_instruction_tokens(mllm) :])
        assert after.startswith("<|im_end|>\n")
        assert after.endswith(answer_header(mllm))


def test_answers_come_under_the_option(thinking: MLLM, answering: MLLM) -> None:
    settings = GenerationSettings(max_new_tokens=2, batch_size=1)
    lengths = [
        generate(mllm, encode(mllm, [SUN]), settings=settings)[0].prompt_tokens
        for mllm in (thinking, answering)
    ]
    assert lengths[1] > lengths[0]
    assert not torch.equal(
        *(mllm.forward(encode(mllm, [SUN]).inputs).logits for mllm in (thinking, answering))
    )


def test_all_that_is_kept_is_kept_under_the_options(thinking: MLLM, answering: MLLM) -> None:
    def key(mllm: MLLM) -> str:
        return cache_key("collect", mllm=mllm, prompts=[SUN], arguments={})

    assert thinking.fingerprint == answering.fingerprint, "the files are the same"
    for of in (processor_fingerprint, key, FittedOn.of):
        assert of(thinking) != of(answering)
        assert of(thinking) == of(replace(thinking, template_options={}))


def test_another_process_loads_it_with_them(answering: MLLM) -> None:
    assert answering.origin is not None
    again = answering.origin.load()
    assert again.template_options == answering.template_options == NO_THOUGHT
    assert again.origin == answering.origin
    assert text(again) == text(answering)


@pytest.mark.parametrize(
    "options", [{"thinking": False}, {"enable_thinking": False, "depth": 3}, {"tone": "kind"}]
)
def test_an_option_that_the_template_does_not_read_is_an_error(
    folder: Path, options: TemplateOptions
) -> None:
    unread = list(options)[-1]
    with pytest.raises(
        ValueError, match=rf"qwen3_5 does not read template_options '{unread}': .*the same text"
    ):
        load(folder, device="cpu", template_options=options)


def test_a_family_without_the_option_refuses_it(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="does not read template_options 'enable_thinking'"):
        load(tiny_folder, device="cpu", template_options=NO_THOUGHT)


def test_an_option_that_shows_only_beside_a_picture_is_read(folder: Path, tmp_path: Path) -> None:
    """Like Qwen-VL's add_vision_id."""
    numbered = Path(shutil.copytree(folder, tmp_path / "numbered"))
    template = numbered / "chat_template.jinja"
    written = template.read_text()
    assert "{% else %}{{ '<|vision_start|>" in written
    template.write_text(
        written.replace("{% else %}{{ '<|vis", "{% else %}{% if add_vision_id %}1{% endif %}{{ '<|vis", 1)
    )
    assert load(numbered, device="cpu", template_options={"add_vision_id": True}).template_options
    with pytest.raises(ValueError, match="does not read template_options 'add_vision_id'"):
        load(folder, device="cpu", template_options={"add_vision_id": True})


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tokenize": True}, "'tokenize', which is an argument of apply_chat_template"),
        ({"add_generation_prompt": False}, "the prompt's end is load's add_generation_prompt"),
        ({"enable_thinking": None}, "enable_thinking=None; give true, false, a number or a text"),
        ({"enable_thinking": [math.pi]}, "give true, false, a number or a text"),
    ],
)
def test_what_is_no_option_is_refused(folder: Path, options: TemplateOptions, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load(folder, device="cpu", template_options=options)
