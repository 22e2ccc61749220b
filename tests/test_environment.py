"""pyproject.toml, requirements.lock and environment.yml say the same, and nothing in them names a registry."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# One entry: the pin, its hashes, and the comments that say who asked for it.
ENTRIES = re.split(r"\n(?=[a-z0-9])", LOCK.strip())


def _pins() -> dict[str, list[Requirement]]:
    pins: dict[str, list[Requirement]] = {}
    for entry in ENTRIES:
        requirement = Requirement(entry.split(" \\\n")[0])
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_pins_every_requirement_inside_its_range(requirement, python):
    environment = {name: str(value) for name, value in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.0"}
    pins = _pins().get(canonicalize_name(requirement.name), [])
    active = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
    assert len(active) == 1, f"{requirement.name}: {len(active)} pins for Python {python}; run `make lock`"
    (specifier,) = active[0].specifier
    assert specifier.operator == "=="
    assert requirement.specifier.contains(specifier.version), (
        f"{active[0]} is not in {requirement}; run `make lock`"
    )


def test_the_lock_was_made_from_these_requirements_and_no_others():
    asked = {
        canonicalize_name(Requirement(entry.split(" \\\n")[0]).name)
        for entry in ENTRIES
        if "autosteer-lib (pyproject.toml)" in entry
    }
    assert asked == {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}, "run `make lock`"


def test_every_pin_carries_hashes():
    assert [entry.splitlines()[0] for entry in ENTRIES if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize(
    "path", ["requirements.lock", "pyproject.toml", "environment.yml", "Makefile", ".ci/setup", ".ci/run"]
)
def test_no_registry_is_named(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links|file://", text)


def test_conda_users_get_the_same_lock_and_the_same_pythons():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock"]
    (python,) = [entry for entry in plain if entry.startswith("python")]
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])


def test_required_packages_are_required():
    names = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    required = [
        "jupyterlab",
        "papermill",
        "torch",
        "transformers",
        "seaborn",
        "scikit-learn",
        "datasets",
        "nbval",
    ]
    assert names.issuperset(required)


def test_ranges_leave_a_machine_its_own_torch():
    by_name = {requirement.name: requirement for requirement in REQUIREMENTS}
    assert by_name["torch"].specifier.contains("2.11.0")
    assert by_name["transformers"].specifier.contains("5.17.0")


def test_citation_names_the_software_and_the_three_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    papers = {identifier["value"] for paper in citation["references"] for identifier in paper["identifiers"]}
    assert papers == {"arXiv:2507.13255", "arXiv:2605.11716", "arXiv:2606.31876"}


def test_profiles_are_part_of_the_package():
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "profiles/*.toml" in configuration["tool"]["setuptools"]["package-data"]["autosteer_lib"]
