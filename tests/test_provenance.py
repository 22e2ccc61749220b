"""What is recorded of a run changes when, and only when, something that makes its numbers changes."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from autosteer_lib.provenance import (
    ABSENT,
    data_hash,
    git_state,
    hash_files,
    library_hash,
    provenance,
    repository_root,
)
from tests.notebook_projects import commit, git, make_project


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project", {})


def test_the_same_circumstances_have_one_id(project):
    assert provenance(project).id == provenance(project).id


def test_lock_data_and_commit_change_the_id(project):
    before = provenance(project)
    (project / "requirements.lock").write_text("torch==9.9")
    assert provenance(project).lock != before.lock
    (project / "data").mkdir()
    (project / "data" / "weights").write_bytes(b"\0")
    assert provenance(project).data != before.data
    commit(project)
    after = provenance(project)
    assert after.commit != before.commit
    assert after.id != before.id


def test_dirty_is_about_the_code_and_not_about_its_products(project):
    assert git_state(project) == (git(project, "rev-parse", "HEAD").strip(), False)
    (project / "figures").mkdir()
    (project / "figures" / "table1.csv").write_text("a\n1\n")
    (project / "notebooks" / "00_x.ipynb").write_text("{}")
    assert git_state(project)[1] is False
    (project / "pyproject.toml").write_text("# changed")
    assert git_state(project)[1] is True


def test_outside_git_the_commit_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) == (ABSENT, False)


def test_without_git_installed_the_commit_is_absent(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(project) == (ABSENT, False)


def test_nothing_personal_is_recorded(project):
    text = json.dumps(dataclasses.asdict(provenance(project)))
    assert str(Path.home()) not in text
    assert str(project) not in text
    assert socket.gethostname() not in text


def test_hash_depends_on_names_and_bytes_and_not_on_order(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("x")
    other.write_text("y")
    both = hash_files([one, other], root=tmp_path)
    assert both == hash_files([other, one], root=tmp_path)
    other.write_text("z")
    assert both != hash_files([one, other], root=tmp_path)
    other.rename(tmp_path / "third")
    assert hash_files([one, other], root=tmp_path) != hash_files([one, tmp_path / "third"], root=tmp_path)


def test_library_hash_ignores_caches(monkeypatch):
    before = library_hash()
    assert len(before) == 64
    assert before == library_hash()


def test_no_data_folder_is_not_an_error(tmp_path):
    assert data_hash(tmp_path) == hash_files([], root=tmp_path)


def test_repository_is_found_from_inside(project):
    assert repository_root(project / "notebooks") == project


def test_elsewhere_the_librarys_own_checkout_is_taken(tmp_path):
    """As in a script outside any checkout that uses an editable install."""
    assert repository_root(tmp_path) == Path(__file__).parents[1]


def test_an_installed_library_without_a_checkout_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "autosteer_lib.provenance.__file__", str(tmp_path / "site-packages" / "provenance.py")
    )
    with pytest.raises(FileNotFoundError, match="run from inside a clone"):
        repository_root(tmp_path)
