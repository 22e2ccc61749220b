"""Files as the published sets have them: pictures, JSON, JSON lines, CSV, tables with the README that names them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

Rows = Sequence[Mapping[str, Any]]


def picture(path: Path, colour: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (colour, 20, 30)).save(path)


def json_file(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def lines(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")


def csv_file(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def tables(folder: Path, tables: Mapping[tuple[str, str], Rows], *, ending: str = "parquet") -> None:
    """Parquet or CSV files and the README that says which is which, as on the hub."""
    import datasets

    datasets.disable_progress_bars()
    configs: dict[str, list[str]] = {}
    for (config, split), rows in tables.items():
        name = f"{config or 'default'}-{split}.{ending}".replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_list(list(rows))
        for column, value in rows[0].items():
            if isinstance(value, Image.Image):
                table = table.cast_column(column, datasets.Image())
        if ending == "csv":
            table.to_csv(str(folder / name))
        else:
            table.to_parquet(str(folder / name))
        configs.setdefault(config or "default", []).append(f"  - split: {split}\n    path: {name}\n")
    described = "".join(
        f"- config_name: {config}\n  data_files:\n{''.join(files)}" for config, files in configs.items()
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{described}---\n", encoding="utf-8")


def image(colour: int) -> Image.Image:
    return Image.new("RGB", (6, 4), (colour, 20, 30))
