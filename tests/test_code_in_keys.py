"""A key holds all code that a value depends on: the lists that are kept by hand, against what is imported.

A module that a list lacks means answers or states of the code before it, found under today's key, and nothing says so.
"""

import ast
from collections.abc import Iterable
from pathlib import Path

from autosteer_lib.records import GENERATION_FILES, LIBRARY
from autosteer_lib.tensor_cache import _CODE

# Imported by defences, and no answer depends on them beyond what its key holds already.
BESIDE_ANSWERS = {
    # they refuse, or say how batches are cut and kept
    "arguments.py", "checkpoints.py", "halving.py", "fitted_state.py",
    # in the key by their own hash
    "processor_settings.py",
    # read in a fit alone, whose result is in the key by the hash of its state
    "activations.py", "tensor_cache.py", "activation_mapper.py", "epoch_choice.py", "layer_scores.py", "own_answers.py",
    "pairs.py", "probe_sets.py", "sas.py", "text_sets.py",
    # asked while fitting, and afterwards about answers on record
    "judges/__init__.py", "judges/base.py", "judges/phrases.py", "judges/refusal_lists.py", "scoring.py",
}  # fmt: skip
# Likewise of states.
BESIDE_STATES = {
    "arguments.py",
    "checkpoints.py",
    "halving.py",
    "processor_settings.py",
    "tensor_cache.py",
}


def imported(starts: Iterable[Path]) -> set[str]:
    """The library's modules that these files import, and those that they import in turn, as paths in the library."""
    found = set(starts)
    waiting = list(found)
    while waiting:
        new = _imports(waiting.pop()) - found
        found |= new
        waiting += new
    return {path.relative_to(LIBRARY).as_posix() for path in found}


def _imports(file: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    places = [
        LIBRARY.parent.joinpath(*name.split(".")) for name in names if name.startswith("autosteer_lib.")
    ]
    return {
        file
        for place in places
        for file in (place.with_suffix(".py"), place / "__init__.py")
        if file.is_file()
    }


def test_the_code_behind_every_answer_is_in_its_key() -> None:
    starts = [LIBRARY / "generation.py", *(LIBRARY / "defences").glob("*.py")]
    modules = {name for name in imported(starts) if not name.startswith("defences/")}
    assert {"sites.py", "trust_region.py"} <= modules, "imports are not found at all"
    unknown = sorted(modules - {*GENERATION_FILES} - BESIDE_ANSWERS)
    assert not unknown, (
        f"defences import {unknown}: name them in records.GENERATION_FILES, or, if no answer depends on them beyond what "
        "its key holds, in BESIDE_ANSWERS of this test"
    )
    assert not {*GENERATION_FILES} & BESIDE_ANSWERS


def test_the_code_behind_every_state_is_in_its_key() -> None:
    unknown = sorted(
        imported([LIBRARY / "activations.py"]) - {f"{name}.py" for name in _CODE} - BESIDE_STATES
    )
    assert not unknown, (
        f"activations.py imports {unknown}: name them in tensor_cache._CODE, or, if no state depends on them beyond what "
        "its key holds, in BESIDE_STATES of this test"
    )
