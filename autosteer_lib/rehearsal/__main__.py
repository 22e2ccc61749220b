"""Rehearse a profile: its own notebooks on stand-ins, before anything is downloaded.

    python -m autosteer_lib.rehearsal --profile paper               its model's family; a folder's by its config.json
    python -m autosteer_lib.rehearsal --profile paper --families    and one of each further family that it names

Stand-ins are written below build/rehearsal, tables and figures into build/rehearsal-<profile>-<family>. Exit codes are
the driver's (reproduce.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from autosteer_lib import reproduce
from autosteer_lib.benchmarks.needed import needed_sets
from autosteer_lib.profiles import Profile, load_profile
from autosteer_lib.provenance import repository_root
from autosteer_lib.rehearsal.checkpoint import released_checkpoint
from autosteer_lib.rehearsal.profile import families_of, write_rehearsal
from autosteer_lib.rehearsal.rows import write_sets
from autosteer_lib.rehearsal.stand_in_judges import write_judges


def prepare(profile: Profile, family: str, *, folder: Path) -> Path:
    """Write all that a rehearsal needs below a folder, and return its profile.

    Raises:
        ValueError: no stand-in of this family.
    """
    model = released_checkpoint(family, folder / "models" / family)
    write_sets([needed.benchmark.name for needed in needed_sets(profile)], folder / "sets")
    judges = write_judges(profile.judges.second, folder / "judges")
    return write_rehearsal(
        profile, folder / f"rehearsal-{profile.name}-{family}.toml", model=model, judges=judges
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m autosteer_lib.rehearsal",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", default="paper", help="a shipped profile or a .toml file")
    parser.add_argument("--families", action="store_true", help="one of each further family as well")
    options = parser.parse_args(arguments)
    try:
        folder = repository_root() / "build" / "rehearsal"
        profile = load_profile(options.profile)
        families = families_of(profile, root=repository_root(), further=options.families)
        prepared = [prepare(profile, family, folder=folder) for family in families]
    except (ValueError, FileNotFoundError) as error:
        print(f"nothing was started: {error}", file=sys.stderr)
        return 2
    os.environ["AUTOSTEER_BENCHMARKS"] = str(folder / "sets")  # kernels inherit it
    codes = [reproduce.main(["--profile", str(path)]) for path in prepared]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
