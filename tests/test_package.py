"""The package's public names exist, and looking at the package loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import autosteer_lib


@pytest.mark.parametrize("name", autosteer_lib.__all__)
def test_each_public_name_exists_where_it_is_said_to(name: str) -> None:
    value = getattr(autosteer_lib, name)
    assert value.__name__ == name
    assert value.__module__.startswith("autosteer_lib.")
    assert name in dir(autosteer_lib)


def test_each_public_name_is_entered_everywhere() -> None:
    """Missing in one of the three it could not be found, not be listed, or not be checked for its types."""
    tree = ast.parse(Path(autosteer_lib.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: (node.module or "").removeprefix("autosteer_lib.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module or "").startswith("autosteer_lib.")
    }
    assert typed == autosteer_lib._HOME, "imports under TYPE_CHECKING, and _HOME"
    assert sorted(autosteer_lib._HOME) == sorted(autosteer_lib.__all__), "_HOME, and __all__"


def test_an_unknown_name_lists_the_public_ones() -> None:
    with pytest.raises(AttributeError, match=r"autosteer_lib has no 'Autosteer'; .*AutoSteer"):
        _ = autosteer_lib.Autosteer


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, autosteer_lib; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
