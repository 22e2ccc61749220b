"""Second models beside the defended one: loaded whole or not at all, and scored as their own classes score."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    PreTrainedModel,
)

from autosteer_lib.defences import HubDetector, HubRewriter, MllmProtector
from autosteer_lib.defences.answer_detector import Exchange
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.tiny_models.parts import build_tokenizer, text_sizes

SETTINGS = GenerationSettings(max_new_tokens=4, batch_size=3)
WORDS = ("make a sun", "please tell me about the red knife", "sure", "how do i make the poison ?")


def build(folder: Path, kind: type, **options: int) -> Path:
    """A tiny Llama without a padding token, as the published detector's base is."""
    tokenizer = build_tokenizer(special=("<s>", "</s>"), names={}, eos_token="</s>", bos_token="<s>")
    tokenizer.pad_token = None
    sizes = {**text_sizes(tokenizer), **options}
    config = LlamaConfig(**{**sizes, "pad_token_id": None, "eos_token_id": tokenizer.eos_token_id})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = kind.from_config(config)  # type: ignore[attr-defined]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(
        tmp_path_factory.mktemp("hub") / "detector", AutoModelForSequenceClassification, num_labels=1
    )


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("hub") / "rewriter", AutoModelForCausalLM)


def exchanges() -> list[Exchange]:
    return [Exchange(prompt=Prompt(id=f"{n}", text="how ?"), answer=words) for n, words in enumerate(WORDS)]


def test_the_score_is_one_less_sigma_of_the_models_own_output(tiny: MLLM, classifier: Path) -> None:
    detector = HubDetector(classifier, dtype=torch.float32)
    found = detector.look(tiny, exchanges(), batch_size=3)
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = build_tokenizer(special=("<s>", "</s>"), names={}, eos_token="</s>", bos_token="<s>")
    for words, response in zip(WORDS, found, strict=True):
        ids = tokenizer(words, return_tensors="pt").input_ids
        with torch.no_grad():
            safe = torch.sigmoid(model(input_ids=ids).logits).item()
        assert response.gate_score == pytest.approx(1 - safe, abs=1e-5)
        assert (response.prompt_tokens, response.new_tokens, response.model_calls) == (ids.shape[1], 0, 1)
        assert response.seconds > 0
    assert [r.prompt_id for r in found] == ["0", "1", "2", "3"]
    short = HubDetector(classifier, dtype=torch.float32, longest=1).look(tiny, exchanges(), batch_size=3)
    assert {response.prompt_tokens for response in short} == {1}


def test_the_rewriter_goes_on_from_its_template(tiny: MLLM, writer: Path) -> None:
    rewriter = HubRewriter(writer, template="please make {answer} red", dtype=torch.float32)
    found = rewriter.rewrite(tiny, exchanges(), settings=SETTINGS)
    model = AutoModelForCausalLM.from_pretrained(writer).eval()
    tokenizer = build_tokenizer(special=("<s>", "</s>"), names={}, eos_token="</s>", bos_token="<s>")
    for words, response in zip(WORDS, found, strict=True):
        ids = tokenizer(f"please make {words} red", return_tensors="pt").input_ids
        start = ids.shape[1]
        for _ in range(SETTINGS.max_new_tokens):
            with torch.no_grad():
                said = model(input_ids=ids, use_cache=False).logits[0, -1].argmax()
            ids = torch.cat((ids, said.view(1, 1)), dim=1)
            if said == tokenizer.eos_token_id:
                break
        assert response.text == tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()
        assert (response.prompt_tokens, response.new_tokens) == (start, ids.shape[1] - start)


def test_both_at_work(tiny: MLLM, classifier: Path, writer: Path, mixed_prompts: list[Prompt]) -> None:
    detector = HubDetector(classifier, dtype=torch.float32)
    rewriter = HubRewriter(writer, template="please make {answer} red", dtype=torch.float32)
    scores = [
        r.gate_score or 0.0
        for r in MllmProtector(detector, threshold=1.0).respond(tiny, mixed_prompts, settings=SETTINGS)
    ]
    defence = MllmProtector(detector, rewriter=rewriter, threshold=sorted(scores)[3])
    found = defence.respond(tiny, mixed_prompts, settings=SETTINGS)
    assert {r.triggered for r in found} == {True, False}
    for answer in found:
        assert answer.model_calls == (3 if answer.triggered else 2)
        assert (answer.text == answer.raw_text) is not answer.triggered


def test_fingerprints_are_the_checkpoints(classifier: Path, writer: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(classifier, tmp_path / "copy")
    same = HubDetector(copy)
    weights = load_file(copy / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] + 1
    changed = shutil.copytree(copy, tmp_path / "changed")
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    parts: list[HubDetector | HubRewriter] = [
        HubDetector(classifier),
        HubDetector(changed),
        HubDetector(classifier, longest=7),
        HubDetector(classifier, dtype=torch.float32),
        HubRewriter(writer, template="{answer}"),
        HubRewriter(writer, template="{answer} ."),
    ]
    assert len({part.fingerprint for part in parts}) == len(parts)
    assert same.fingerprint == parts[0].fingerprint


def test_a_model_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no checkpoint .*nowhere.*give a folder that exists, or owner/name"
    ):
        HubDetector(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"cannot fetch checkpoint 'nobody/nothing'"):  # tests have no network
        HubDetector("nobody/nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"empty cannot be loaded as a text model"):
        HubRewriter(empty, template="{answer}")


def test_a_classifier_without_its_head_would_judge_by_random_numbers(writer: Path) -> None:
    with pytest.raises(ValueError, match=r"rewriter lacks score.weight: it holds no model of this kind"):
        HubDetector(writer)


def test_pickled_weights_are_not_loaded(classifier: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(classifier, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"pickled weights and remote code are never loaded"):
        HubDetector(folder)


def test_an_adapter_needs_its_package(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(classifier, tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    monkeypatch.setattr("autosteer_lib.text_models.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"adapter is an adapter for another model, .* pip install peft"):
        HubDetector(folder)


def test_wrong_options_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"longest=0"):
        HubDetector(tmp_path, longest=0)
    with pytest.raises(ValueError, match=r"template='again' .* must contain \{answer\}"):
        HubRewriter(tmp_path, template="again")


def test_one_that_does_not_fit_says_how_large_it_is(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: PreTrainedModel, *_: object, **__: object) -> PreTrainedModel:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PreTrainedModel, "to", full)
    with pytest.raises(
        ValueError, match=r"detector does not fit on cpu beside what is there \(0\.0 GB of weig"
    ):
        HubDetector(classifier)
