"""The command that makes fingerprints, on rows written here; and on the real ones, where a folder of them is given.

AUTOSTEER_REAL_ROWS=folder make unit ARGS="tests/test_audit_rows.py"
"""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from autosteer_lib.audit.__main__ import main
from autosteer_lib.audit.fingerprints import FOLDER, load_fingerprints
from autosteer_lib.audit.overlap import shared
from autosteer_lib.audit.real_rows import SETS, coco_number

REAL = os.environ.get("AUTOSTEER_REAL_ROWS", "")


def _lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """VLSafe and ToViLaG+ in their own schema, harmless."""
    home = tmp_path / "rows"
    train = [
        {"image_id": f"{n:012}.jpg", "query": q}
        for n, q in enumerate(["what is this?", "Name it", "name it"])
    ]
    files = {split.name: home / split.file for split in SETS["vlsafe"]}
    _lines(files["train"], train)
    _lines(files["twins"], [{"image_id": row["image_id"], "safe_query": "count them"} for row in train])
    _lines(
        files["test"], [{"image_id": f"{n:012}.jpg", "query": q} for n, q in ((7, "NAME IT"), (1, "it is"))]
    )
    for split in SETS["tovilag_plus"]:
        name = "both/1.png" if split.name in ("both", "train") else "COCO_val2014_000000000007.jpg"
        _lines(home / split.file, [{"image_pth": name, "query": "describe it"}])
    return home


def test_the_command_writes_hashes_and_no_text(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit"
    assert main(["--rows", str(rows)], folder=out) == 0
    said = capsys.readouterr().out
    assert "not in the folder: advbench, figstep, harmbench, jailbreakbench, pope, xstest" in said
    assert sorted(path.name for path in out.iterdir()) == ["nearest.csv", "tovilag_plus.csv", "vlsafe.csv"]
    text = "".join(path.read_text() for path in out.iterdir()).casefold()
    assert not any(word in text for word in ("name", "describe", "this", "count"))
    test, train = (load_fingerprints("vlsafe", split=split, folder=out) for split in ("test", "train"))
    assert [shared(test, train, by=key).rows for key in ("exact", "folded", "beside")] == [0, 1, 1]
    both, trained = (
        load_fingerprints("tovilag_plus", split=split, folder=out) for split in ("both", "train")
    )
    assert shared(both, trained, by="beside").rows == 1
    found = pd.read_csv(out / "nearest.csv")
    assert found[found["against"] == "vlsafe/train"]["likeness"].tolist() == [1.0, 0.333]


def test_check_writes_nothing_and_tells_a_change(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit"
    main(["--rows", str(rows)], folder=out)
    assert main(["--rows", str(rows), "--check"], folder=out) == 0
    before = (out / "vlsafe.csv").read_text()
    _lines(rows / SETS["vlsafe"][2].file, [{"image_id": "1.jpg", "query": "another"}])
    assert main(["--rows", str(rows), "--check"], folder=out) == 1
    assert "vlsafe: 7 rows, not the committed ones" in capsys.readouterr().out
    assert (out / "vlsafe.csv").read_text() == before


def test_a_folder_without_sets_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", str(tmp_path)], folder=tmp_path) == 2
    assert "holds none of the sets advbench" in capsys.readouterr().err


def test_a_coco_picture_keeps_its_number_from_year_to_year() -> None:
    assert coco_number({"image": "COCO_val2014_000000310196.jpg"}) == coco_number(
        {"image_id": "000000310196.jpg"}
    )
    assert coco_number({"image_pth": "porn/3.jpg"}) == "porn/3.jpg"


@pytest.mark.skipif(not REAL, reason="AUTOSTEER_REAL_ROWS names no folder of real rows")
def test_committed_fingerprints_are_those_of_the_real_rows() -> None:
    assert main(["--rows", REAL, "--check"], folder=FOLDER) == 0
