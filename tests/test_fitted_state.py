"""A fitted state comes back whole and on its own model, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autosteer_lib.fitted_state import (
    META,
    TENSORS,
    FittedOn,
    load_state,
    restoring,
    save_state,
    state_hash,
)
from autosteer_lib.models import MLLM

SETTINGS = {"epsilon": 0.1, "layer": None, "reading": {"text": "I’m sorry"}}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "matrix": torch.randn(4, 4, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "brain": torch.randn(2, 3, generator=generator).bfloat16(),
        "rows": torch.arange(5),
    }


@pytest.fixture
def folder(tmp_path: Path, tiny: MLLM) -> Path:
    return save_state(
        tmp_path / "deep" / "state",
        kind="Thing",
        tensors=tensors(),
        settings=SETTINGS,
        fitted_on=FittedOn.of(tiny),
    )


def edit(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps({**meta, **changes}))


def test_save_load_is_the_identity(folder: Path, tiny: MLLM) -> None:
    state = load_state(folder, tiny, kind="Thing")
    assert state.settings == SETTINGS
    assert state.fitted_on == FittedOn.of(tiny)
    assert state.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert state.tensors[name].dtype == tensor.dtype
        assert torch.equal(state.tensors[name], tensor)
    assert sorted(path.name for path in folder.iterdir()) == [META, TENSORS]


def test_saving_the_same_twice_writes_the_same_bytes(folder: Path, tiny: MLLM) -> None:
    before = [(folder / name).read_bytes() for name in (META, TENSORS)]
    save_state(folder, kind="Thing", tensors=tensors(), settings=SETTINGS, fitted_on=FittedOn.of(tiny))
    assert [(folder / name).read_bytes() for name in (META, TENSORS)] == before


def test_another_model_is_refused(folder: Path, other_tiny: MLLM) -> None:
    with pytest.raises(
        ValueError, match=r"fitted on tiny .*the model at hand is other .*load the model it was"
    ):
        load_state(folder, other_tiny, kind="Thing")


def test_another_end_of_the_prompt_is_refused(folder: Path, tiny: MLLM) -> None:
    with pytest.raises(ValueError, match="load the model with add_generation_prompt=True"):
        load_state(folder, replace(tiny, add_generation_prompt=False), kind="Thing")


def test_other_options_of_the_template_are_refused(folder: Path, tiny: MLLM) -> None:
    other = replace(tiny, template_options={"enable_thinking": False})
    with pytest.raises(ValueError, match=r"load the model with template_options=\{\}"):
        load_state(folder, other, kind="Thing")
    save_state(folder, kind="Thing", tensors=tensors(), settings=SETTINGS, fitted_on=FittedOn.of(other))
    assert load_state(folder, other, kind="Thing").fitted_on == FittedOn.of(other)
    with pytest.raises(
        ValueError, match=r"load the model with template_options=\{'enable_thinking': False\}"
    ):
        load_state(folder, tiny, kind="Thing")


def test_a_state_of_before_there_were_options_was_fitted_without(folder: Path, tiny: MLLM) -> None:
    saved = json.loads((folder / META).read_text())["fitted_on"]
    assert "template_options" not in saved, "without options, hashes are what they were"
    assert FittedOn(**saved) == FittedOn.of(tiny)


def test_another_kind_is_refused(folder: Path, tiny: MLLM) -> None:
    with pytest.raises(
        ValueError, match="holds a state of Thing, not of Defence; load it with the class of Thing"
    ):
        load_state(folder, tiny, kind="Defence")


@pytest.mark.parametrize("name", [META, TENSORS])
def test_a_missing_file_is_named(folder: Path, tiny: MLLM, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no {name}"):
        load_state(folder, tiny, kind="Thing")


def test_damage_is_found(folder: Path, tiny: MLLM) -> None:
    whole = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(whole[:-7])
    with pytest.raises(ValueError, match="is damaged"):
        load_state(folder, tiny, kind="Thing")
    (folder / TENSORS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="changed after it was saved"):
        load_state(folder, tiny, kind="Thing")


def test_shapes_types_and_values_are_checked(folder: Path, tiny: MLLM) -> None:
    stored = load_file(folder / TENSORS)
    save_file({**stored, "matrix": stored["matrix"][:2].clone()}, folder / TENSORS)
    with pytest.raises(ValueError, match="not of one save"):
        load_state(folder, tiny, kind="Thing")
    save_file({**stored, "matrix": stored["matrix"].double()}, folder / TENSORS)
    with pytest.raises(ValueError, match="not of one save"):
        load_state(folder, tiny, kind="Thing")
    save_file({**stored, "matrix": stored["matrix"] * float("nan")}, folder / TENSORS)
    with pytest.raises(ValueError, match="'matrix' has values that are not finite"):
        load_state(folder, tiny, kind="Thing")


def test_descriptions_that_cannot_be_read(folder: Path, tiny: MLLM) -> None:
    edit(folder, format=99)
    with pytest.raises(ValueError, match="has format 99, this version reads 1"):
        load_state(folder, tiny, kind="Thing")
    edit(folder, fitted_on={"name": "x"})
    with pytest.raises(ValueError, match="not the description of a fitted state"):
        load_state(folder, tiny, kind="Thing")
    (folder / META).write_text("{")
    with pytest.raises(ValueError, match="not the description of a fitted state"):
        load_state(folder, tiny, kind="Thing")


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path, tiny: MLLM) -> None:
    broken = {"matrix": torch.tensor([1.0, float("inf")])}
    with pytest.raises(ValueError, match="the state to be saved: tensor 'matrix'"):
        save_state(tmp_path, kind="Thing", tensors=broken, settings={}, fitted_on=FittedOn.of(tiny))
    assert list(tmp_path.iterdir()) == []


def test_hash_sees_values_names_shapes_types_and_settings() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    variants = [
        (base, {}),
        ({**base, "a": torch.zeros(3, 2)}, {}),
        ({**base, "a": torch.zeros(2, 3, dtype=torch.float64)}, {}),
        ({**base, "b": torch.tensor([1.0, 1.0 + 1e-7])}, {}),
        ({"a": base["a"], "c": base["b"]}, {}),
        (base, {"epsilon": 0.1}),
    ]
    assert len({state_hash(some, settings) for some, settings in variants}) == len(variants)
    assert state_hash(dict(reversed(base.items())), {}) == state_hash(base, {})
    strided = {**base, "a": torch.zeros(3, 2).T}
    assert state_hash(strided, {}) == state_hash(base, {})


def test_a_file_where_the_folder_should_be_is_named(folder: Path, tiny: MLLM, tmp_path: Path) -> None:
    state = load_state(folder, tiny, kind="Thing")
    (tmp_path / "a_file").write_text("")
    for name in ("a_file", "a_file/below"):
        with pytest.raises(
            OSError, match=r"cannot be saved in .*a_file.*still in memory: save it in a folder"
        ):
            save_state(
                tmp_path / name, kind="Thing", tensors=state.tensors, settings={}, fitted_on=state.fitted_on
            )


@pytest.mark.usefixtures("as_a_user")
def test_folder_and_model_in_the_wrong_order_are_told(folder: Path, tiny: MLLM) -> None:
    with pytest.raises(TypeError, match=r"folder is MLLM\(.*; give the name of a folder"):
        load_state(cast(Any, tiny), cast(Any, folder), kind="Thing")
    with pytest.raises(TypeError, match=r"mllm is 'tiny'"):
        load_state(folder, cast(Any, "tiny"), kind="Thing")


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {**SETTINGS, "layer": 3}},
        {"settings": {"epsilon": 0.1}},
        {"settings": {}},
        {"settings": {**SETTINGS, "epsilon": "0.1"}},
    ],
    ids=str,
)
def test_settings_that_were_changed_are_found(folder: Path, tiny: MLLM, changes: dict[str, object]) -> None:
    edit(folder, **changes)
    with pytest.raises(
        ValueError, match=r"state.json was changed after it was saved.*fit and save it again.*retuned"
    ):
        load_state(folder, tiny, kind="Thing")


@pytest.mark.parametrize("settings", [None, [], "epsilon", 3])
def test_settings_of_another_type_are_no_description(folder: Path, tiny: MLLM, settings: object) -> None:
    edit(folder, settings=settings)
    with pytest.raises(ValueError, match=r"not the description of a fitted state|was changed after"):
        load_state(folder, tiny, kind="Thing")


def test_a_state_of_before_settings_had_a_hash_is_read(folder: Path, tiny: MLLM) -> None:
    meta = json.loads((folder / META).read_text())
    del meta["settings_sha256"]
    (folder / META).write_text(json.dumps(meta))
    assert load_state(folder, tiny, kind="Thing").settings == SETTINGS


def test_what_nothing_can_be_made_of_names_the_file(folder: Path) -> None:
    with (
        pytest.raises(
            ValueError,
            match=r"state.json holds settings that nothing .*KeyError: 'layer'.*fit and save it again",
        ),
        restoring(folder),
    ):
        raise KeyError("layer")
