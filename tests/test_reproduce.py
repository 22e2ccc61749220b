"""The driver: what it refuses, skips, resumes, compares and publishes."""

import errno
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from filelock import FileLock
from jupyter_client.kernelspec import KernelSpecManager

from autosteer_lib import reproduce
from autosteer_lib.notebook_files import read_notebook
from autosteer_lib.runs import open_run
from tests.notebook_projects import (
    InThisProcess,
    chapter,
    commit,
    git,
    make_project,
    notebook,
    run_in_process,
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two chapters with a gap in their numbers, in the working folder."""
    root = make_project(tmp_path / "project", {"00_one": chapter("one"), "04_two": chapter("two")})
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def fast(monkeypatch):
    """Cells run in this process; the names of the notebooks that ran are collected."""
    ran: list[str] = []

    def run(notebook, target, **options):
        ran.append(target.stem)
        return run_in_process(notebook, target, **options)

    monkeypatch.setattr(reproduce, "run_notebook", run)
    monkeypatch.setattr(reproduce, "Workers", InThisProcess)
    return ran


def _run(*arguments: str) -> int:
    return reproduce.main(list(arguments))


def _edit(root: Path, name: str, content) -> None:
    nbformat.write(content, root / "notebooks" / f"{name}.ipynb")


def test_one_that_reads_the_others_tables_waits_for_those_before_it(project):
    reader = chapter("report")
    reader.cells[1].metadata["tags"].append("reads-earlier-tables")
    _edit(project, "09_report", reader)
    _edit(project, "10_later", chapter("later"))
    run = open_run(project, "organism", {})
    assert reproduce._next(run, ["00_one", "09_report", "10_later"], []) == "00_one"
    assert reproduce._next(run, ["09_report", "10_later"], ["04_two"]) == "10_later"
    assert reproduce._next(run, ["09_report"], ["04_two"]) is None
    assert reproduce._next(run, ["09_report"], ["10_later"]) == "09_report"
    run.notebooks["10_later"].cells[1].metadata["tags"].append("starts-first")
    assert reproduce._next(run, ["00_one", "09_report", "10_later"], []) == "10_later"


def test_a_first_run_has_nothing_to_compare_with(project, fast, capsys):
    assert _run() == 0
    assert fast == ["00_one", "04_two"]
    assert capsys.readouterr().out.endswith(
        "no committed numbers for profile organism: nothing to compare with\n"
    )


def test_nothing_changed_is_said_and_nothing_runs(project, fast, capsys):
    _run()
    fast.clear()
    assert _run() == 0
    assert fast == []
    assert "nothing has changed since the last run" in capsys.readouterr().out


def test_publishing_settles_and_the_clone_stays_clean(project, fast, capsys):
    assert _run("--update") == 0
    assert "00_one, 04_two" in capsys.readouterr().out, "a second pass: what they say of figures/ has changed"
    commit(project)
    shown = read_notebook(project / "notebooks" / "00_one.ipynb").cells[-1].outputs[0].text
    assert shown == "one: 2 of 2 numbers reproduced\n"
    git(project, "clean", "-fdxq")  # a fresh clone
    fast.clear()
    assert _run() == 0
    assert fast == ["00_one", "04_two"]
    assert "4 of 4 numbers reproduced" in capsys.readouterr().out
    assert git(project, "status", "--porcelain") == ""


def test_a_difference_is_shown_in_figures_and_only_there(project, fast, capsys):
    _run("--update")
    commit(project)
    _edit(project, "04_two", chapter("two", value=0.5))
    commit(project)
    capsys.readouterr()
    for _ in range(2):  # the second run must not take the first one's result for the committed one
        assert _run() == 1
        printed = capsys.readouterr().out
        assert "3 of 4 numbers reproduced" in printed
        assert "two, row 2 (Steer), column rate: committed 0.25, regenerated 0.5 (±0.01)" in printed
        changed = [line[3:] for line in git(project, "status", "--porcelain").splitlines()]
        assert changed == ["figures/two.csv", "figures/two_plot.png", "figures/two_plot.svg"]
    _edit(project, "04_two", chapter("two", value=0.251))  # inside the tolerance again
    commit(project)
    git(project, "reset", "--quiet", "--soft", "HEAD")
    assert _run() == 0


def test_a_result_that_is_right_again_takes_its_difference_back(project, fast):
    _run("--update")
    commit(project)
    _edit(project, "04_two", chapter("two", value=0.5))
    assert _run() == 1
    git(project, "checkout", "--quiet", "notebooks")
    assert _run() == 0
    assert git(project, "status", "--porcelain") == ""


def test_prose_reruns_its_own_notebook_and_code_the_later_ones_too(project, fast):
    _run()
    fast.clear()
    first = chapter("one")
    first.cells[0].source = "# Better prose"
    _edit(project, "00_one", first)
    _run()
    assert fast == ["00_one"]
    fast.clear()
    first.cells[2].source += "\nx = 1"
    _edit(project, "00_one", first)
    _run()
    assert fast == ["00_one", "04_two"]


@pytest.mark.parametrize("path", ["data/weights", "requirements.lock"])
def test_data_and_lock_rerun_everything(project, fast, path):
    _run()
    fast.clear()
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text("changed")
    _run()
    assert fast == ["00_one", "04_two"]


def test_a_lost_table_is_made_again(project, fast):
    _run()
    fast.clear()
    (project / "build" / "organism" / "tables" / "two.csv").unlink()
    _run()
    assert fast == ["04_two"]


def test_a_removed_notebook_takes_its_tables_along(project, fast):
    _run()
    (project / "notebooks" / "04_two.ipynb").unlink()
    _run()
    build = project / "build" / "organism"
    assert [path.name for path in (build / "tables").iterdir()] == ["one.csv"]
    assert "04_two" not in (build / "timings.json").read_text()


def test_a_table_that_is_no_longer_made_is_no_longer_there(project, fast):
    _run()
    _edit(project, "04_two", chapter("renamed"))
    _run()
    assert sorted(path.name for path in (project / "build/organism/tables").iterdir()) == [
        "one.csv",
        "renamed.csv",
    ]


def test_profiles_do_not_mix(project, fast, capsys):
    _run("--update")
    assert _run("--profile", "smoke") == 0
    printed = capsys.readouterr().out
    assert "two: no committed numbers for profile smoke; 2 regenerated" in printed
    assert {path.name for path in (project / "build").iterdir()} == {"organism", "smoke"}


def test_other_parameters_make_another_build(project, fast, capsys):
    _run("--update")
    assert _run("-p", "seed=1") == 0
    assert (project / "build" / "organism-seed-1" / "tables" / "one.csv").read_text().splitlines()[
        1
    ] == "Orig.,1.5"
    assert "no committed numbers for profile organism-seed-1" in capsys.readouterr().out
    assert _run() == 0, "the default build is as it was"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "sead=1"], "00_one has no parameter 'sead': did you mean seed?"),
        (["-p", "seed=one"], "seed = 'one' is str, but must be int"),
        (["-p", "profile=smoke"], "follows from --profile"),
        (["--profile", "organsim"], "did you mean organism?"),
        (["--profile", "smoke", "--update"], "only profile organism with its own parameters is published"),
        (["-p", "seed=1", "--update"], "only profile organism with its own parameters is published"),
    ],
)
def test_bad_input_is_told_before_anything_runs(project, fast, capsys, arguments, message):
    assert _run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("nothing was started: ")
    assert message in error
    assert fast == []


def test_a_parameter_is_a_name_and_a_value(project, capsys):
    with pytest.raises(SystemExit):
        _run("-p", "seed")
    assert "write NAME=VALUE" in capsys.readouterr().err


def test_too_little_disk_is_told_before_anything_runs(project, fast, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Disk(free=5_000_000))
    assert _run() == 2
    assert "0.0 GB of disk are free, profile organism needs 1 GB" in capsys.readouterr().err
    assert fast == []


class _Disk:
    def __init__(self, *, free: int) -> None:
        self.free = free


def test_a_disk_that_fills_up_is_told(project, fast, capsys, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reproduce, "run_notebook", full)
    assert _run() == 3
    assert "the disk is full" in capsys.readouterr().err


def test_two_runs_of_one_profile_are_refused(project, fast, capsys):
    build = project / "build" / "organism"
    build.mkdir(parents=True)
    with FileLock(build / ".lock"):
        assert _run() == 2
    assert "another run is at work in build/organism" in capsys.readouterr().err


def test_a_table_that_never_settles_cannot_be_published(project, fast, capsys):
    random = notebook(
        [
            "import os, pandas as pd\nfrom autosteer_lib.artefacts import Artefacts",
            "a = Artefacts.open(profile, out=out)",
            'a.table(pd.DataFrame({"x": [int.from_bytes(os.urandom(4), "big")]}), "noise")',
        ],
        checked='a.verify("noise")',
    )
    _edit(project, "04_two", random)
    assert _run("--update") == 1
    assert "04_two still changes its tables from run to run" in capsys.readouterr().out


def test_lab_copies_carry_the_profile_and_are_not_overwritten(project, capsys):
    assert _run("--profile", "smoke", "--prepare") == 0
    folder = Path(capsys.readouterr().out.strip())
    copies = sorted(folder.iterdir())
    assert [path.name for path in copies] == ["00_one.ipynb", "04_two.ipynb"]
    assert 'profile = "smoke"' in read_notebook(copies[0]).cells[2].source
    copies[0].write_text(copies[0].read_text().replace("A chapter", "My notes"))
    _run("--profile", "smoke", "--prepare")
    assert "My notes" in copies[0].read_text()


def test_a_foreign_kernel_is_refused(project, monkeypatch, capsys):
    monkeypatch.setattr(
        KernelSpecManager, "get_kernel_spec", lambda *_: SimpleNamespace(argv=["/elsewhere/bin/python"])
    )
    assert _run() == 2
    assert "kernel 'python3' starts /elsewhere/bin/python" in capsys.readouterr().err
