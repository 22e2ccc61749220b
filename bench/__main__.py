"""`python -m bench`: run the benches, print what they found, write one JSON file each.

    python -m bench                           all, at full size, into bench/results
    python -m bench --only sas --only records some
    python -m bench --quick                   tiny sizes, into build/bench: does everything run?
    python -m bench --out bench/results/h200  elsewhere, for another machine

Each file is written as soon as its bench has ended. A missed target is reported and is no failure; a
Check that does not hold is one (exit code 1).
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch

from autosteer_lib.profiles import DEFAULT_PROFILE
from autosteer_lib.provenance import available_cores, provenance, repository_root
from bench.harness import Result, Settings
from bench.results import as_json, lines, write

BENCHES = (
    "inactive_gate",
    "active_head",
    "safesteer",
    "head_vs_official",
    "sas",
    "mars_steering",
    "collect_states",
    "head_training",
    "records",
    "coca",
    "scale_out",
    "single_pass_defences",
    "gpu_7b",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    root = repository_root()
    default = root / "build" / "bench" if asked.quick else root / "bench" / "results"
    out = default if asked.out is None else asked.out
    settings = Settings(quick=asked.quick, profile=asked.profile, device=asked.device, seed=asked.seed)
    print(f"{torch.get_num_threads()} threads, device {settings.device}" + ("; quick" if asked.quick else ""))
    whole = [run_one(name, settings=settings, out=out, root=root) for name in asked.only or BENCHES]
    return 0 if all(whole) else 1


def run_one(name: str, *, settings: Settings, out: Path, root: Path) -> bool:
    """Run and write one bench; whether all its checks hold."""
    print(f"\n{name}", flush=True)
    run: Callable[[Settings], Result] = import_module(f"bench.{name}").run
    start = time.perf_counter()
    result = run(settings)
    seconds = time.perf_counter() - start
    if result.bench != name:  # its file would take the place of another's
        raise ValueError(f"bench/{name}.py gave Result(bench={result.bench!r}); give bench={name!r}")
    content = as_json(result, settings=settings, circumstances=provenance(root), seconds=seconds)
    path = write(content, out)
    print("\n".join(lines(result)))
    if path is None:
        print(f"  {out.name}/{name}.json of a machine that could run it is left as it is")
    else:
        print(
            f"  {seconds:.0f} s → {path.relative_to(root) if path.is_relative_to(root) else path}", flush=True
        )
    return bool(content["checks_hold"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure speed and memory, as ratios of alternated samples."
    )
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="whose model stands for the shipped one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: see that everything runs")
    parser.add_argument("--only", action="append", choices=BENCHES, metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--out", type=Path, help="folder of the JSON files; default bench/results")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="default cpu; gpu_7b finds its own"
    )
    parser.add_argument(
        "--threads", type=_count, default=available_cores(), help="of torch; default: the cores"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} threads; give 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
