"""A fitted part that cannot be read back stops a run with the folder to delete."""

from pathlib import Path

import pytest

from autosteer_lib.study.fitted_once import fitted_once


class Part:
    """Whatever was fitted."""

    def save(self, folder: str | Path) -> Path:
        place = Path(folder)
        place.mkdir(parents=True)
        (place / "state.json").write_text("whole")
        return place


def load(folder: Path) -> Part:
    if (folder / "state.json").read_text() != "whole":
        raise ValueError("state.json is damaged; fit and save it again")
    return Part()


def test_it_is_fitted_once(tmp_path: Path) -> None:
    fits: list[Part] = []

    def fit() -> Part:
        fits.append(Part())
        return fits[-1]

    for _ in range(2):
        fitted_once(tmp_path / "deep" / "part", load=load, fit=fit)
    assert len(fits) == 1


def test_a_damaged_one_names_the_folder_to_delete(tmp_path: Path) -> None:
    folder = Part().save(tmp_path / "part")
    (folder / "state.json").write_text("torn")
    with pytest.raises(
        ValueError, match=r"is damaged; fit and save it again\. .*delete .*part and run again"
    ):
        fitted_once(folder, load=load, fit=Part)
