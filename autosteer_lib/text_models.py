"""A text model beside the defended one, by folder or by hub id: a judge, a detector, a rewriter.

It is loaded whole or not at all: transformers fills missing weights with random numbers, and a judge of that
kind would go on judging. As everywhere here only safetensors are read and no code of a checkpoint is run. An
adapter (LoRA) needs the package peft and fetches its base too.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from autosteer_lib.checkpoints import fingerprint, locate
from autosteer_lib.halving import is_out_of_memory
from autosteer_lib.models import quiet_transformers

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def load_text_model(
    kind: Any, name: str | Path, *, revision: str | None, dtype: torch.dtype, device: str, **options: Any
) -> tuple[Any, Any, str]:
    """Load a text model in evaluation mode, ready for batches.

    Args:
        kind: the auto class of transformers that knows its head.
        name: a folder, or owner/name on the hub.
        revision: branch, tag or commit on the hub.
        dtype: of its weights.
        device: where it runs.
        options: handed to `from_pretrained`.

    Returns:
        Model, tokenizer, and what identifies them: commit, hash of the files, dtype, device.

    Raises:
        OSError, ValueError, ImportError: what is missing, and the remedy.
    """
    folder, commit = locate(name, revision=revision)
    adapter = (folder / ADAPTER).is_file()
    if adapter and find_spec("peft") is None:
        raise ImportError(
            f"{name} is an adapter for another model, which the package peft loads: pip install peft"
        )
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, report = kind.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be loaded as a text model ({type(error).__name__}: {error}); give a folder or hub id "
            "with configuration, tokenizer and safetensors: pickled weights and remote code are never loaded"
        ) from error
    lacking = _without_head(folder) if adapter else sorted(report["missing_keys"])
    if lacking:
        # transformers would go on with random numbers in their place, and judge by them.
        raise ValueError(
            f"{name} lacks {', '.join(lacking[:3])}: it holds no model of this kind; give the checkpoint of a trained one"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # as the published code does; padding is masked
    where = f"{commit or 'folder'} {fingerprint(folder)} {dtype} {device}"
    return _placed(model, name=name, device=device).eval().requires_grad_(False), tokenizer, where


def _placed(model: Any, *, name: str | Path, device: str) -> Any:
    try:
        return model.to(device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = sum(weights.nbytes for weights in model.parameters()) / 1e9
        raise ValueError(
            f"{name} does not fit on {device} beside what is there ({size:.1f} GB of weights); take a machine with more "
            "memory, device='cpu', or a smaller checkpoint"
        ) from error


def _without_head(folder: Path) -> list[str]:
    """An adapter's base has no such output of its own: the adapter must bring it."""
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        brought = any("score" in name.split(".") for name in file.keys())  # noqa: SIM118
    return [] if brought else ["score"]
