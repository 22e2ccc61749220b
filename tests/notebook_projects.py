"""Throw-away projects with tiny notebooks, and an executor without kernels, for the tests of the driver."""

import contextlib
import io
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from autosteer_lib.artefacts import NOTEBOOK_VARIABLE
from autosteer_lib.execution import environment_of
from autosteer_lib.workers import Workers

PARAMETERS = 'profile = "organism"\nseed = 0\nout = ""'

# A whole chapter in miniature: one table, one figure, one comparison.
CHAPTER = [
    """import pandas as pd
from matplotlib.figure import Figure
from autosteer_lib.artefacts import Artefacts
artefacts = Artefacts.open(profile, out=out, facts={"seed": seed})""",
    """rates = pd.DataFrame({"defence": ["Orig.", "Steer"], "rate": [0.5 + seed, VALUE]})
artefacts.table(rates, "NAME", tolerance=0.01, reason="a test");""",
    """figure = Figure()
figure.subplots().plot(rates.rate)
artefacts.figure(figure, "NAME_plot", tables=["NAME"]);""",
]


def notebook(cells: list[str], *, parameters: str = PARAMETERS, checked: str = "") -> Any:
    """A notebook of code cells after its parameters; `checked` becomes the last, compared cell."""
    built = [nbformat.v4.new_markdown_cell("# A chapter")]
    built.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    built += [nbformat.v4.new_code_cell(source) for source in cells]
    if checked:
        built.append(nbformat.v4.new_code_cell(checked, metadata={"tags": ["nbval-check-output"]}))
    for number, cell in enumerate(built):
        cell["id"] = f"cell-{number}"
    return nbformat.v4.new_notebook(cells=built)


def chapter(name: str, *, value: float = 0.25) -> Any:
    cells = [cell.replace("NAME", name).replace("VALUE", str(value)) for cell in CHAPTER]
    return notebook(cells, checked=f'artefacts.verify("{name}")')


def make_project(root: Path, notebooks: dict[str, Any]) -> Path:
    """A checkout with these notebooks, committed, whose working tree is clean."""
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    (root / "requirements.lock").write_text("")
    (root / ".gitignore").write_text("/build/\n")
    for name, content in notebooks.items():
        nbformat.write(content, root / "notebooks" / f"{name}.ipynb")
    git(root, "init", "--quiet")
    commit(root)
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "state")


def run_in_process(
    source: Any,
    target: Path,
    *,
    parameters: dict[str, Any],
    folder: Path,
    progress: bool,
    forked: bool = False,
) -> dict[str, float]:
    """Stands in for `run_notebook`: the cells run in this process, which takes milliseconds."""
    executed = nbformat.from_dict(source)
    names: dict[str, Any] = {}
    target.parent.mkdir(parents=True, exist_ok=True)
    for cell in executed.cells:
        if cell.cell_type == "code":
            printed = io.StringIO()
            told = environment_of({NOTEBOOK_VARIABLE: target.stem})
            with contextlib.redirect_stdout(printed), told:
                exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names.update(parameters)
            text = printed.getvalue()
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
        nbformat.write(executed, target)
    return {"seconds": 0.0, "peak_memory_mb": 1.0, "cells": len(executed.cells)}


class InThisProcess(Workers):
    """Stands in for processes: a call is made when it is started."""

    def __init__(self, most: int, *, preload: Sequence[str]) -> None:
        super().__init__(1, preload=preload)
        self._done: list[tuple[str, Any]] = []

    @property
    def busy(self) -> int:
        return len(self._done)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self._done]

    def start(self, name: str, call: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        try:
            self._done.append((name, call(**arguments)))
        except Exception as error:
            self._done.append((name, error))

    def next_done(self) -> tuple[str, Any]:
        return self._done.pop()
