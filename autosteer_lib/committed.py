"""The reference: what figures/ held when the clone was made, or when the maintainer last published.

`make reproduce` copies a table that differs into figures/, so that `git status` shows exactly what differs.
The next comparison must still be against the original: otherwise a second run would call the first one's
result "committed". So the original is kept in build/<profile>/differs/ and stands for the table as long as
figures/ holds the copy; restoring the file with git, or publishing, ends that by itself.

figures/manifest.json says which profile it was made under. Any other profile has no committed numbers.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
ANY_COLUMN = "*"  # in a tolerance: every column that is not named

Entry = Mapping[str, Any]


class Committed:
    """The tables and figures in `figures`, seen from one profile's `build`."""

    def __init__(self, figures: Path, *, build: Path, profile: str) -> None:
        self.figures = figures
        self.profile = profile
        self._originals = build / "differs"
        path = figures / MANIFEST
        manifest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._manifest: dict[str, Any] = manifest if manifest.get("profile") == profile else {}

    @property
    def available(self) -> bool:
        """Whether there are committed numbers for this profile at all."""
        return bool(self._manifest)

    def table_names(self) -> list[str]:
        return sorted(self._manifest.get("tables", {}))

    def table(self, name: str) -> str | None:
        """CSV text of the committed table, or None."""
        if name not in self._manifest.get("tables", {}):
            return None
        content = self._original(f"{name}.csv")
        return None if content is None else content.decode("utf-8")

    def figure_names(self) -> list[str]:
        return sorted(self._manifest.get("figures", {}))

    def tolerance(self, name: str) -> dict[str, float]:
        """Largest absolute difference by column; the committed claim, which a rerun cannot widen."""
        return dict(self._manifest.get("tables", {}).get(name, {}).get("tolerance", {}))

    def reason(self, name: str) -> str:
        return str(self._manifest.get("tables", {}).get(name, {}).get("reason", ""))

    def is_volatile(self, name: str) -> bool:
        return bool(self._manifest.get("tables", {}).get(name, {}).get("volatile", False))

    def show_difference(self, file: str, regenerated: bytes) -> None:
        """Put a differing file into figures/ for git to show, and keep what it replaces."""
        original = self._original(file)
        self.restore(file)
        if original is not None:
            write_bytes(self._originals / file, original)
        write_text(self._originals / f"{file}.replaced", _digest(regenerated))
        write_bytes(self.figures / file, regenerated)

    def restore(self, file: str) -> None:
        """Undo `show_difference`, unless somebody has changed the file since."""
        path, mark, kept = self.figures / file, self._originals / f"{file}.replaced", self._originals / file
        if not mark.is_file():
            return
        if path.is_file() and mark.read_text(encoding="utf-8") == _digest(path.read_bytes()):
            if kept.is_file():
                write_bytes(path, kept.read_bytes())
            else:
                path.unlink()
        mark.unlink()
        kept.unlink(missing_ok=True)

    def _original(self, file: str) -> bytes | None:
        path, mark, kept = self.figures / file, self._originals / f"{file}.replaced", self._originals / file
        content = path.read_bytes() if path.is_file() else None
        if content is not None and mark.is_file() and mark.read_text(encoding="utf-8") == _digest(content):
            return kept.read_bytes() if kept.is_file() else None
        return content


def build_entries(build: Path, kind: str) -> dict[str, Entry]:
    """Manifest entries of the tables ("table") or figures ("figure") whose files a build holds, by name."""
    entries = {}
    endings = ("csv",) if kind == "table" else ("png", "svg")
    for path in sorted((build / "manifest").glob(f"{kind}-*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if all((build / f"{kind}s" / f"{entry['name']}.{ending}").is_file() for ending in endings):
            entries[str(entry["name"])] = entry
    return entries


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write whole or not at all: a run that is killed leaves no half file to be taken for a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(partial).chmod(0o644)  # mkstemp makes files private
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
