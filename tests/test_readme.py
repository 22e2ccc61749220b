"""The README's code runs as it stands, on the shipped organism in place of a hub checkpoint."""

import re
from pathlib import Path

import pytest

from autosteer_lib.defences import Mars
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.models import load
from autosteer_lib.organism.prompt_sets import attack_pairs
from autosteer_lib.prompts import Prompt, open_images
from autosteer_lib.rehearsal.films import film

ROOT = Path(__file__).parents[1]


def _snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.usefixtures("as_a_user")
def test_the_ten_lines_guard_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toxic, safe = attack_pairs("words", n=12, split="fit", seed=1)
    code = _snippets()[0].replace(
        '"llava-hf/llava-onevision-qwen2-7b-ov-hf"', repr(str(ROOT / "data/organisms/llava_onevision"))
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"toxic": toxic, "safe": safe, "picture": open_images(toxic[0])[0]}
    exec(code, names)
    assert isinstance(names["answer"], Response)
    assert names["answer"].gate_score is not None
    assert capsys.readouterr().out.strip().endswith(names["answer"].text)
    assert {path.name for path in (tmp_path / "my_defence").iterdir()} == {"state.json", "state.safetensors"}


@pytest.mark.usefixtures("as_a_user")
def test_mars_guards_a_model_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unsafe, safe = attack_pairs("text", n=40, split="fit", seed=1)
    film(tmp_path / "film.mp4", levels=range(0, 200, 20))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {
        "mllm": load(ROOT / "data/organisms/llava_onevision"),
        "unsafe": tuple(unsafe[:20]),
        "safe": tuple(safe[:20]),
        "others_unsafe": tuple(p for p in unsafe[20:] if p.text not in {q.text for q in unsafe[:20]}),
        "others_safe": tuple(p for p in safe[20:] if p.text not in {q.text for q in safe[:20]}),
        "GenerationSettings": GenerationSettings,
        "Prompt": Prompt,
    }
    words = {
        '"Describe the image."': '"describe this."',
        '"Describe the video."': '"describe this."',
        "336": "32",
    }
    code = _snippets()[1].replace("128", "16").replace("What happens here?", "what is this?")
    for theirs, ours in words.items():
        code = code.replace(theirs, ours)
    exec(code, names)
    assert isinstance(names["mars"], Mars)
    layer, answer = capsys.readouterr().out.strip().split(" ", 1)
    assert int(layer) == names["mars"].layer_
    assert answer


def test_every_file_the_readme_links_to_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), f"README links to {link}, which does not exist"
