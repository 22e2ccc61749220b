"""Prompts from files: JSON lines, one prompt a line.

    {"id": …, "text": …, "images": ["relative/path.png"], "videos": ["relative/path.mp4"], "frames": 8,
     "harmful": true, "surface": "words", "group": "attack", "pair_id": …, "intention": …, "reference": …}

Only text is needed, and "harmful" in all files but refusals.jsonl. Paths start at the folder; "frames" says how many
of each video are shown (videos.py: which, and 8 where it is left out) and goes with "videos" alone. "id", "surface",
"pair_id", "intention" and "reference" are strings, "harmful" is true or false. What each file is for: own_files.py.

Every fault of a file is told at once, each with its line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autosteer_lib.profiles import did_you_mean
from autosteer_lib.prompts import Prompt
from autosteer_lib.videos import VideoFile

_WORDS = ("id", "text", "surface", "group", "pair_id", "intention", "reference")
_LISTS = ("images", "videos")
_FIELDS = {*_WORDS, *_LISTS, "frames", "harmful"}
_TOLD = 8  # faults of one file that are spelt out; a wrong column is wrong in every line


def read_prompts(path: Path, *, groups: Sequence[str]) -> list[Prompt]:
    """The prompts of one file.

    Args:
        path: of the JSON lines.
        groups: values that "group" may have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has no prompt, or lines that are none; names each line and what is allowed.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent.name}/{path.name} does not exist{_nearest(path.parent)}; a profile with data.source = "
            "'files' needs pairs.jsonl, refusals.jsonl and tests.jsonl there, texts.jsonl for MARS, probe.jsonl for "
            "SafeSteer, and all of these and validation.jsonl for the comparison (format: "
            "autosteer_lib/study/prompt_files.py)"
        )
    found: list[Prompt] = []
    faults: list[str] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            prompt = _prompt(line, path, number, groups)
            if (first := lines_of.setdefault(prompt.id, number)) != number:
                raise ValueError(
                    f"id {prompt.id!r} is that of line {first} too; ids are unique within a file"
                )
            found.append(prompt)
        except ValueError as error:
            faults.append(f"{path.name} line {number}: {error}")
    if faults:
        more = [f"and {len(faults) - _TOLD} lines more"] if len(faults) > _TOLD else []
        raise ValueError("\n".join([*faults[:_TOLD], *more]))
    if not found:
        raise ValueError(f"{path.parent.name}/{path.name} holds no prompt; give at least one line")
    return found


def _lines(path: Path) -> list[str]:
    try:
        # Not `splitlines`: JSON lets a text hold U+2028 and others that it would cut at. A BOM is what editors add.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.parent.name}/{path.name} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def _prompt(line: str, path: Path, number: int, groups: Sequence[str]) -> Prompt:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'no JSON ({error.msg} at character {error.pos + 1}); write one object a line, as in {{"text": "…"}}'
        ) from None
    if not isinstance(row, dict):
        raise ValueError(f'a {type(row).__name__}; write one object a line, as in {{"text": "…"}}')
    for field in row.keys() - _FIELDS:
        raise ValueError(f"unknown fields {field}: {did_you_mean(field, _FIELDS)}")
    if "text" not in row:
        raise ValueError(f"no text; allowed are {', '.join(sorted(_FIELDS))}")
    _check_types(row)
    group = row.pop("group", "attack" if row.get("harmful") else "benign")
    if group not in groups:
        raise ValueError(f"group {group!r}; allowed are {', '.join(groups)}")
    images, videos = (_files(row, name, path.parent) for name in _LISTS)
    if "frames" in row and not videos:
        raise ValueError(f"frames = {row['frames']} without videos; leave it out, or name the videos")
    clips = tuple(
        VideoFile(video, **({"frames": row["frames"]} if "frames" in row else {})) for video in videos
    )
    row.pop("frames", None)
    row.setdefault("id", f"{path.stem}/{number}")
    return Prompt(images=images, videos=clips, metadata={"group": group}, **row)


def _check_types(row: dict[str, Any]) -> None:
    for field in _WORDS:
        if field in row and not isinstance(row[field], str):
            given = json.dumps(row[field], ensure_ascii=False)
            remedy = "leave it out" if row[field] is None and field != "text" else "write it in quotes"
            raise ValueError(f"{field} is {given}, and must be a string; {remedy}")
    if not isinstance(row.get("harmful", False), bool):
        given = json.dumps(row["harmful"], ensure_ascii=False)
        raise ValueError(f"harmful is {given}; allowed are true and false, without quotes, or leave it out")
    frames = row.get("frames", 1)
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise ValueError(f"frames={frames!r}; give a whole number, at least 1")


def _files(row: dict[str, Any], name: str, folder: Path) -> tuple[Path, ...]:
    files = row.pop(name, [])
    if isinstance(files, str):  # a bare name would be read letter by letter
        raise ValueError(f'{name} is {files!r}; give a list of paths, as in ["{files}"]')
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        given = json.dumps(files, ensure_ascii=False)
        raise ValueError(f'{name} is {given}; give a list of paths, as in ["a.png"], or leave it out')
    for file in files:
        if not (folder / file).is_file():
            raise ValueError(
                f"{name} names {file}, which does not exist in {folder}; paths start at that folder"
            )
    return tuple(folder / file for file in files)


def _nearest(folder: Path) -> str:
    """What is there instead, as far as a person needs it to see the slip."""
    if not folder.is_dir():
        return f" (there is no folder {folder})"
    names = sorted(path.name for path in folder.glob("*.json*"))
    return f" (in {folder} there are {', '.join(names) or 'no JSON lines'})"
