"""Execution: a kernel that does not come up is tried again, then said; what a notebook raises is not; what kernels get."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import papermill
import pytest
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from autosteer_lib.execution import (
    KERNEL_STARTS,
    NotebookFailed,
    check_kernel,
    environment_of,
    fixed_environment,
    run_notebook,
)
from autosteer_lib.profiles import load_profile
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


def test_the_environment_is_fixed_and_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    variables = fixed_environment(root=Path("here"), profile=load_profile("organism"))
    assert (variables["OMP_NUM_THREADS"], variables["MKL_NUM_THREADS"]) == ("3", "3")
    assert "HF_HUB_OFFLINE" not in fixed_environment(root=Path("here"), profile=load_profile("paper"))
    with environment_of(variables):
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("command", ["python", sys.executable])
def test_the_kernel_is_this_interpreter(monkeypatch, command):
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: SimpleNamespace(argv=[command]))
    check_kernel()


def test_no_kernel_is_told(monkeypatch):
    def absent(*_arguments):
        raise NoSuchKernel("python3")

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", absent)
    with pytest.raises(ValueError, match="install ipykernel"):
        check_kernel()
