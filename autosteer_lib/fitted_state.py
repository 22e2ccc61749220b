"""Fitted state on disk: what a defence learnt, on which model, and whether it is whole.

    folder/state.safetensors    the tensors, and nothing that could run
    folder/state.json           kind, settings, the model they were fitted on, shape and dtype of each tensor, their hash

Loading trusts none of it: the hashes of tensors and of settings, shapes and dtypes must agree with the JSON, every
number must be finite, and the model at hand must be the one that was fitted on (by the fingerprint of its files).
A matrix of the right shape fitted on another model would steer somewhere, and nobody would notice; nor if the layer
that was probed were another one.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from autosteer_lib.arguments import check_given
from autosteer_lib.models import MLLM, check_mllm

FORMAT = 1
TENSORS, META = "state.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class FittedOn:
    """The model that a state belongs to."""

    name: str
    revision: str | None
    fingerprint: str
    layers: int
    dim: int
    add_generation_prompt: bool
    """Of the prompts it was fitted on: another ending is another probed token."""
    template_options: dict[str, Any] = field(default_factory=dict)
    """Likewise. A state of before there were any was fitted without."""

    @classmethod
    def of(cls, mllm: MLLM) -> "FittedOn":
        """What identifies the model at hand."""
        check_mllm(mllm)
        return cls(
            name=mllm.name,
            revision=mllm.revision,
            fingerprint=mllm.fingerprint,
            layers=mllm.layers,
            dim=mllm.dim,
            add_generation_prompt=mllm.add_generation_prompt,
            template_options=dict(mllm.template_options),
        )

    def facts(self) -> dict[str, Any]:
        """As it is saved and hashed; without options just as before there were any."""
        return {name: value for name, value in asdict(self).items() if name != "template_options" or value}

    def check(self, mllm: MLLM) -> None:
        """Refuse another model, or another end of the prompt.

        Raises:
            ValueError: names both models and what to do.
        """
        other = FittedOn.of(mllm)
        if other.fingerprint != self.fingerprint or (other.layers, other.dim) != (self.layers, self.dim):
            raise ValueError(
                f"this state was fitted on {self._describe()} and the model at hand is {other._describe()}; "
                "fit the defence on this model, or load the model it was fitted on"
            )
        if other.add_generation_prompt != self.add_generation_prompt:
            raise ValueError(
                f"this state was fitted on prompts with add_generation_prompt={self.add_generation_prompt} and "
                f"{mllm.name} is loaded with {mllm.add_generation_prompt}, so another token would be probed; "
                f"load the model with add_generation_prompt={self.add_generation_prompt}"
            )
        if other.template_options != self.template_options:
            raise ValueError(
                f"this state was fitted on prompts with template_options={self.template_options} and "
                f"{mllm.name} is loaded with {other.template_options}, so another end of the prompt would be probed; "
                f"load the model with template_options={self.template_options}"
            )

    def _describe(self) -> str:
        revision = "" if self.revision is None else f" at {self.revision[:12]}"
        return f"{self.name}{revision} ({self.layers} layers, dim {self.dim}, fingerprint {self.fingerprint[:12]})"


@dataclass(frozen=True, kw_only=True)
class FittedState:
    """What `load_state` gives back, on the CPU."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    fitted_on: FittedOn


def state_hash(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes and values of the tensors and over the settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_state(
    folder: str | Path,
    *,
    kind: str,
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    fitted_on: FittedOn,
) -> Path:
    """Write the state; the JSON last and in one move, so that a folder with a JSON is whole.

    Raises:
        TypeError: no folder's name.
        ValueError: a tensor that is not finite.
        OSError: the folder cannot be written.
    """
    folder = _folder(folder)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    _check_finite(plain, where="the state to be saved")
    meta = {
        "format": FORMAT,
        "kind": kind,
        "settings": dict(settings),
        "fitted_on": fitted_on.facts(),
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype)}
            for name, tensor in sorted(plain.items())
        },
        "sha256": state_hash(plain, {}),
        "settings_sha256": _settings_hash(settings, fitted_on.facts()),
    }
    text = json.dumps(meta, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / META).unlink(missing_ok=True)
        _replace(folder / TENSORS, lambda path: save_file(plain, path))
        _replace(folder / META, lambda path: path.write_text(text, encoding="utf-8"))
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"the fitted state cannot be saved in {folder} ({type(error).__name__}: {error}); it is still in memory: save "
            "it in a folder that is new or may be written, with room on its disk"
        ) from error
    return folder


def load_state(folder: str | Path, mllm: MLLM, *, kind: str) -> FittedState:
    """Read a state that `save_state` wrote for this model.

    Raises:
        TypeError: no folder's name, or no model.
        FileNotFoundError: no state in the folder.
        ValueError: another kind of state, another model, or files that are damaged.
    """
    folder = _folder(folder)
    check_mllm(mllm)
    for name in (META, TENSORS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}: no fitted state was saved there, or saving was cut short; fit and save it again"
            )
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        found, fitted_on = meta["kind"], FittedOn(**meta["fitted_on"])
        settings, expected, digest = meta["settings"], meta["tensors"], meta["sha256"]
        written_as = meta["format"]
        settings_digest = _settings_hash(settings, meta["fitted_on"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / META} is not the description of a fitted state ({error!r}); fit and save it again"
        ) from error
    if written_as != FORMAT:
        raise ValueError(
            f"{folder / META} has format {written_as}, this version reads {FORMAT}; fit and save it again"
        )
    if found != kind:
        raise ValueError(
            f"{folder} holds a state of {found}, not of {kind}; load it with the class of {found}, or name {kind}'s folder"
        )
    # A state of before there was this hash has none.
    if meta.get("settings_sha256", settings_digest) != settings_digest:
        raise ValueError(
            f"{folder / META} was changed after it was saved (its settings no longer have the hash beside them); put the "
            "saved file back, or fit and save it again. For other values load it, take retuned(…) and save that"
        )
    fitted_on.check(mllm)
    try:
        tensors = load_file(folder / TENSORS)
    except SafetensorError as error:
        raise ValueError(
            f"{folder / TENSORS} is damaged ({error}); copy it again, or fit and save it again"
        ) from error
    actual = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        for name, tensor in sorted(tensors.items())
    }
    if actual != expected:
        raise ValueError(
            f"{folder / TENSORS} holds {actual} and {META} announces {expected}; the two files are not of one save"
        )
    _check_finite(tensors, where=str(folder / TENSORS))
    if state_hash(tensors, {}) != digest:
        raise ValueError(
            f"{folder / TENSORS} was changed after it was saved (its hash is not the one in {META}); fit and save it again"
        )
    return FittedState(tensors=tensors, settings=settings, fitted_on=fitted_on)


@contextmanager
def restoring(folder: str | Path) -> Iterator[None]:
    """What a class makes of settings and tensors that are whole, but not what it expects.

    Raises:
        ValueError: names the file, what was found and the remedy.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{Path(folder) / META} holds settings that nothing can be made of here ({type(error).__name__}: {error}): "
            "another version saved them, or they were changed by hand; fit and save it again"
        ) from error


def _settings_hash(settings: Mapping[str, Any], fitted_on: Mapping[str, Any]) -> str:
    """Of both as JSON says them, so that it is the same before and after the disk."""
    return state_hash({}, json.loads(json.dumps({"settings": dict(settings), "fitted_on": dict(fitted_on)})))


def _folder(folder: str | Path) -> Path:
    check_given(folder, (str, Path), name="folder", remedy="the name of a folder")
    return Path(folder)


def _check_finite(tensors: Mapping[str, Tensor], *, where: str) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{where}: tensor {name!r} has values that are not finite; "
                "the fit went wrong or the file is damaged, fit it again"
            )


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    partial = target.with_name(target.name + ".partial")
    write(partial)
    partial.replace(target)
