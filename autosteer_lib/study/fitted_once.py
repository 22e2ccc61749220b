"""A fitted part is made once and read afterwards, also when two notebooks that run at once both need it.

Its folder is named by a hash of all that the fit depends on. A lock beside the folder makes the second of two notebooks
wait for the first instead of fitting the same again; the lock is the system's, so a killed fit leaves none behind.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from filelock import FileLock


@runtime_checkable
class Fitted(Protocol):
    """A fitted part that a folder can hold."""

    def save(self, folder: str | Path) -> Path:
        """Write it; state.json last."""


Part = TypeVar("Part", bound=Fitted)


def fitted_once(folder: Path, *, load: Callable[[Path], Part], fit: Callable[[], Part]) -> Part:
    """The part that the folder holds; if it holds none, the one that `fit` makes, which is then saved there.

    Raises:
        ValueError: the folder holds one that is damaged; says what to delete.
    """
    whole = folder / "state.json"
    if whole.is_file():
        return _loaded(folder, load)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if whole.is_file():
            return _loaded(folder, load)
        part = fit()
        part.save(folder)
        return part


def _loaded(folder: Path, load: Callable[[Path], Part]) -> Part:
    try:
        return load(folder)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{error}. This run made it itself: delete {folder} and run again") from error
