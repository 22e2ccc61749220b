"""Fits of the models beside a study, made in a second process: the very parts that the first would look for."""

from pathlib import Path

import pytest

from autosteer_lib.profiles import PROFILE_FOLDER
from autosteer_lib.scale_out.cluster import VARIABLE, Cluster
from autosteer_lib.study import Study
from autosteer_lib.study.fitted_ahead import fit_beside

SECONDS = 300  # for a process that imports torch on a busy machine


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """The smoke profile, and beside it another that learns faster."""
    text = (PROFILE_FOLDER / "smoke.toml").read_text()
    (tmp_path / "other.toml").write_text(text.replace("lr = 1e-2", "lr = 2e-2"))
    (tmp_path / "both.toml").write_text(
        text.replace("beside = []", f'beside = ["{tmp_path / "other.toml"}"]')
    )
    study = Study.open(tmp_path / "both.toml", out=tmp_path / "build")
    assert study.mllm.device.type == "cpu"  # loaded before Ray is spoken of, or its actors would start
    return study


def _fits(study: Study) -> dict[Path, int]:
    """Fitted parts on disk, and when each was finished."""
    return {p.parent: p.stat().st_mtime_ns for p in (study.artefacts.build / "defences").glob("*/state.json")}


def test_a_part_fitted_ahead_is_the_one_that_is_read(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, Cluster(actors=1).variables[VARIABLE])
    process = fit_beside(study, fit=Study.autosteer)
    assert process is not None
    process.join(SECONDS)
    assert process.exitcode == 0, "it fits without the actors, which are not its own"
    monkeypatch.delenv(VARIABLE)

    ahead = _fits(study)
    assert len(ahead) == 1
    other = study.beside[0].autosteer()
    assert _fits(study) == ahead, "nothing was fitted again"
    own = study.autosteer()
    assert len(_fits(study)) == 2, "this study's own fit was left to this process"
    assert own.fingerprint != other.fingerprint


def test_without_ray_or_without_a_model_beside_it_one_process_does_all(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit_beside(study, fit=Study.autosteer) is None
    monkeypatch.setenv(VARIABLE, Cluster(actors=1).variables[VARIABLE])
    alone = study.beside[0]
    assert alone.profile.run.beside == []
    assert fit_beside(alone, fit=Study.autosteer) is None
    assert _fits(study) == {}
