"""A plan says what is known and what is not, without a network; fetching checks first, then hashes."""

import hashlib
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosteer_lib import fetch as fetching
from autosteer_lib import needs
from autosteer_lib import plan as planning
from autosteer_lib.benchmarks import BENCHMARKS, HubSet, WebSet, places
from autosteer_lib.benchmarks.needed import needed_sets
from autosteer_lib.needs import Machine, needed_checkpoints
from autosteer_lib.profiles import Profile, load_profile
from autosteer_lib.rehearsal.rows import WRITERS
from autosteer_lib.released import CHECKPOINTS, checkpoint

BARE = Machine(free_gigabytes=500.0, token=False, accelerator="", accelerator_gigabytes=0.0, offline=False)
READY = replace(BARE, token=True, accelerator="a card", accelerator_gigabytes=80.0)
TABLED = {
    "llava_onevision", "chameleon", "llava", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "internvl", "gemma3", "molmo2",
    "llava_next_video", "smolvlm",
}  # fmt: skip  # README's table of families


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No cache, and nothing fetched."""
    monkeypatch.setenv("AUTOSTEER_BENCHMARKS", str(tmp_path / "home"))
    monkeypatch.setattr(needs, "checkpoint_here", lambda needed, revision: False)
    monkeypatch.setattr(planning, "checkpoint_here", lambda needed, revision: False)
    monkeypatch.setattr(needs, "cached_snapshot", lambda source: None)
    monkeypatch.setattr(places, "cached_snapshot", lambda source: None)
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["small", "paper"])
def test_profiles_list_one_checkpoint_of_each_family(name: str) -> None:
    families = [c.family for c in needed_checkpoints(load_profile(name))]
    assert sorted(families) == sorted(TABLED)


def test_every_listed_checkpoint_is_known() -> None:
    for name in ("small", "paper"):
        profile = load_profile(name)
        assert {profile.model.name, *profile.model.families} <= set(CHECKPOINTS)
    unheard = checkpoint("nobody/nothing")
    assert (unheard.parameters, unheard.licence) == (None, "not known")
    assert unheard.memory_gigabytes("float16") is None


def test_sizes_agree_with_parameters_at_two_or_four_bytes() -> None:
    for known in CHECKPOINTS.values():
        if known.parameters and known.gigabytes:
            assert known.gigabytes * 1e9 / known.parameters == pytest.approx(2, rel=0.02) or (
                known.gigabytes * 1e9 / known.parameters == pytest.approx(4, rel=0.02)
            ), known.repo


@pytest.mark.usefixtures("home")
def test_a_plan_of_the_paper_names_terms_gates_and_what_is_not_known() -> None:
    text = "\n".join(planning.plan(load_profile("paper"), here=BARE))
    assert "facebook/chameleon-7b" in text
    assert (
        "video_safetybench: gated, accept its terms at https://huggingface.co/datasets/BAAI/Video-SafetyBench"
        in text
    )
    assert "log in with `hf auth login`" in text
    assert "not known" in text
    assert "token        absent" in text
    assert "the weights alone take 16.1 GB in float16: not enough for them" in text
    assert "time: at least" in text
    assert "Not measured" in text


@pytest.mark.usefixtures("home")
def test_a_bound_on_time_follows_from_its_formula() -> None:
    profile = load_profile("paper")
    tests = sum(n.tested(profile.data.tests_per_surface) for n in needed_sets(profile))
    steps = tests * planning.COLUMNS / profile.generation.batch_size * profile.generation.max_new_tokens
    hours = steps * 16.06 / 100 / 3600
    text = "\n".join(planning.plan(profile, here=READY, bandwidth=100.0))
    assert f"time: at least {hours:.1f} hours for {tests:,} test prompts" in text


def test_a_set_that_is_here_is_not_missing(home: Path) -> None:
    WRITERS["xstest"](home / "xstest")
    lines = planning.plan(load_profile("small"), here=READY)
    missing = lines[lines.index("missing here:") :]
    assert not any(line.strip().startswith("xstest") for line in missing)
    assert any(line.strip().startswith("figstep") for line in missing)


@pytest.mark.usefixtures("home")
def test_an_offline_profile_needs_nothing() -> None:
    assert planning.plan(load_profile("organism"), here=BARE)[-1].startswith("It downloads nothing")


@pytest.mark.usefixtures("home")
def test_the_commands_report_and_refuse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "machine", lambda: BARE)
    monkeypatch.setattr(fetching, "machine", lambda: replace(BARE, offline=True, free_gigabytes=3.0))
    assert planning.main(["--profile", "small"]) == 0
    assert "profile small" in capsys.readouterr().out
    assert planning.main(["--profile", "smal"]) == 2
    assert "did you mean small" in capsys.readouterr().err
    assert fetching.main(["--profile", "organism"]) == 0
    assert fetching.main(["--profile", "paper"]) == 2
    told = capsys.readouterr().err
    assert "nothing was downloaded for profile paper" in told
    assert "HF_HUB_OFFLINE forbids downloads: unset it" in told
    assert "vlguard is gated: accept its terms at https://huggingface.co/datasets/ys-zong/VLGuard" in told
    assert "has 3 GB free" in told


class FakeHub:
    """Snapshots as the hub's cache lays them out: links to blobs named by their hash."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.asked = cache, list[str]()

    def __call__(self, repo: str, *, repo_type: str = "model", **options: Any) -> str:
        self.asked.append(repo)
        folder = self.cache / repo.replace("/", "--")
        snapshot = folder / "snapshots" / ("c" * 40)
        if not snapshot.is_dir():
            self._write(folder, snapshot, "weights.bin", b"weights", hashlib.sha256(b"weights").hexdigest())
            self._write(folder, snapshot, "config.json", b"{}", hashlib.sha1(b"blob 2\0{}").hexdigest())
        return str(snapshot)

    def _write(self, folder: Path, snapshot: Path, name: str, content: bytes, digest: str) -> None:
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        snapshot.mkdir(parents=True, exist_ok=True)
        (folder / "blobs" / digest).write_bytes(content)
        (snapshot / name).symlink_to(folder / "blobs" / digest)


@pytest.fixture
def hub(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "cache")
    monkeypatch.setattr(fetching, "snapshot_download", fake)
    return fake


def _small(sets: dict[str, tuple[str, ...]]) -> Profile:
    """The small profile with these sets, and no others."""
    small = load_profile("small")
    assert small.data.sets
    none = dict.fromkeys(type(small.data.sets).model_fields, ())
    chosen = small.data.sets.model_copy(update={**none, **sets})
    data = small.data.model_copy(update={"sets": chosen, "tests_per_surface": 2})
    return small.model_copy(update={"data": data})


def _served(folder: Path, monkeypatch: pytest.MonkeyPatch, source: WebSet) -> list[str]:
    """Files of a written set at the addresses of its registry; returns what was asked for."""
    asked: list[str] = []

    def download(url: str, path: Path) -> None:
        asked.append(url)
        for beginning in sorted(source.urls, key=len, reverse=True):
            base = source.urls[beginning]
            if url.startswith(base) and (folder / beginning / url.removeprefix(base)).is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((folder / beginning / url.removeprefix(base)).read_bytes())
                return
        raise OSError(f"404: {url}")

    monkeypatch.setattr(fetching, "_download", download)
    return asked


def test_fetching_checks_hashes_and_records_licences(hub: FakeHub, home: Path) -> None:
    profile = _small({"utility": ("realworldqa",)})
    assert fetching.fetch(profile, here=READY) == []
    assert hub.asked == [profile.model.name, "xai-org/RealworldQA"]
    record = json.loads((home / "fetched.json").read_text())
    assert record["realworldqa"]["licence"] == "CC BY-ND 4.0"
    assert record["realworldqa"]["revision"] == "c" * 40
    assert record[profile.model.name]["files"]["weights.bin"] == hashlib.sha256(b"weights").hexdigest()
    again = fetching.fetch(profile, here=READY, families=True)
    assert again == []
    assert "google/gemma-3-4b-it" in hub.asked


def test_a_damaged_file_is_removed_and_named(hub: FakeHub) -> None:
    snapshot = Path(hub("a/b"))
    (snapshot / "weights.bin").resolve().write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"weights\.bin is damaged: .*it was removed, fetch again"):
        fetching.verified_snapshot(snapshot)
    assert not (snapshot / "weights.bin").exists()


@pytest.mark.usefixtures("hub")
def test_only_the_pictures_that_the_samples_show_are_fetched(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["vlsafe"](tmp_path / "served")
    entry = BENCHMARKS["vlsafe"]
    assert isinstance(entry.source, WebSet)
    source = replace(entry.source, hashes={})
    monkeypatch.setitem(BENCHMARKS, "vlsafe", replace(entry, source=source))
    asked = _served(tmp_path / "served", monkeypatch, source)
    profile = _small({"attacks": ("vlsafe",)})
    assert fetching.fetch(profile, here=READY) == []
    assert [url.rsplit("/", 1)[1] for url in asked] == [
        "examine_sampled_500_VLSafe.jsonl", "000000000000.jpg", "000000000001.jpg",
    ]  # fmt: skip
    asked.clear()
    assert fetching.fetch(profile, here=READY) == []
    assert asked == [], "what is there is not fetched again"
    assert (home / "vlsafe/train2017/000000000001.jpg").is_file()


@pytest.mark.usefixtures("hub")
def test_a_file_with_another_hash_is_refused_and_the_rest_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["advbench"](tmp_path / "served")
    source = BENCHMARKS["advbench"].source
    assert isinstance(source, WebSet)
    _served(tmp_path / "served", monkeypatch, source)
    failed = fetching.fetch(_small({"attacks": ("advbench",), "utility": ("mm_vet",)}), here=READY)
    assert len(failed) == 1
    assert failed[0].startswith("advbench: ValueError: advbench.csv has SHA-256")
    assert not (home / "advbench/advbench.csv").exists()
    assert "mm_vet" in json.loads((home / "fetched.json").read_text())


@pytest.mark.usefixtures("hub")
def test_pictures_without_an_address_are_told_after_the_others(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS["tovilag_plus"](tmp_path / "served")
    source = BENCHMARKS["tovilag_plus"].source
    assert isinstance(source, WebSet)
    _served(tmp_path / "served", monkeypatch, source)
    failed = fetching.fetch(_small({"attacks": ("tovilag_plus",)}), here=READY)
    assert [message.split(": ", 2)[2][:30] for message in failed] == ["1 pictures have no address: to"]
    assert (home / "tovilag_plus/val2014/COCO_val2014_000000000001.jpg").is_file()


def test_without_a_token_the_open_ones_can_be_had(hub: FakeHub) -> None:
    profile = _small({"attacks": ("vlguard",), "utility": ("mm_vet",)})
    with pytest.raises(
        fetching.CannotFetch, match=r"vlguard is gated: .*ARGS=--without-gated goes on without it"
    ):
        fetching.fetch(profile, here=BARE)
    assert hub.asked == []
    assert fetching.fetch(profile, here=BARE, gated=False) == []
    assert hub.asked == [profile.model.name, "lmms-lab/MMVet"]


def test_addresses_go_by_the_longest_beginning() -> None:
    source = BENCHMARKS["vlsafe"].source
    assert isinstance(source, WebSet)
    assert fetching.address(source, "train2017/1.jpg") == "http://images.cocodataset.org/train2017/1.jpg"
    assert fetching.address(source, "train/x.jsonl").endswith("/dataset/VLSafe/train/x.jsonl")


def test_archives_are_unpacked_once_and_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("tea")
    with tarfile.open(tmp_path / "video.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "a.txt", "video/a.txt")
    fetching.unpack(tmp_path / "video.tar.gz", tmp_path / "own")
    assert (tmp_path / "own/video/a.txt").read_text() == "tea"
    (tmp_path / "own/video/a.txt").unlink()
    fetching.unpack(tmp_path / "video.tar.gz", tmp_path / "own")
    assert not (tmp_path / "own/video/a.txt").exists(), "the same archive is not unpacked twice"
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as opened:
        opened.writestr("../outside.txt", "tea")
    with pytest.raises(ValueError, match="lies outside its folder"):
        fetching.unpack(tmp_path / "test.zip", tmp_path / "own")
    (tmp_path / "cut.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"cut\.zip cannot be unpacked"):
        fetching.unpack(tmp_path / "cut.zip", tmp_path / "own")


def test_hub_sets_that_hold_archives_say_which() -> None:
    packed = {b.name for b in BENCHMARKS.values() if isinstance(b.source, HubSet) and b.source.archives}
    assert packed == {"video_safetybench", "vlguard", "mvbench"}
