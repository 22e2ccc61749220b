"""Notebooks as files: which there are, what parameters they take, and how one is made fit to be committed.

A notebook is notebooks/NN_title.ipynb; the numbers give the order and may have gaps. Its parameters are the
assignments of plain values in the one cell tagged `parameters`. They are read from the syntax tree, without
running anything, so that a misspelt name or a wrong type stops a run before it starts.
"""

import ast
import copy
import itertools
import re
from pathlib import Path
from typing import Any

import nbformat

from autosteer_lib.profiles import did_you_mean
from autosteer_lib.provenance import hash_text

NAME = re.compile(r"\d\d_[a-z0-9_]+\.ipynb")
PARAMETERS_TAG = "parameters"
INJECTED_TAG = "injected-parameters"
READS_EARLIER_TAG = "reads-earlier-tables"
STARTS_FIRST_TAG = "starts-first"
CHECKED_TAG = "nbval-check-output"
TAGS = (PARAMETERS_TAG, INJECTED_TAG, READS_EARLIER_TAG, STARTS_FIRST_TAG, CHECKED_TAG)
REQUIRED_PARAMETERS = ("profile", "seed", "out")
KERNEL = "python3"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PROGRESS = re.compile(r"\d+%\||\d+it \[|it/s\]|s/it\]")  # a text progress bar in any stage

Notebook = Any  # nbformat.NotebookNode: nbformat carries no types


def find_notebooks(folder: Path) -> list[Path]:
    """The numbered notebooks of `folder` in order.

    Raises:
        ValueError: none, or two with one number (their order would be an accident).
    """
    found = sorted(path for path in folder.glob("*.ipynb") if NAME.fullmatch(path.name))
    if not found:
        raise ValueError(f"no notebooks in {folder.name}/: they are named like 00_the_organism.ipynb")
    for one, other in itertools.pairwise(found):
        if one.name[:2] == other.name[:2]:
            raise ValueError(
                f"{one.name} and {other.name} have one number; rename one, the order must be plain"
            )
    return found


def read_notebook(path: Path) -> Notebook:
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, UnicodeDecodeError, nbformat.reader.NotJSONError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"{path.name} is not a readable notebook: {reason}; restore it with git") from None


def has_tag(cell: Notebook, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def reads_earlier_tables(notebook: Notebook) -> bool:
    """Whether a cell is tagged so: the notebook starts from what those before it wrote, not from the model alone."""
    return any(has_tag(cell, READS_EARLIER_TAG) for cell in notebook.cells)


def starts_first(notebook: Notebook) -> bool:
    """Whether a cell is tagged so: the longest notebook, which alone at the end would leave all other cores idle."""
    return any(has_tag(cell, STARTS_FIRST_TAG) for cell in notebook.cells)


def notebook_parameters(notebook: Notebook, *, name: str) -> dict[str, Any]:
    """Names and default values in the parameters cell.

    Raises:
        ValueError: no such cell or several, a value that is not a plain constant, or one of profile, seed and
            out missing.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and has_tag(cell, PARAMETERS_TAG)]
    if len(cells) != 1:
        raise ValueError(f"{name}: {len(cells)} cells are tagged `{PARAMETERS_TAG}`; exactly one must be")
    parameters = {}
    for statement in ast.parse(cells[0].source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            raise ValueError(
                f"{name}: the parameters cell may only assign plain values (seed = 0), one a line"
            )
        try:
            assert isinstance(statement, ast.Assign | ast.AnnAssign)
            parameters[targets[0].id] = ast.literal_eval(statement.value or ast.Constant(None))
        except ValueError:
            raise ValueError(
                f"{name}: parameter {targets[0].id} is computed; its default must be a constant"
            ) from None
    missing = [required for required in REQUIRED_PARAMETERS if required not in parameters]
    if missing:
        raise ValueError(
            f"{name}: the parameters cell lacks {', '.join(missing)}; it needs {', '.join(REQUIRED_PARAMETERS)}"
        )
    return parameters


def check_parameters(given: dict[str, Any], allowed: dict[str, Any], *, name: str) -> None:
    """Refuse what papermill would only log: a name the notebook does not have, or a value of another type."""
    for parameter, value in given.items():
        if parameter not in allowed:
            raise ValueError(f"{name} has no parameter {parameter!r}: {did_you_mean(parameter, allowed)}")
        default = allowed[parameter]
        if type(value) is not type(default):
            raise ValueError(
                f"{name}: parameter {parameter} = {value!r} is {type(value).__name__}, "
                f"but must be {type(default).__name__} (default {default!r})"
            )


def source_hash(notebook: Notebook, *, code_only: bool = False) -> str:
    """Hash of what people wrote: cell types, sources and tags; never outputs, counts or ids."""
    cells = [
        (cell.cell_type, cell.source, sorted(cell.metadata.get("tags", [])))
        for cell in notebook.cells
        if not has_tag(cell, INJECTED_TAG) and not (code_only and cell.cell_type != "code")
    ]
    return hash_text(repr(cells))


def without_outputs(notebook: Notebook) -> Notebook:
    """A copy to execute: sources only."""
    bare = copy.deepcopy(notebook)
    bare.cells = [cell for cell in bare.cells if not has_tag(cell, INJECTED_TAG)]
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return bare


def for_publication(executed: Notebook, *, root: Path) -> Notebook:
    """A copy to commit: what was computed, without when, where and by which interpreter.

    Gone are papermill's and the kernel's times and versions, progress bars (their speeds differ from run to
    run), widget state, and the checkout's own path. Warnings stay: the hygiene check reports them.
    """
    clean = without_machine(executed, root=root)
    clean.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
            "language_info": {"name": "python"},
        }
    )
    count = 0
    for cell in clean.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
        cell.execution_count = None
        if cell.source.strip():
            count += 1
            cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    return clean


def without_machine(notebook: Notebook, *, root: Path) -> Notebook:
    """A copy whose text outputs name files relative to the checkout."""
    clean = copy.deepcopy(notebook)
    clean.cells = [cell for cell in clean.cells if not has_tag(cell, INJECTED_TAG)]
    prefix = f"{root.resolve().as_posix()}/"

    def shorten(text: str) -> str:
        return text.replace(prefix, "").replace(prefix.rstrip("/"), ".")

    for cell in clean.cells:
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = shorten(output.text)
            for kind, content in output.get("data", {}).items():
                if isinstance(content, str) and not kind.startswith("image/"):
                    output.data[kind] = shorten(content)
    return clean


def _is_progress(output: Notebook) -> bool:
    if output.output_type == "stream" and output.name == "stderr":
        lines = [line for line in re.split(r"[\r\n]+", output.text) if line.strip()]
        return all(_PROGRESS.search(line) for line in lines)
    return _WIDGET in output.get("data", {})
