"""Loading says what is wrong with a checkpoint before any heavy work, and finds the text decoder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from autosteer_lib import checkpoints
from autosteer_lib.decoder import DecoderPaths, find_decoder
from autosteer_lib.models import MLLM, load


@pytest.fixture
def broken(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "broken"))


def test_what_is_loaded(tiny: MLLM) -> None:
    assert (tiny.layers, tiny.dim, tiny.context_length) == (4, 32, 128)
    assert (tiny.dtype, tiny.device.type) == (torch.float32, "cpu")
    assert (tiny.name, tiny.revision) == ("tiny", None)
    assert not tiny.model.training
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())
    assert tiny.model.generation_config.do_sample is False


def test_the_decoder_is_found_though_the_vision_tower_is_deeper(tiny: MLLM) -> None:
    language_model = tiny.model.model.language_model
    assert tiny.blocks is language_model.layers
    assert tiny.final_norm is language_model.norm
    assert tiny.lm_head is tiny.model.lm_head
    assert len(tiny.model.model.vision_tower.encoder.layers) > tiny.layers


def test_final_norm_then_unembedding_gives_the_logits(tiny: MLLM) -> None:
    """What find_decoder found is what the model computes its answer with."""
    seen: list[torch.Tensor] = []
    hook = tiny.final_norm.register_forward_hook(lambda _m, _a, output: seen.append(output))
    tokens = torch.tensor([[4, 8, 9, 5]])
    output = tiny.forward({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
    hook.remove()
    torch.testing.assert_close(output.logits[:, -1], seen[0][:, -1] @ tiny.unembedding.T)


@pytest.mark.usefixtures("as_a_user")
def test_no_decoder_is_an_error_that_says_what_is_there(tiny: MLLM) -> None:
    class Strange(nn.Module):
        config = tiny.model.config

        def __init__(self) -> None:
            super().__init__()
            self.stack = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

        def get_decoder(self) -> nn.Module:
            return self

    with pytest.raises(
        ValueError,
        match=r"no text decoder found in Strange.*4 decoder blocks.*ModuleList of 3.*by hand.*DecoderPaths\(blocks=",
    ):
        find_decoder(Strange())


BY_HAND = DecoderPaths(
    blocks="model.language_model.layers", final_norm="model.language_model.norm", lm_head="lm_head"
)


def test_the_parts_can_be_named_by_hand(
    tiny: MLLM, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mllm = load(tiny_folder, device="cpu", decoder=BY_HAND)
    assert mllm.blocks is mllm.model.model.language_model.layers
    assert mllm.final_norm is mllm.model.model.language_model.norm
    assert mllm.lm_head is mllm.model.lm_head
    assert mllm.fingerprint != tiny.fingerprint, "the same name of a site may be another place"
    # And nothing is looked for: a family in which nothing would be found.
    monkeypatch.setattr(type(tiny.model), "get_decoder", lambda self: self.lm_head)
    assert len(find_decoder(mllm.model, paths=BY_HAND).blocks) == 4
    with pytest.raises(ValueError, match=r"no text decoder found.*by hand"):
        find_decoder(mllm.model)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"blocks": "model.decoder.layers"},
            r"blocks='model.decoder.layers'\): model has no 'decoder'; it has visio",
        ),
        ({"blocks": "lm_head"}, r"blocks='lm_head'\) is a Linear; name the nn.ModuleList"),
        (
            {"final_norm": "norm"},
            r"LlavaOnevisionForConditionalGeneration has no 'norm'; it has model, lm_head",
        ),
        ({"lm_head": "model"}, r"lm_head='model'\) is a LlavaOnevisionModel without a weight"),
    ],
)
def test_a_wrong_name_by_hand_says_what_is_there(tiny: MLLM, wrong: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_decoder(tiny.model, paths=replace(BY_HAND, **wrong))


def test_fingerprint_is_of_the_content(tiny: MLLM, other_tiny: MLLM, broken: Path) -> None:
    assert load(broken).fingerprint == tiny.fingerprint, "a copy under another name is the same model"
    assert tiny.fingerprint != other_tiny.fingerprint
    (broken / "README.md").write_text("a card beside it changes nothing")
    assert checkpoints.fingerprint(broken) == tiny.fingerprint
    (broken / "chat_template.jinja").write_text("another template")
    assert checkpoints.fingerprint(broken) != tiny.fingerprint


def test_bfloat16_on_request(tiny_folder: Path) -> None:
    assert load(tiny_folder, dtype="bfloat16", device="cpu").dtype == torch.bfloat16


def test_random_weights_of_torch_are_left_alone(tiny_folder: Path) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    load(tiny_folder, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["no/such/folder", "./nothing", "nothing", Path("a/b")])
def test_no_such_checkpoint(name: str | Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint.*give a folder that exists, or owner/name"):
        load(name)


def test_an_unreachable_hub_is_named() -> None:
    with pytest.raises(
        OSError, match=r"cannot fetch checkpoint 'owner/model' at revision 'main'.*the network"
    ):
        load("owner/model")


def test_a_hub_checkpoint_is_known_by_its_commit(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Path(shutil.copytree(tiny_folder, tmp_path / "0a1b2c"))
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(name=name, **options)
        return str(snapshot)

    monkeypatch.setattr(checkpoints, "snapshot_download", download)
    mllm = load("owner/model", revision="v1")
    assert (mllm.name, mllm.revision) == ("owner/model", "0a1b2c")
    assert (asked["name"], asked["revision"]) == ("owner/model", "v1")
    assert "*.bin" not in asked["allow_patterns"]  # type: ignore[operator]


def test_a_revision_of_a_folder_is_an_error(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"revision 'v1' was given for the local folder"):
        load(tiny_folder, revision="v1")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json"),
        ("processor_config.json", "a 'llava_onevision' checkpoint, has no processor.*save_pretrained"),
        ("model.safetensors", "has no weights.*save_pretrained, which writes safetensors"),
    ],
)
def test_a_missing_file_is_named(broken: Path, file: str, message: str) -> None:
    (broken / file).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        load(broken)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {
                "model_type": "internvl_chat",
                "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
            },
            r"a 'internvl_chat' checkpoint that can only be loaded with the Python code.*never run here.*-hf",
        ),
        (
            {"model_type": "seesaw"},
            r"of the family 'seesaw', which transformers \S+ does not know; check model_type",
        ),
        (
            {"model_type": "qwen2"},
            r"a 'qwen2' checkpoint.*no class of this family that reads pictures.*multimodal",
        ),
    ],
)
def test_a_family_that_cannot_be_loaded_is_named(
    broken: Path, changed: dict[str, object], message: str
) -> None:
    file = broken / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    (broken / "processor_config.json").unlink()  # the family is the first thing to say
    with pytest.raises(ValueError, match=message):
        load(broken)


def test_code_beside_a_known_family_is_not_run(broken: Path) -> None:
    """Molmo2's released checkpoints bring code that transformers has made its own since."""
    file = broken / "config.json"
    code = {"auto_map": {"AutoModelForImageTextToText": "modeling_evil.Evil"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | code))
    (broken / "modeling_evil.py").write_text("raise SystemExit('this code was run')")
    assert load(broken, device="cpu").layers == 4


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_configuration_that_is_none_is_named(broken: Path, content: str) -> None:
    (broken / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json (is|holds) no JSON.*again"):
        load(broken)


def test_pickled_weights_are_not_read(broken: Path) -> None:
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(
        FileNotFoundError, match=r"found pytorch_model\.bin: pickled weights are never loaded"
    ):
        load(broken)


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_truncated_weights_are_named(broken: Path, kept: int) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"weight file .*model\.safetensors is truncated"):
        load(broken)


def test_weights_that_are_no_safetensors_are_named(broken: Path) -> None:
    content = (5).to_bytes(8, "little") + b"hello" + b" world"
    (broken / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"is no safetensors file: its header cannot be read"):
        load(broken)


def test_a_missing_shard_is_named(broken: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    (broken / "model.safetensors").rename(broken / "model-1.safetensors")
    with pytest.raises(FileNotFoundError, match=r"model-2\.safetensors is missing.*lists 2 files"):
        load(broken)


def test_a_missing_tensor_is_an_error_and_not_random_numbers(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    removed = next(name for name in weights if "layers.2" in name and "vision" not in name)
    del weights[removed]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors that config.json asks for"):
        load(broken)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}", "TypeError"),
        ("{{ raise_exception('two turns at least') }}", "TemplateError: two turns at least"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
    ],
    ids=["of texts alone", "raises", "broken"],
)
def test_a_template_that_cannot_be_rendered_is_told_at_loading(broken: Path, template: str, why: str) -> None:
    (broken / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=rf"cannot render a turn of words \({why}"):
        load(broken)


def test_no_chat_template_is_an_error(broken: Path) -> None:
    (broken / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"has no chat template"):
        load(broken)


@pytest.mark.usefixtures("as_a_user")
def test_unknown_choices_list_what_is_allowed(tiny_folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"dtype='int8' is not known; allowed are auto, float32, bfloat16, float16"
    ):
        load(tiny_folder, dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"device='cpu' and device_map='auto' were both given"):
        load(tiny_folder, device="cpu", device_map="auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device here")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(
        ValueError, match=r"device='cuda' was asked for and is not available here; available: .*cpu"
    ):
        load("anything", device="cuda")


def test_other_sizes_than_the_configuration_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"tensors in .* are of other sizes than config\.json asks for \(lm_head"
    ):
        load(folder, device="cpu")


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json", "processor_config.json"])
def test_a_damaged_json_file_is_named(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name} is no JSON"):
        load(folder, device="cpu")


def test_a_folder_without_a_tokenizer_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"(?s)cannot make a processor and a tokenizer of .*tokenizer\.json"):
        load(folder, device="cpu")


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": None}, "the checkpoint's name is None; give a folder, or owner/name"),
        ({"decoder": "model"}, r"decoder is 'model', of type str; give DecoderPaths\("),
        ({"add_generation_prompt": "no"}, "add_generation_prompt is 'no', of type str; give True or False"),
    ],
)
def test_arguments_of_load_of_another_type(tiny_folder: Path, given: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        load(**{"name": tiny_folder, **given})


def test_an_answer_ends_where_the_tokenizer_says_too(tiny_folder: Path, tmp_path: Path) -> None:
    """Some checkpoints of Qwen3.5 list <|endoftext|> alone, and their turns end with <|im_end|>."""
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    path = folder / "generation_config.json"
    content = json.loads(path.read_text())
    own, pad = content["eos_token_id"], content["pad_token_id"]
    for listed, ends in (
        (own, own),
        (pad, [pad, own]),
        ([pad, own], [pad, own]),
        ([pad], [pad, own]),
        (None, own),
    ):
        path.write_text(json.dumps({**content, "eos_token_id": listed}))
        assert load(folder, device="cpu").model.generation_config.eos_token_id == ends
