"""With SYSTEM=1 nothing is installed: say which of pyproject.toml's ranges the running Python does not meet.

`--dev` asks for what the checks need too.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ImportError:
    sys.exit(f"SYSTEM=1: {sys.executable} lacks packaging; install it, or leave SYSTEM out to let make do it")

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
unmet = []
for text in project["dependencies"] + (
    project["optional-dependencies"]["dev"] if "--dev" in sys.argv else []
):
    requirement = Requirement(text)
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        unmet.append(f"{text} is not installed")
        continue
    if not requirement.specifier.contains(
        installed, prereleases=True
    ):  # a card's own torch may be 2.12.0a0+…
        unmet.append(f"{text}, but {installed} is installed")
if unmet:
    sys.exit(
        f"SYSTEM=1 takes {sys.executable} as it is, and it does not meet pyproject.toml:\n  "
        + "\n  ".join(unmet)
        + "\nInstall these, or leave SYSTEM out to let make build an environment of its own."
    )
