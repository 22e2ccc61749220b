"""What a profile would download and take, before anything is downloaded: `make plan PROFILE=paper`.

    checkpoints    id, parameters, size, memory of the weights in the profile's type, licence, gate
    sets           rows, size, licence, gate, what for
    of one's own   model folder and prompts: whole, and can every row, picture and film be read?
    this machine   what of it is here; disk, accelerator, token (there or not: it is never shown)
    time           at least  steps × bytes of weights / bandwidth,  steps = answers / batch × tokens

It reads no network. Numbers that nobody has read are "not known", and sums say how many they leave out. The time is a
bound and no measurement: each step of greedy decoding reads every weight once, and nothing else is counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from autosteer_lib.benchmarks.needed import NeededSet, needed_sets
from autosteer_lib.ingredients import check_model, check_prompts, has_own_model
from autosteer_lib.needs import Machine, checkpoint_here, machine, needed_checkpoints, needed_judges, set_here
from autosteer_lib.profiles import DEFAULT_PROFILE, Profile, load_profile
from autosteer_lib.provenance import repository_root
from autosteer_lib.released import JUDGES, Checkpoint

UNKNOWN = "not known"
BANDWIDTH = 900.0  # GB/s: of one 24 GB card of 2022; state yours as --bandwidth
COLUMNS = 5  # answers to each test prompt: Orig., Steer, AutoSteer, MARS, and one control


def plan(profile: Profile, *, here: Machine, bandwidth: float = BANDWIDTH) -> list[str]:
    """The plan, line by line.

    Args:
        profile: what is planned.
        here: this machine.
        bandwidth: of the accelerator's memory, in GB/s.
    """
    checkpoints, sets = needed_checkpoints(profile), needed_sets(profile)
    lines = [f"profile {profile.name}: {profile.run.description}", ""]
    own, faults = _own_lines(profile)
    lines += own
    if not checkpoints and not sets:
        ship = "" if own or faults else ": model and prompts ship with the repository"
        return [*lines, *faults, f"It downloads nothing{ship}."]
    dtype = profile.model.dtype if profile.model.dtype != "auto" else "bfloat16"
    missing: list[str] = []
    judges = needed_judges(profile)
    lines += _checkpoint_lines(profile, [*checkpoints, *judges], dtype=dtype, here=here, missing=missing)
    lines += _set_lines(profile, sets, here=here, missing=missing)
    lines += _machine_lines(profile, checkpoints, dtype=dtype, here=here)
    lines += ["", _download_line([*checkpoints, *judges], sets)]
    lines += ["", *_time_lines(profile, checkpoints, sets, dtype=dtype, bandwidth=bandwidth)]
    if missing:
        lines += ["", "missing here:", *(f"  {line}" for line in missing), ""]
        lines += [
            f"On a network, `make fetch PROFILE={profile.name}` gets what has an address and no closed gate."
        ]
    elif not faults:
        lines += ["", "nothing is missing here."]
    if faults:
        lines += ["", *faults[:-1]]
    return lines


def _own_lines(profile: Profile) -> tuple[list[str], list[str]]:
    """(what was found of a model and prompts of one's own, what must be mended before they can be used)."""
    root, lines, faults = repository_root(), list[str](), list[str]()
    shipped = (root / profile.model.name).is_relative_to(root / "data") and profile.data.source == "organism"
    if has_own_model(profile, root=root) and not shipped:
        try:
            family = check_model(profile, root=root)
            lines += [f"model: {profile.model.name}, a {family} checkpoint, whole", ""]
        except (ValueError, FileNotFoundError) as error:
            faults += ["the model cannot be loaded:", f"  {error}", ""]
    try:
        files = check_prompts(profile, root=root)
    except ValueError as error:
        return lines, [*faults, str(error), ""]
    if files:
        rows = [("file", "rows for", "asked for", "here")]
        for file in files:
            rows += [(file.name, kind, f"{file.wanted[kind]:,}", f"{n:,}") for kind, n in file.found.items()]
        lines += [f"prompts in {profile.data.folder}, pictures and films looked at:", *_table(rows), ""]
    return lines, faults


def _checkpoint_lines(
    profile: Profile, checkpoints: Sequence[Checkpoint], *, dtype: str, here: Machine, missing: list[str]
) -> list[str]:
    rows = [("checkpoint", "family", "parameters", "download GB", f"GB in {dtype}", "licence", "here")]
    notes: list[str] = []
    for index, needed in enumerate(checkpoints):
        own = index == 0 and needed.repo == profile.model.name
        there = checkpoint_here(needed, revision=(profile.model.revision or None) if own else needed.revision)
        rows.append(
            (
                needed.repo if own else f"  {needed.repo}",
                needed.family,
                UNKNOWN if needed.parameters is None else f"{needed.parameters / 1e9:.2f} B",
                _number(needed.gigabytes),
                _number(needed.memory_gigabytes(dtype)),
                needed.licence,
                "yes" if there else "no",
            )
        )
        if not there:
            kind = "" if own else " (a judge)" if needed in JUDGES.values() else " (a further family)"
            missing.append(f"{needed.repo}{_gate(needed.gate, here)}{kind}")
        notes += [f"  {needed.repo}: {needed.note}"] if needed.note else []
    revision = profile.model.revision or "none"
    return [
        *_table(rows),
        f"  revision of the first: {revision}; of the others the newest, of some judges a pinned one. Indented ones are",
        "  judges, which notebook 07 asks if they are here, and further families, which no notebook loads:",
        "  `make fetch ARGS=--families` gets them too.",
        *notes,
        "",
    ]


def _set_lines(
    profile: Profile, sets: Sequence[NeededSet], *, here: Machine, missing: list[str]
) -> list[str]:
    if not sets:
        return []
    rows = [("set", "rows", "download MB", "licence", "revision", "for", "here")]
    for needed in sets:
        entry = needed.benchmark
        there = set_here(entry)
        rows.append(
            (
                entry.name,
                UNKNOWN if needed.rows is None else f"{needed.rows:,}",
                _number(entry.megabytes),
                entry.licence,
                (entry.source.revision or "newest")[:8],
                ", ".join(needed.roles),
                "yes" if there else "no",
            )
        )
        if not there:
            missing.append(f"{entry.name}{_gate(entry.gate, here)}")
    notes = [f"  {n.benchmark.name}: {n.benchmark.note}" for n in sets if n.benchmark.note]
    return [*_table(rows), *notes, ""]


def _machine_lines(
    profile: Profile, checkpoints: Sequence[Checkpoint], *, dtype: str, here: Machine
) -> list[str]:
    needed = checkpoints[0].memory_gigabytes(dtype) if checkpoints else None
    card = here.accelerator or "none"
    fits = ""
    if needed is not None:
        enough = here.accelerator_gigabytes > needed
        fits = f"; the weights alone take {needed:.1f} GB in {dtype}" + (
            "" if enough else ": not enough for them"
        )
    short = here.free_gigabytes < profile.run.disk_gb
    return [
        "this machine:",
        f"  disk         {here.free_gigabytes:.0f} GB free, the profile asks for {profile.run.disk_gb:.0f}"
        + (": not enough" if short else ""),
        f"  accelerator  {card}, {here.accelerator_gigabytes:.0f} GB{fits}",
        f"  token        {'present' if here.token else 'absent: gated ones cannot be fetched'}",
        f"  network      {'forbidden by HF_HUB_OFFLINE' if here.offline else 'not asked'}",
    ]


def _download_line(checkpoints: Sequence[Checkpoint], sets: Sequence[NeededSet]) -> str:
    own = [None if not c.gigabytes else c.gigabytes for c in checkpoints[:1]]
    sizes = [*own, *(None if n.benchmark.megabytes is None else n.benchmark.megabytes / 1000 for n in sets)]
    known = [size for size in sizes if size is not None]
    return (
        f"download: {sum(known):.1f} GB for the {len(known)} whose size is known, further families aside; of "
        f"{len(sizes) - len(known)} it is {UNKNOWN}."
    )


def _time_lines(
    profile: Profile,
    checkpoints: Sequence[Checkpoint],
    sets: Sequence[NeededSet],
    *,
    dtype: str,
    bandwidth: float,
) -> list[str]:
    weights = checkpoints[0].memory_gigabytes(dtype) if checkpoints else None
    tests = sum(needed.tested(profile.data.tests_per_surface) for needed in sets)
    if weights is None or not tests:
        return [f"time: {UNKNOWN}; the model's size or the number of test prompts is."]
    steps = tests * COLUMNS / profile.generation.batch_size * profile.generation.max_new_tokens
    hours = steps * weights / bandwidth / 3600
    return [
        f"time: at least {hours:.1f} hours for {tests:,} test prompts × {COLUMNS} answers of "
        f"{profile.generation.max_new_tokens} tokens in batches of {profile.generation.batch_size}.",
        f"  Assumed: {weights:.1f} GB of weights are read at {bandwidth:.0f} GB/s once a step, and nothing else takes time. "
        "Not measured;",
        "  sweeps, seeds, fitting, reading pictures and judges come on top.",
    ]


def _gate(gate: str, here: Machine) -> str:
    if not gate:
        return ""
    return f": gated, accept its terms at {gate}" + ("" if here.token else " and log in with `hf auth login`")


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def show(lines: Iterable[str]) -> None:
    """Print a plan."""
    print("\n".join(lines))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m autosteer_lib.plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="a shipped profile or a .toml file")
    parser.add_argument(
        "--bandwidth", type=float, default=BANDWIDTH, help="of the accelerator's memory, GB/s"
    )
    options = parser.parse_args(arguments)
    if options.bandwidth <= 0:
        parser.error(f"--bandwidth {options.bandwidth:g}: give GB/s, above 0")
    try:
        planned = plan(load_profile(options.profile), here=machine(), bandwidth=options.bandwidth)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    show(planned)
    return 0


if __name__ == "__main__":
    sys.exit(main())
