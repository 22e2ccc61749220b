"""Chapter 09: the report. It reads the tables and figures of the other chapters and computes only means."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
from IPython.display import Image, Markdown, display

from autosteer_lib.committed import build_entries
from autosteer_lib.provenance import provenance
from autosteer_lib.readings import DIFFERENCES
from autosteer_lib.study.study import Study

NUMBER = "09"  # of the chapter: the names of notebooks begin with theirs


def headline(study: Study) -> pd.DataFrame:
    """Table 1 in one row a group: means over the surfaces, each surface counting alike.

    Returns:
        group, measure, one column a method, surfaces (how many).
    """
    table = study.artefacts.read("table1")
    means = table.groupby(["group", "measure", "defence"], sort=False)["rate"].mean().unstack("defence")
    counts = table.groupby(["group", "measure"], sort=False)["surface"].nunique()
    methods = list(dict.fromkeys(table["defence"]))
    return means[methods].assign(surfaces=counts).reset_index().rename_axis(columns=None)


def differences() -> pd.DataFrame:
    """The differences between paper and code.

    Returns:
        number, what, paper, code, options, measurable.
    """
    return pd.DataFrame(
        [
            {
                "number": d.number,
                "what": d.what,
                "paper": d.paper,
                "code": d.code,
                "options": ", ".join(d.options),
                "measurable": d.measurable,
            }
            for d in DIFFERENCES
        ]
    )


def figures(study: Study) -> dict[str, list[tuple[str, Path]]]:
    """Of each notebook before this one: (title, file) of every figure that it made, in the order of their names.

    Those of a later notebook may be there or not, depending on what ran before: a report with them would not repeat.
    """
    folder = study.artefacts.build / "figures"
    made = build_entries(study.artefacts.build, "figure")
    found: dict[str, list[tuple[str, Path]]] = {}
    for notebook, name in sorted((str(entry["notebook"]), name) for name, entry in made.items()):
        if notebook < NUMBER:
            found.setdefault(notebook, []).append((name.replace("_", " "), folder / f"{name}.png"))
    return found


def show(notebook: str, some: list[tuple[str, Path]]) -> None:
    """Display the figures of one notebook, each with its title."""
    display(Markdown(f"### Notebook {notebook.replace('_', ' ')}"))
    for title, path in some:
        display(Markdown(f"**{title}**"))
        display(Image(data=path.read_bytes(), width=650))


def provenance_table() -> pd.DataFrame:
    """What made this run: code, lock, versions, machine.

    Returns:
        what, value.
    """
    facts = asdict(provenance())
    return pd.DataFrame([{"what": name, "value": str(value)} for name, value in facts.items()])
