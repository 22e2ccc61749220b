"""A checkpoint folder, checked before any heavy work: is all there that a model needs, and whole?

A safetensors file says in its first bytes how long it must be:

    [8 bytes: n, little endian] [n bytes: JSON header with the offsets of each tensor] [tensors]

so a download that was cut short is found in microseconds, and named, without reading a weight.
Pickled weights and remote code are never loaded.
"""

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download

from autosteer_lib.arguments import check_given
from autosteer_lib.families import model_type

# What the answers depend on; a README, curves or a model card beside them do not change the model.
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def locate(name: str | Path, *, revision: str | None) -> tuple[Path, str | None]:
    """The folder of a checkpoint, and the commit it came from (None for a plain local folder).

    A hub's checkpoint is downloaded, or taken from the local cache when it is there already.

    Raises:
        ValueError: neither a folder nor `owner/name`, or a revision given for a folder.
        OSError: the hub's checkpoint cannot be fetched.
    """
    check_given(name, (str, Path), name="the checkpoint's name", remedy="a folder, or owner/name on the hub")
    folder = Path(name)
    if folder.is_dir():
        if revision:
            raise ValueError(
                f"revision {revision!r} was given for the local folder {folder}; a folder has one "
                "version only, leave revision=None"
            )
        return folder, None
    parts = str(name).split("/")
    if isinstance(name, Path) or len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~"):
        raise ValueError(
            f"no checkpoint {str(name)!r}: give a folder that exists, or owner/name of a "
            "checkpoint on the Hugging Face hub"
        )
    try:
        snapshot = Path(snapshot_download(str(name), revision=revision, allow_patterns=list(MODEL_FILES)))
    except OSError as error:
        raise OSError(
            f"cannot fetch checkpoint {name!r} at revision {revision or 'main'!r} "
            f"({type(error).__name__}: {error}); check the name, the network and your access to it"
        ) from error
    return snapshot, snapshot.name


def check_folder(folder: Path) -> None:
    """Check that configuration, processor and whole weight files are there.

    Raises:
        FileNotFoundError: a file is missing; names it and says what to do.
        ValueError: a weight file is truncated or is no safetensors file, or a JSON file is none.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no config.json: it is not a checkpoint; give the folder that save_pretrained wrote"
        )
    if not any((folder / file).is_file() for file in _PROCESSOR_FILES):
        raise FileNotFoundError(
            f"{folder}, a {model_type(folder)!r} checkpoint, has no processor "
            f"({' or '.join(_PROCESSOR_FILES)}): pictures cannot be encoded; take these files from the "
            "checkpoint that it was made from, or write them with processor.save_pretrained(folder)"
        )
    for pattern in MODEL_FILES:
        if pattern.endswith(".json") and "*" not in pattern and (folder / pattern).is_file():
            _check_json(folder / pattern)
    for weights in _weight_files(folder):
        _check_weight_file(weights)


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and bytes of every file that the model's answers depend on."""
    digest = hashlib.sha256()
    files = {file for pattern in MODEL_FILES for file in folder.glob(pattern)}
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name} {content}\n".encode())
    return digest.hexdigest()


def _check_json(file: Path) -> None:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # transformers goes on without a generation_config.json that it cannot read
        raise ValueError(f"{file} is no JSON ({error}); download or save the checkpoint again") from error


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        for shard in shards:
            if not (folder / shard).is_file():
                raise FileNotFoundError(
                    f"weight file {folder / shard} is missing: {index.name} lists {len(shards)} "
                    "files; download the checkpoint again"
                )
        return [folder / shard for shard in shards]
    single = folder / "model.safetensors"
    if not single.is_file():
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        found = f" (found {', '.join(pickled)}: pickled weights are never loaded)" if pickled else ""
        raise FileNotFoundError(
            f"{folder} has no weights: neither model.safetensors nor {index.name} is there{found}; "
            "save the model with save_pretrained, which writes safetensors"
        )
    return [single]


def _check_weight_file(file: Path) -> None:
    size = file.stat().st_size
    remedy = "download or save the checkpoint again"
    with file.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
        if size < 8 + header_size:
            raise ValueError(
                f"weight file {file} is truncated or no safetensors file: {size} bytes, its header "
                f"alone should take {8 + header_size}; {remedy}"
            )
        try:
            header = json.loads(stream.read(header_size))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"weight file {file} is no safetensors file: its header cannot be read "
                f"({type(error).__name__}); {remedy}"
            ) from error
    expected = 8 + header_size + max(ends, default=0)
    if size != expected:
        raise ValueError(
            f"weight file {file} is truncated: {size} bytes, its header announces {expected}; {remedy}"
        )
