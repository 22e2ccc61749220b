"""What `make organism` says at its end, and that the shipped model is what today's recipe would train."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from autosteer_lib.organism.__main__ import _compare, main
from autosteer_lib.organism.organisms import ORGANISMS
from autosteer_lib.provenance import repository_root

SHIPPED = repository_root() / "data" / "organisms"
LLAVA = SHIPPED / "llava_onevision"


def test_the_shipped_weights_are_told_from_others(tmp_path: Path) -> None:
    assert "bit for bit" in _compare(LLAVA, LLAVA)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert "are not the shipped ones" in _compare(tmp_path, LLAVA)


@pytest.mark.parametrize("folder", sorted(SHIPPED.iterdir()), ids=lambda f: f.name)
def test_the_shipped_model_was_tuned_by_the_recipe_in_the_code(folder: Path) -> None:
    log = json.loads((folder / "training.json").read_text())
    organism = ORGANISMS[folder.name]
    seen = [name for name in log if name.startswith("see")]
    assert [log[name]["recipe"] for name in seen] == [asdict(recipe) for recipe in organism.seeing]
    for settings in organism.stages:
        recorded = log[settings.stage]["recipe"]
        assert {name: recorded[name] for name in asdict(settings)} == asdict(settings)
    # Only `align` reads the shares of replayed harm: the stages before it may have been trained under others.
    recipe = json.loads(json.dumps(asdict(organism.shares)))
    assert {name: log["align"]["recipe"][name] for name in recipe} == recipe


def test_outside_a_checkout_nothing_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere() -> Path:
        raise FileNotFoundError("no checkout of the project above here")

    monkeypatch.setattr("autosteer_lib.organism.__main__.repository_root", nowhere)
    monkeypatch.setattr("autosteer_lib.organism.__main__.train", lambda *_, **__: pytest.fail("it trains"))
    monkeypatch.setattr("sys.argv", ["organism"])
    assert main() == 2
    assert "no checkout" in capsys.readouterr().err
