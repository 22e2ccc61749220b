"""Where a number came from: code, environment, data and machine, as facts that another machine can compare.

`provenance()` is stored once per run in figures/manifest.json and each table and figure points to it. It
holds hashes and versions, never a path, a user or a host name. The same hashes make the driver's stamps:
what would change a number changes a hash, and the notebook runs again.
"""

import functools
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Those whose version can change a number. The lock holds the rest.
NUMERICAL_PACKAGES = (
    "accelerate",
    "datasets",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)
ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """One run's circumstances. Two runs with equal `id` had the same code, environment and machine type."""

    commit: str
    """Git commit of the code, or "absent" outside a checkout."""
    dirty: bool
    """True: the code differed from that commit. Products (figures/, notebooks/ outputs) do not count."""
    lock: str
    """Hash of requirements.lock."""
    library: str
    """Hash of every file of autosteer_lib."""
    data: str
    """Hash of every file under data/."""
    python: str
    packages: dict[str, str]
    """Installed versions of the packages that compute; with a torch of your own they differ from the lock."""
    system: str
    """Operating system and architecture."""
    cpu: str
    cores: int
    threads: int
    """Threads that torch computes with: sums of floats depend on it in their last digits."""
    device: str
    """Name of the accelerator, or "cpu"."""

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that stand for all of the above."""
        return hash_text(json.dumps(asdict(self), sort_keys=True))[:12]


def provenance(root: Path | None = None) -> Provenance:
    """Collect the circumstances of the running process (about a second: it imports torch)."""
    import torch

    root = root or repository_root()
    commit, dirty = git_state(root)
    return Provenance(
        commit=commit,
        dirty=dirty,
        lock=hash_files([root / "requirements.lock"], root=root),
        library=library_hash(),
        data=data_hash(root),
        python=platform.python_version(),
        packages=package_versions(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=available_cores(),
        threads=torch.get_num_threads(),
        device=_accelerator_name(),
    )


def repository_root(start: Path | None = None) -> Path:
    """The checkout that holds `start` (default: the working folder), else the one this library lies in.

    Raises:
        FileNotFoundError: neither lies in a checkout, as for a library installed without its repository.
    """
    for first in (start or Path.cwd(), Path(__file__)):
        for folder in (first.resolve(), *first.resolve().parents):
            parts = ("notebooks", "autosteer_lib")
            if (folder / "pyproject.toml").is_file() and any((folder / part).is_dir() for part in parts):
                return folder
    raise FileNotFoundError(
        f"no checkout of the project above {start or Path.cwd()}: it has pyproject.toml beside notebooks/; "
        "run from inside a clone"
    )


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hash_files(paths: Iterable[Path], *, root: Path) -> str:
    """One hash of many files: of their names relative to `root` and of their bytes; absent files count as such."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ABSENT
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def library_hash() -> str:
    """Hash of the library's own files, wherever it is installed."""
    folder = Path(__file__).parent
    return hash_files((path for path in folder.rglob("*") if path.suffix in {".py", ".toml"}), root=folder)


def data_hash(root: Path) -> str:
    """Hash of everything that ships under data/ (a few MB, so it is read whole)."""
    return hash_files((path for path in (root / "data").rglob("*") if path.is_file()), root=root)


def package_versions() -> dict[str, str]:
    """Installed versions of `NUMERICAL_PACKAGES`, without importing them."""
    versions = {}
    for name in NUMERICAL_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ABSENT
    return versions


def available_cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def git_state(root: Path) -> tuple[str, bool]:
    """(commit, dirty) of the checkout at `root`; ("absent", False) where there is no git or no commit."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # A run writes figures/ and notebooks/, so they would make every second run "dirty" by itself;
        # what a notebook contains is hashed on its own in the manifest.
        changes = git("status", "--porcelain", "--", ".", ":(exclude)figures", ":(exclude)notebooks")
        return git("rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.CalledProcessError):
        return ABSENT, False


@functools.cache  # a machine does not change its processor
def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _accelerator_name() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "mps" if torch.backends.mps.is_available() else "cpu"
