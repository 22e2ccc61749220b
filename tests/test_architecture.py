"""ARCHITECTURE.md says what is where: each file of the library is named there, and what is named exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "autosteer_lib"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("| in `autosteer_lib/`") : PAGE.index("## To add")]


def test_every_file_of_the_library_is_in_the_table() -> None:
    """Those of tiny_models/ are one a family, and go by the folder."""
    named = set(re.findall(r"`([^`]+)`", TABLE))
    files = {
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "tiny_models"
    }
    assert sorted(file for file in files if Path(file).stem not in named) == []


def test_what_the_page_names_exists() -> None:
    """Paths from the root or from the library, and tests by their file."""
    places = (ROOT, LIBRARY, ROOT / "tests")
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|toml|sh)|[\w-]+/[\w/-]*)`", PAGE))
    named -= {"build/"}  # made by a run
    assert len(named) > 30
    missing = [
        name for name in named if not any((place / name).exists() for place in places) and not _below(name)
    ]
    assert sorted(missing) == []


def _below(name: str) -> bool:
    """A file or folder that a section names without the folder it speaks of."""
    there = (*LIBRARY.rglob("*"), *(ROOT / "data").glob("*"))
    return any(path.as_posix().endswith(f"/{name.rstrip('/')}") for path in there)
