"""What a checkpoint's family is, whether it can be loaded at all, and the little that its structure cannot tell.

A family is what config.json calls `model_type`. Nearly everything about one is found by looking: the
decoder (decoder.py), whether there is a processor for pictures and for clips (models.MLLM), which tokens stand
for pixels (encoding.py). The two tables below hold the rest, each row with its reason. They are read by exact
family, never by a part of a name.
"""

import json
from pathlib import Path

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

ONE_KIND_OF_SIGHT = {
    "molmo2": "its forward pass refuses pixels of pictures beside pixels of clips",
    "smolvlm": "its processor lets the pixels of clips overwrite those of pictures, in silence",
}
"""Families of which one batch holds pictures or clips, and not both; see `encoding.encode`."""

DEFAULT_TEMPLATES = {
    # The released checkpoints have no chat template: a turn is words with <image> in them, and the processor
    # ends it with the separator, after which the model speaks.
    "chameleon": (
        "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ sep_token }}{% endif %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}"
        "{% endfor %}{% endfor %}"
    ),
}
"""Chat templates for checkpoints that come without one."""


def model_type(folder: Path) -> str:
    """The family that config.json names; "" where it names none.

    Raises:
        ValueError: config.json is no JSON object.
    """
    return str(_config(folder).get("model_type") or "")


def check_family(folder: Path) -> None:
    """Check that the installed transformers has a class of its own for this checkpoint that sees and writes.

    Raises:
        ValueError: the family is unknown, comes as code of its own, or reads words alone; says what to do.
    """
    if not (folder / "config.json").is_file():
        return  # checkpoints.check_folder says so
    config = _config(folder)
    family = model_type(folder)
    if family in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return
    if "auto_map" in config and family not in CONFIG_MAPPING_NAMES:
        raise ValueError(
            f"{folder} is a {family!r} checkpoint that can only be loaded with the Python code beside its "
            "weights, and such code is never run here; use a checkpoint of this family in transformers' own "
            "format (often the same name with -hf at its end), or convert it"
        )
    if family not in CONFIG_MAPPING_NAMES:
        raise ValueError(
            f"{folder} is of the family {family!r}, which transformers {transformers.__version__} does not "
            "know; check model_type in config.json, or install a transformers that has it"
        )
    raise ValueError(
        f"{folder} is a {family!r} checkpoint, and transformers {transformers.__version__} has no class of "
        "this family that reads pictures and writes text; load a multimodal checkpoint"
    )


def _config(folder: Path) -> dict[str, object]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); download or save the checkpoint again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no JSON object; download or save the checkpoint again")
    return config
