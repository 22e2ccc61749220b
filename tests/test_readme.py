"""The README's code runs as it stands, on the shipped organism in place of a hub checkpoint."""

import re
from pathlib import Path

import pytest

from autosteer_lib.generation import Response
from autosteer_lib.organism.prompt_sets import attack_pairs
from autosteer_lib.prompts import open_images

ROOT = Path(__file__).parents[1]


def _snippet() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


@pytest.mark.usefixtures("as_a_user")
def test_the_ten_lines_guard_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toxic, safe = attack_pairs("words", n=12, split="fit", seed=1)
    code = _snippet().replace(
        '"llava-hf/llava-onevision-qwen2-7b-ov-hf"', repr(str(ROOT / "data/organisms/llava_onevision"))
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"toxic": toxic, "safe": safe, "picture": open_images(toxic[0])[0]}
    exec(code, names)
    assert isinstance(names["answer"], Response)
    assert names["answer"].gate_score is not None
    assert capsys.readouterr().out.strip().endswith(names["answer"].text)
    assert {path.name for path in (tmp_path / "my_defence").iterdir()} == {"state.json", "state.safetensors"}


def test_every_file_the_readme_links_to_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), f"README links to {link}, which does not exist"
