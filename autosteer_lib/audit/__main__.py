"""Makes the fingerprints of real sets again, or holds the committed ones against them.

    python -m autosteer_lib.audit --rows <folder>            writes data/audit/<set>.csv and nearest.csv
    python -m autosteer_lib.audit --rows <folder> --check    writes nothing; exit code 1 if any differ

The folder's layout is in real_rows.py. No text of it is printed or written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autosteer_lib.audit.fingerprints import FOLDER
from autosteer_lib.audit.real_rows import made_anew, present
from autosteer_lib.committed import write_text


def main(arguments: Sequence[str] | None = None, *, folder: Path = FOLDER) -> int:
    """Run the command; `folder` is where the tables lie."""
    parser = argparse.ArgumentParser(
        prog="python -m autosteer_lib.audit", description="Fingerprints of real sets."
    )
    parser.add_argument("--rows", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--check", action="store_true", help="compare with the committed ones, write nothing")
    options = parser.parse_args(arguments)
    try:
        _, missing = present(options.rows)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if missing:
        print(f"not in the folder: {', '.join(missing)}")
    differ = 0
    for name, table in made_anew(options.rows).items():
        path = folder / f"{name}.csv"
        text = table.to_csv(index=False, lineterminator="\n")
        if options.check:
            same = path.is_file() and path.read_text(encoding="utf-8") == text
            differ += not same
            print(f"{name}: {len(table)} rows, {'the same' if same else 'not the committed ones'}")
        else:
            write_text(path, text)
            print(f"{name}: {len(table)} rows")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
