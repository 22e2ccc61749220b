"""Judges from a checkpoint: the whole way with tiny ones, how they are loaded, and which are known by name."""

import json
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlamaConfig,
)

from autosteer_lib.halving import Failure
from autosteer_lib.judges import local_model
from autosteer_lib.judges.asked import Question
from autosteer_lib.judges.llama_guard import LlamaGuard
from autosteer_lib.judges.local_model import LocalModel
from autosteer_lib.judges.open_judge import PUBLISHED_JUDGES, open_judge
from autosteer_lib.prompts import Prompt
from autosteer_lib.records import read_records
from autosteer_lib.rehearsal.tiny_models.parts import build_tokenizer, text_sizes

ASKED = Prompt(id="a", text="how do i make a poison ?", harmful=True)
PROMPTS = [Prompt(id=f"{n}", text="make a sun", harmful=True) for n in range(4)]
WORDS = ["cup", "sword", "missile", "pencil", "horse", "trap", "rope", "acid"]
TEMPLATE = (
    "<s>{% for m in messages %}{{ m['role'] }} : {{ m['content'] if m['content'] is string else m['content'][0]['text'] }}"
    " \n {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def guard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a chat template of its own."""
    folder = tmp_path_factory.mktemp("guard") / "tiny"
    tokenizer = build_tokenizer(
        special=("<s>", "</s>", "<|assistant|>"), names={}, eos_token="</s>", bos_token="<s>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.model_max_length = 4096
    config = LlamaConfig(**{**text_sizes(tokenizer), "max_position_embeddings": 512})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reply_alone(folder: Path, ids: list[int], *, longest: int) -> str:
    """Greedy, one question, a full forward for each token."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    start = len(ids)
    for _ in range(longest):
        with torch.no_grad():
            ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] == tokenizer.eos_token_id:
            break
    text: str = tokenizer.decode(ids[start:], skip_special_tokens=True)
    return text


@pytest.mark.parametrize("name", ["llama-guard-3", "harmbench", "wildguard"])
def test_replies_in_a_batch_are_those_of_the_model_alone(
    name: str, guard_folder: Path, tmp_path: Path
) -> None:
    judge = open_judge(
        name,
        checkpoint=guard_folder,
        replies=tmp_path / "replies.jsonl",
        dtype=torch.float32,
        batch_size=3,
        progress=False,
    )
    answers = [
        "first find iron",
        "sorry",
        "please tell me about the red knife , how do i make the poison ?",
        "",
    ]
    found = judge.opinions(PROMPTS, answers)
    assert len(found) == 4
    tokenizer = AutoTokenizer.from_pretrained(guard_folder)
    kept = {str(record["reply"]) for record in read_records(tmp_path / "replies.jsonl").values()}
    expected = set()
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        question = judge.rubric.question(prompt, answer)
        text = question.text or f"<s>user : {prompt.text} \n assistant : {answer} \n <|assistant|>"
        added = bool(question.text) and question.special_tokens
        ids = tokenizer(text, add_special_tokens=added).input_ids
        expected.add(reply_alone(guard_folder, ids, longest=judge.rubric.longest_reply))
    assert kept == expected
    assert all(opinion.unread for opinion in found)  # a random model keeps to no form: counted, not guessed


def test_a_batch_that_does_not_fit_is_halved(
    guard_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel(guard_folder, dtype=torch.float32, batch_size=4)
    plain = [o for batch in model.replies([_words(n) for n in range(1, 7)], longest=3) for o in batch]
    generate, sizes = model._model.generate, []

    def small(**inputs: torch.Tensor) -> object:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("no room")
        return generate(**inputs)

    monkeypatch.setattr(model._model, "generate", small)
    assert [o for batch in model.replies([_words(n) for n in range(1, 7)], longest=3) for o in batch] == plain
    assert sizes == [4, 2, 2, 2]


def test_a_question_that_is_too_long_gets_no_reply(guard_folder: Path) -> None:
    model = LocalModel(guard_folder, dtype=torch.float32)
    outcomes = {
        o.row: o.result for batch in model.replies([_words(600), _words(2)], longest=3) for o in batch
    }
    assert isinstance(outcomes[1], str)
    assert isinstance(outcomes[0], Failure)
    assert "600 tokens and 3 for the reply, more than the 512" in outcomes[0].error


def test_a_guard_without_its_template_has_no_policy(
    guard_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel(guard_folder, dtype=torch.float32)
    monkeypatch.setattr(model._tokenizer, "chat_template", None)
    with pytest.raises(ValueError, match="has no chat template, which is where a guard's policy stands"):
        list(model.replies([LlamaGuard().question(ASKED, "no")], longest=1))


def test_llama_guard_4_is_loaded_by_its_own_class(tmp_path: Path) -> None:
    """Its checkpoint is one that sees, and its template wants a turn's words in parts."""
    folder = tmp_path / "guard4"
    tokenizer = build_tokenizer(
        special=("<s>", "</s>", "<|assistant|>"), names={}, eos_token="</s>", bos_token="<s>"
    )
    tokenizer.chat_template = TEMPLATE.replace("m['content'] if m['content'] is string else ", "")
    text = {
        **text_sizes(tokenizer),
        "intermediate_size_mlp": 64,
        "head_dim": 8,
        "num_local_experts": 1,
        "moe_layers": [],
        "attention_chunk_size": None,  # as the published one has it
    }
    vision = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32, "image_size": 28,
        "patch_size": 14, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32,
    }  # fmt: skip
    config = Llama4Config(text_config=text, vision_config=vision)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Llama4ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    judge = open_judge(
        "llama-guard-4", checkpoint=folder, replies=tmp_path / "r.jsonl", dtype=torch.float32, progress=False
    )
    found = judge.opinions(PROMPTS[:2], ["sorry", "first find iron"])
    assert judge.name == "Llama Guard 4"
    assert [opinion.unread for opinion in found] == [True, True]
    assert len(read_records(tmp_path / "r.jsonl")) == 2


def test_a_tokenizer_that_needs_sentencepiece_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HarmBench's classifier has such a one."""
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setattr(local_model, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install sentencepiece"):
        open_judge("harmbench", checkpoint=tmp_path, replies=tmp_path / "r.jsonl")


def test_a_tokenizer_in_sentencepieces_own_form_is_read(tmp_path: Path) -> None:
    """As HarmBench's classifier has it: tokenizer.model alone, and no token to pad with."""
    folder = tmp_path / "classifier"
    folder.mkdir()
    (tmp_path / "corpus.txt").write_text("\n".join(f"how do i make a {w} ? yes or no" for w in WORDS * 20))
    SentencePieceTrainer.train(
        input=tmp_path / "corpus.txt", model_prefix=folder / "tokenizer", vocab_size=60, model_type="bpe",
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    named = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    config = LlamaConfig(**sizes, vocab_size=60, max_position_embeddings=4096)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    judge = open_judge(
        "harmbench", checkpoint=folder, replies=tmp_path / "r.jsonl", dtype=torch.float32, progress=False
    )
    found = judge.opinions(PROMPTS[:2], ["sorry", "first find iron , and then some more of it"])
    assert len(found) == 2
    replies = [record["reply"] for record in read_records(tmp_path / "r.jsonl").values()]
    assert len(replies) == 2, "two questions of unequal length went through in one batch"


def test_judges_by_name(tmp_path: Path) -> None:
    assert {judge.checkpoint for judge in PUBLISHED_JUDGES.values()} == {
        "meta-llama/Llama-Guard-3-8B", "meta-llama/Llama-Guard-4-12B", "cais/HarmBench-Llama-2-13b-cls",
        "allenai/wildguard",
    }  # fmt: skip
    with pytest.raises(
        ValueError, match=r"no published judge 'llamaguard' is known; there are llama-guard-3"
    ):
        open_judge("llamaguard", replies=tmp_path / "r.jsonl")
    with pytest.raises(OSError, match="cannot fetch checkpoint 'allenai/wildguard'"):  # tests have no network
        open_judge("wildguard", replies=tmp_path / "r.jsonl")


def _words(count: int) -> Question:
    return Question(text=" ".join(["sun"] * count), special_tokens=False)
