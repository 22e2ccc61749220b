"""The package's public names exist, and looking at the package loads nothing heavy."""

import subprocess
import sys

import pytest

import autosteer_lib


@pytest.mark.parametrize("name", autosteer_lib.__all__)
def test_each_public_name_exists_where_it_is_said_to(name: str) -> None:
    value = getattr(autosteer_lib, name)
    assert value.__name__ == name
    assert value.__module__.startswith("autosteer_lib.")
    assert name in dir(autosteer_lib)


def test_an_unknown_name_lists_the_public_ones() -> None:
    with pytest.raises(AttributeError, match=r"autosteer_lib has no 'Autosteer'; .*AutoSteer"):
        _ = autosteer_lib.Autosteer


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, autosteer_lib; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
