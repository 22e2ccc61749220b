"""One run of the notebooks, before anything is executed: what, under which profile, with which parameters.

`open_run` reads and checks all of it, so that a misspelt name costs a second and not the first hour. Other
parameters than the notebooks' own (seed=1) make another build, build/<profile>-seed-1, which leaves the
default one as it is and has no committed numbers of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autosteer_lib.committed import Committed, build_entries
from autosteer_lib.notebook_files import (
    Notebook,
    check_parameters,
    find_notebooks,
    notebook_parameters,
    read_notebook,
)
from autosteer_lib.profiles import Profile, load_profile

DRIVER_SETS = ("profile", "out")  # parameters that follow from --profile


@dataclass(kw_only=True)
class Run:
    """One profile's run: where it reads and writes."""

    root: Path
    profile: Profile
    argument: str
    """What --profile was given: a name, or the full path of a file."""
    parameters: dict[str, Any] = field(default_factory=dict)
    notebooks: dict[str, Notebook] = field(default_factory=dict)
    """Name without ending → content, in order."""

    @property
    def label(self) -> str:
        """Names the build; other parameters than the notebooks' own make another build."""
        return self.profile.name + "".join(
            f"-{name}-{value}" for name, value in sorted(self.parameters.items())
        )

    @property
    def build(self) -> Path:
        return self.root / "build" / self.label

    @property
    def committed(self) -> Committed:
        return Committed(self.root / "figures", build=self.build, profile=self.label)

    def injected(self, name: str) -> dict[str, Any]:
        """What the notebook is given: only values that differ from its own."""
        defaults = notebook_parameters(self.notebooks[name], name=name)
        out = "" if self.label == self.profile.name else str(self.build)
        wanted = {**self.parameters, "profile": self.argument, "out": out}
        return {parameter: value for parameter, value in wanted.items() if value != defaults[parameter]}

    def executed(self, name: str) -> Path:
        return self.build / "notebooks" / f"{name}.ipynb"

    def own_entries(self, name: str) -> dict[str, list[str]]:
        """Artefacts that this notebook has made: kind → names."""
        return {
            kind: [key for key, entry in build_entries(self.build, kind).items() if entry["notebook"] == name]
            for kind in ("table", "figure")
        }


def open_run(root: Path, profile: str, parameters: Mapping[str, Any]) -> Run:
    """Read and check everything that can be checked before a kernel starts.

    Raises:
        ValueError: unknown profile, unreadable notebook, misspelt or wrongly typed parameter.
    """
    loaded = load_profile(profile)
    argument = str(Path(profile).resolve()) if profile != loaded.name else profile
    notebooks = {path.stem: read_notebook(path) for path in find_notebooks(root / "notebooks")}
    for name, notebook in notebooks.items():
        defaults = notebook_parameters(notebook, name=name)
        for parameter in DRIVER_SETS:
            if parameter in parameters:
                raise ValueError(f"parameter {parameter!r} follows from --profile; use that instead")
        check_parameters(dict(parameters), defaults, name=name)
    defaults = notebook_parameters(next(iter(notebooks.values())), name=next(iter(notebooks)))
    given = {parameter: value for parameter, value in parameters.items() if value != defaults[parameter]}
    return Run(root=root, profile=loaded, argument=argument, parameters=given, notebooks=notebooks)
