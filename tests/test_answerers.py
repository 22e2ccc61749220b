"""Whoever answers the batches: the same rows stand together, each key is asked for once, and the table is the same."""

import json
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from autosteer_lib.answerers import Answered, Batch, OneByOne
from autosteer_lib.defences.answer_detector import Exchange
from autosteer_lib.defences.base import Defence
from autosteer_lib.defences.ecso import Ecso
from autosteer_lib.defences.mllm_protector import REFUSAL, MllmProtector
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import Encoded
from autosteer_lib.evaluation import FailedRows, evaluate
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.judges import RefusalPhrases
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.reproduce import main
from autosteer_lib.scale_out import cluster as cluster_file
from autosteer_lib.scale_out.cluster import VARIABLE, CannotScaleOut, Cluster, _fit, connect, import_ray
from autosteer_lib.scale_out.remote_desk import Grounds, RemoteDesk, Task, with_pixels

SETTINGS = GenerationSettings(max_new_tokens=3, batch_size=2)
ROOT = Path(__file__).parents[1]


@dataclass
class LastFirst(OneByOne):
    """An answerer that hands its work back in another order, and remembers it."""

    batches: list[Batch] = field(default_factory=list)

    def answered(
        self,
        mllm: MLLM,
        batches: Sequence[Batch],
        defences: Mapping[str, Defence],
        *,
        settings: GenerationSettings,
        seed: int,
    ) -> Generator[Answered, None, None]:
        self.batches = list(batches)
        yield from reversed(list(super().answered(mllm, batches, defences, settings=settings, seed=seed)))


class Alarmed:
    """A detector that finds everything harmful, at the price of one call."""

    fingerprint = "alarmed"

    def check(self, mllm: MLLM) -> None: ...

    def look(self, mllm: MLLM, exchanges: Sequence[Exchange], *, batch_size: int) -> list[Response]:
        return [
            Response(
                prompt_id=exchange.prompt.id,
                text="",
                new_tokens=0,
                prompt_tokens=1,
                gate_score=1.0,
                seconds=1e-3,
            )
            for exchange in exchanges
        ]


class Silenced(Undefended):
    """Ends every answer at once."""

    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        return [replace(one, text="") for one in super().answer(mllm, encoded, settings=settings)]


@pytest.fixture
def prompts(mixed_prompts: list[Prompt]) -> list[Prompt]:
    labelled = [replace(prompt, harmful=False) for prompt in mixed_prompts]
    return [*labelled, replace(labelled[0], id="again")]


def table(tiny: MLLM, prompts: list[Prompt], records: Path, **options: Any) -> pd.DataFrame:
    frame = evaluate(
        tiny, prompts, {"One": Undefended(), "Two": Undefended()}, judge=RefusalPhrases(), settings=SETTINGS,
        records=records, progress=False, **options,
    )  # fmt: skip
    return frame.drop(columns="seconds")


def test_the_order_in_which_answers_come_changes_nothing(
    tiny: MLLM, prompts: list[Prompt], tmp_path: Path
) -> None:
    backwards = LastFirst()
    pd.testing.assert_frame_equal(
        table(tiny, prompts, tmp_path / "a", answerer=backwards), table(tiny, prompts, tmp_path / "b")
    )
    # two defences of one fingerprint, and two prompts with the same words: asked for once, under one name
    asked = [(prompt.id, name) for b in backwards.batches for name, rows in b.missing.items()
             for prompt in (b.prompts[row] for row in rows)]  # fmt: skip
    assert len(asked) == len(set(asked))
    assert {name for _, name in asked} == {"One"}


def test_the_plain_answer_is_made_once_for_all_that_look_at_it(
    tiny: MLLM, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    generate = Undefended.answer

    def counted(self: Undefended, mllm: MLLM, encoded: Encoded, **options: Any) -> list[Response]:
        asked.append(len(encoded.prompts))
        return generate(self, mllm, encoded, **options)

    monkeypatch.setattr(Undefended, "answer", counted)
    reviewing = {
        "First word": Ecso(verdict="prefix", yes="a", check="{question} {answer}"),
        "Any": MllmProtector(Alarmed()),
    }
    batch = Batch(prompts=tuple(prompts[2:4]), missing={"Orig.": (0, 1), **dict.fromkeys(reviewing, (0, 1))})
    defences: dict[str, Defence] = {"Orig.": Undefended(), **reviewing}
    together = {
        part.defence: part.outcomes
        for part in OneByOne().answered(tiny, [batch], defences, settings=SETTINGS, seed=0)
    }
    assert asked == [2]
    plain = [outcome.result for outcome in together["Orig."]]
    for name, defence in reviewing.items():
        alone = defence.respond(tiny, batch.prompts, settings=SETTINGS)
        for first, outcome, by_itself in zip(plain, together[name], alone, strict=True):
            assert isinstance(first, Response)
            assert isinstance(outcome.result, Response)
            assert replace(outcome.result, seconds=0.0) == replace(by_itself, seconds=0.0)
            assert outcome.result.raw_text == first.text
            assert outcome.result.seconds > first.seconds > 0  # its price is in the bill all the same
    assert {outcome.result.text for outcome in together["Any"]} == {REFUSAL}  # type: ignore[union-attr]


def test_what_is_built_on_the_plain_model_answers_for_itself(tiny: MLLM, prompts: list[Prompt]) -> None:
    batch = Batch(prompts=tuple(prompts[2:4]), missing={"Orig.": (0, 1), "Silenced": (0, 1)})
    plain, silenced = OneByOne().answered(
        tiny, [batch], {"Orig.": Undefended(), "Silenced": Silenced()}, settings=SETTINGS, seed=0
    )
    assert [o.result.text for o in silenced.outcomes] == ["", ""]  # type: ignore[union-attr]
    assert all(o.result.text for o in plain.outcomes)  # type: ignore[union-attr]


def test_a_desk_elsewhere_answers_as_one_here(tiny: MLLM, prompts: list[Prompt]) -> None:
    assert tiny.origin is not None
    defences = {"One": Undefended()}
    desk = RemoteDesk()
    task = Task(origin=tiny.origin, defences=defences, settings=SETTINGS, seed=0, threads=1)
    grounds = desk.prepare(task)
    assert grounds == Grounds.of(tiny, defences)
    batch = Batch(prompts=tuple(prompts[2:4]), missing={"One": (0, 1)})
    (there,) = desk.answer(0, batch)
    (here,) = OneByOne().answered(tiny, [batch], defences, settings=SETTINGS, seed=0)
    assert [o.result.text for o in there.outcomes] == [o.result.text for o in here.outcomes]  # type: ignore[union-attr]
    assert tiny.name in repr(desk)
    loaded = desk._mllm
    desk.prepare(task)
    assert desk._mllm is loaded  # it stays for the next evaluation


def test_grounds_name_what_differs(tiny: MLLM, other_tiny: MLLM) -> None:
    mine, theirs = Grounds.of(tiny, {}), Grounds.of(other_tiny, {})
    (difference,) = mine.differences(theirs)
    assert difference == f"model {tiny.fingerprint} here, {other_tiny.fingerprint} there"
    assert mine.differences(mine) == []


def test_a_model_knows_where_it_was_loaded_from(tiny: MLLM, tiny_folder: Path) -> None:
    assert tiny.origin is not None
    assert (tiny.origin.name, tiny.origin.device) == (str(tiny_folder.resolve()), "cpu")
    assert tiny.origin.load().fingerprint == tiny.fingerprint
    without = load(tiny_folder, device="cpu", dtype="bfloat16", add_generation_prompt=False)
    assert without.origin is not None
    again = without.origin.load()
    assert (again.dtype, again.add_generation_prompt) == (torch.bfloat16, False)


def test_pictures_travel_as_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    prompt = Prompt(id="a", text="what is this ?", images=(path,))
    sent = with_pixels(prompt)
    assert not any(isinstance(image, Path) for image in sent.images)
    assert sent.fingerprint == prompt.fingerprint
    missing = Prompt(id="b", text="what is this ?", images=(tmp_path / "none.png",))
    assert with_pixels(missing) is missing


def test_a_lost_picture_fails_as_a_row(tiny: MLLM, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path)
    prompts = [
        Prompt(id="a", text="what is this ?", images=(path,), harmful=False),
        Prompt(id="b", text="make a sun", harmful=False),
    ]

    class Late(OneByOne):
        def answered(self, *given: object, **options: object) -> Generator[Answered, None, None]:
            path.unlink()
            return super().answered(*given, **options)  # type: ignore[arg-type]

    with pytest.warns(FailedRows, match=r"image .*a\.png does not exist"):
        frame = table(tiny, prompts, tmp_path / "r", answerer=Late())
    assert frame["failed"].tolist() == [True, False] * 2


def test_a_cluster_is_told_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Cluster.from_environment() is None
    cluster = Cluster(address="10.0.0.1:6379", actors=3, gpus=2)
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    assert Cluster.from_environment() == cluster
    assert json.loads(os.environ[VARIABLE])["actors"] == 3


def test_what_an_actor_needs_and_how_many_fit() -> None:
    cluster = Cluster(gpus=2)
    assert cluster.needs(device="cpu", threads=4) == {"CPU": 4.0}
    assert cluster.needs(device="cuda", threads=4) == {"CPU": 1.0, "GPU": 2.0}
    assert _fit({"CPU": 16.0, "GPU": 5.0}, {"CPU": 1.0, "GPU": 2.0}) == 2
    assert _fit({"CPU": 16.0}, {"CPU": 1.0, "GPU": 1.0}) == 0


@dataclass
class Nodes:
    """Stands for the package ray, for what it says of its nodes."""

    listed: list[dict[str, object]]

    def nodes(self) -> list[dict[str, object]]:
        return self.listed


def test_fewer_cards_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(cluster_file, "import_ray", lambda: Nodes(nodes))
    needs = Cluster().needs(device="cuda", threads=1)
    assert Cluster().size(needs) == 2
    with pytest.raises(
        CannotScaleOut, match=r"4 actors of 1 CPU and 1 GPU .* room for 2 \(its 2 nodes: 8 CPU, 1 GPU; "
    ):
        Cluster(actors=4).size(needs)
    with pytest.raises(CannotScaleOut, match=r"1 actors of 1 CPU and 2 GPU .* room for 0"):
        Cluster(gpus=2).size(Cluster(gpus=2).needs(device="cuda", threads=1))


def test_addresses_are_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("somewhere", "ray://host:10001", "host:"):
        with pytest.raises(ValueError, match="write host:port"):
            Cluster(address=address)
    with pytest.raises(ValueError, match="actors=0; a run on Ray needs at least 1"):
        Cluster(actors=0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CannotScaleOut, match=rf"nobody answers at .*:{port} .* correct RAY_ADDRESS"):
        cluster_file._dial(f"127.0.0.1:{port}")
    monkeypatch.setattr(cluster_file, "find_spec", lambda name: None)
    for call in (import_ray, lambda: connect(Cluster())):
        with pytest.raises(CannotScaleOut, match=r"package ray, which is not installed here; pip install"):
            call()


def test_the_driver_says_so_before_it_starts_a_notebook(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--profile", "smoke", "--ray", "nowhere"]) == 2
    assert "nothing was started: Ray address 'nowhere'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--profile", "smoke", "--actors", "2"])
    assert "add --ray, or RAY=1 to make" in capsys.readouterr().err


def test_make_hands_ray_on_to_the_driver() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(if $(RAY_ADDRESS),--ray '$(RAY_ADDRESS)',$(if $(filter-out 0,$(RAY)),--ray))" in makefile
