"""Execution: a kernel that does not come up is tried again, and then said; what a notebook raises is not."""

from pathlib import Path
from typing import Any

import papermill
import pytest

from autosteer_lib.execution import KERNEL_STARTS, NotebookFailed, run_notebook
from tests.notebook_projects import notebook

NOT_UP = "Kernel died before replying to kernel_info"


def _run(folder: Path) -> dict[str, float]:
    target = folder / "out" / "00_a.ipynb"
    return run_notebook(notebook([]), target, parameters={}, folder=folder, progress=False)


@pytest.mark.parametrize(
    ("in_vain", "comes_up"), [(0, True), (KERNEL_STARTS - 1, True), (KERNEL_STARTS, False)]
)
def test_a_kernel_that_does_not_come_up_is_tried_again(
    in_vain: int, comes_up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def start(source: str, *_: Any, **__: Any) -> None:
        calls.append(source)
        if len(calls) <= in_vain:
            raise RuntimeError(NOT_UP)

    monkeypatch.setattr(papermill, "execute_notebook", start)
    if comes_up:
        assert _run(tmp_path)["cells"] == 1
        assert len(calls) == in_vain + 1
    else:
        with pytest.raises(
            NotebookFailed, match=rf"kernel did not start, {KERNEL_STARTS} times: Kernel died"
        ):
            _run(tmp_path)
        assert len(calls) == KERNEL_STARTS


def test_another_fault_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def fail(source: str, *_: Any, **__: Any) -> None:
        calls.append(source)
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    with pytest.raises(RuntimeError, match="on fire"):
        _run(tmp_path)
    assert len(calls) == 1
