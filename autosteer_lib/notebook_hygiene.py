"""What a committed notebook must be: run from top to bottom, free of errors and of the machine it ran on.

    python -m autosteer_lib.notebook_hygiene notebooks/*.ipynb      exit code 1 and one line for each fault

The pre-commit hook and `make lint` run it; `--update` of the driver runs it on what it has published.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from autosteer_lib.notebook_files import (
    CHECKED_TAG,
    INJECTED_TAG,
    NAME,
    TAGS,
    Notebook,
    has_tag,
    notebook_parameters,
    read_notebook,
)
from autosteer_lib.profiles import did_you_mean

CELL_LINES = 40  # a screen; a longer cell belongs into the library

# Folders of one person or one run. A checkout's own path always lies under one of them or in a temporary one.
_MACHINE_PATH = re.compile(
    r"(?<![\w./-])(?:/(?:home|Users|root|tmp|var|private|mnt|work|workspace)/[\w.-]|[A-Za-z]:\\\w)"
)
_TIMESTAMP = re.compile(r"\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d")


def problems(path: Path) -> list[str]:
    """Every fault of one notebook, as lines that name the cell (from 1) and the remedy."""
    try:
        notebook = read_notebook(path)
    except ValueError as error:
        return [str(error)]
    return [f"{path.name}: {fault}" for fault in _faults(notebook, path)]


def _faults(notebook: Notebook, path: Path) -> Iterator[str]:
    if not NAME.fullmatch(path.name):
        yield "is not named like 00_the_organism.ipynb, so the driver does not find it"
    try:
        notebook_parameters(notebook, name="parameters")
    except (ValueError, SyntaxError) as error:
        yield str(error)
    if "papermill" in notebook.metadata:
        yield "carries papermill's own record; publish it with `make publish`"
    if not any(has_tag(cell, CHECKED_TAG) for cell in notebook.cells):
        yield f"has no cell tagged {CHECKED_TAG}, so nothing of it is compared; tag the one that calls study.verify(…)"
    expected = 1
    for number, cell in enumerate(notebook.cells, start=1):
        where = f"cell {number}"
        for tag in sorted({*cell.metadata.get("tags", [])} - {*TAGS}):
            yield f"{where} has a tag {tag!r} that is none of this project's; {did_you_mean(tag, TAGS)}"
        if has_tag(cell, INJECTED_TAG):
            yield f"{where} was injected by a run with other parameters; publish the default profile"
        yield from (f"{where} {fault}" for fault in _text_faults(cell.source, "says"))
        if cell.cell_type != "code":
            continue
        lines = len(cell.source.splitlines())
        if lines > CELL_LINES:
            yield f"{where} has {lines} lines, at most {CELL_LINES}; move code into the library"
        if cell.source.strip():
            if cell.execution_count != expected:
                yield (
                    f"{where} has execution count {cell.execution_count}, expected {expected}; "
                    "run the notebook from top to bottom (`make publish`)"
                )
            expected += 1
        yield from (f"{where} {fault}" for fault in _output_faults(cell))


def _output_faults(cell: Notebook) -> Iterator[str]:
    if has_tag(cell, CHECKED_TAG) and not cell.outputs:
        yield f"is tagged {CHECKED_TAG} but prints nothing to check"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"ended in an error ({output.ename}); mend it and run again"
        if output.output_type == "stream" and output.name == "stderr":
            first = output.text.strip().splitlines()
            yield f"wrote to stderr ({first[0][:80] if first else ''}); remove the warning's cause"
        texts = [output.get("text", "")]
        texts += [
            content
            for kind, content in output.get("data", {}).items()
            if isinstance(content, str) and not kind.startswith("image/")
        ]
        for text in texts:
            yield from _text_faults(text, "shows")


def _text_faults(text: str, verb: str) -> Iterator[str]:
    if found := _MACHINE_PATH.search(text):
        path = text[found.start() : found.start() + 30].splitlines()[0]
        yield f"{verb} a path of one machine ({path}…); name it from the checkout"
    if found := _TIMESTAMP.search(text):
        yield f"{verb} a time of day ({found.group()}); it differs at every run"


def main(arguments: list[str]) -> int:
    if missing := [argument for argument in arguments if not Path(argument).is_file()]:
        print(f"{', '.join(missing)}: no such file; name notebooks, as in notebooks/*.ipynb")
        return 2
    found = [problem for argument in arguments for problem in problems(Path(argument))]
    print("\n".join(found) or f"{len(arguments)} notebooks are clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
