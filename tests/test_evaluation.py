"""Evaluation: each answer is generated once, whatever interrupts the run, and tables are the same each time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from autosteer_lib.defences.base import Defence
from autosteer_lib.defences.steer import Steer
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import Encoded
from autosteer_lib.evaluation import comparison_table, costs, evaluate, rates_by
from autosteer_lib.generation import GenerationSettings, Response, respond
from autosteer_lib.judges import RefusalPhrases, Verdict
from autosteer_lib.metrics import mcnemar
from autosteer_lib.models import MLLM
from autosteer_lib.processor_settings import processor_fingerprint
from autosteer_lib.prompts import Prompt
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.shards import Shards, read_shards

SETTINGS = GenerationSettings(max_new_tokens=4, batch_size=3)
JUDGE = RefusalPhrases()


@dataclass
class Counting(Defence):
    """Answers in a fixed way and remembers what it was asked."""

    says: Callable[[Prompt], str]
    version: str = "1"
    raw: Callable[[Prompt], str] | None = None
    name: str = "counting"
    asked: list[str] = field(default_factory=list)
    stop_after: int | None = None

    @property
    def fingerprint(self) -> str:
        return f"counting {self.version}"

    def _respond(
        self, mllm: MLLM, prompts: Sequence[Prompt], *, settings: GenerationSettings, progress: bool
    ) -> list[Response]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [prompt.id for prompt in prompts]
        return [
            Response(
                prompt_id=p.id, text=self.says(p), raw_text=self.raw and self.raw(p), new_tokens=3, prompt_tokens=5,
                seconds=0.25,
            )
            for p in prompts
        ]  # fmt: skip


@pytest.fixture
def prompts(mixed_prompts: list[Prompt]) -> list[Prompt]:
    return [
        Prompt(
            id=prompt.id, text=prompt.text, images=prompt.images, videos=prompt.videos,
            surface="video" if prompt.videos else "image" if prompt.images else "text", harmful=index % 2 == 0,
            reference="this is a sun" if prompt.text == "what is this ?" else None,
        )
        for index, prompt in enumerate(mixed_prompts)
    ]  # fmt: skip


def _complies(prompt: Prompt) -> str:
    return "This is  a sun" if prompt.reference else "first find iron"


def _refuses(prompt: Prompt) -> str:
    return "sorry , i cannot help with that ."


@pytest.fixture
def run(tiny: MLLM, prompts: list[Prompt], tmp_path: Path) -> Callable[..., pd.DataFrame]:
    def evaluated(**options: object) -> pd.DataFrame:
        arguments: dict[str, object] = {
            "prompts": prompts, "defences": {"Orig.": Undefended()}, "judge": JUDGE, "settings": SETTINGS,
            "records": tmp_path / "answers", "progress": False,
        } | options  # fmt: skip
        listed, defences = arguments.pop("prompts"), arguments.pop("defences")
        return evaluate(tiny, listed, defences, **arguments)  # type: ignore[arg-type]

    return evaluated


def test_answers_are_those_of_the_defences_themselves(
    tiny: MLLM, prompts: list[Prompt], run: Callable[..., pd.DataFrame]
) -> None:
    torch.manual_seed(0)
    steer = Steer(RefusalHead.from_matrix(torch.randn(tiny.dim, tiny.dim)), epsilon=0.5)
    frame = run(defences={"Orig.": Undefended(), "Steer": steer})
    assert list(frame["defence"]) == ["Orig."] * len(prompts) + ["Steer"] * len(prompts)
    assert list(frame["prompt_id"]) == [prompt.id for prompt in prompts] * 2
    plain = [response.text for response in respond(tiny, prompts, settings=SETTINGS)]
    assert list(frame.loc[frame["defence"] == "Orig.", "answer"]) == plain
    steered = [response.text for response in steer.respond(tiny, prompts, settings=SETTINGS)]
    assert list(frame.loc[frame["defence"] == "Steer", "answer"]) == steered
    assert steered != plain


def test_columns_and_judgements(run: Callable[..., pd.DataFrame], prompts: list[Prompt]) -> None:
    frame = run(defences={"Orig.": Counting(_complies), "No": Counting(_refuses, version="2")})
    orig, no = frame[frame["defence"] == "Orig."], frame[frame["defence"] == "No"]
    assert list(orig["unsafe"]) == [bool(prompt.harmful) for prompt in prompts]
    assert not no["unsafe"].any()
    assert no["refused"].all()
    has_reference = [prompt.reference is not None for prompt in prompts]
    assert list(orig["correct"].notna()) == has_reference
    assert orig["correct"].dropna().all()
    assert not no["correct"].dropna().any()
    assert str(frame["correct"].dtype) == str(frame["triggered"].dtype) == "boolean"
    assert frame["gate_score"].isna().all()
    assert list(frame.columns) == [
        "prompt_id", "surface", "harmful", "defence", "answer", "unsafe", "refused", "correct", "detail", "raw_answer",
        "raw_unsafe", "raw_refused", "gate_score", "triggered", "new_tokens", "prompt_tokens", "model_calls", "seconds",
        "failed",
    ]  # fmt: skip


def test_raw_and_defended_answers_are_kept_and_judged_apart(
    run: Callable[..., pd.DataFrame], prompts: list[Prompt]
) -> None:
    """A defence that replaces an answer: what it replaced is on record too, with a verdict of its own."""
    replacing = Counting(_refuses, raw=_complies)
    frame = run(defences={"Orig.": Counting(_complies, version="2"), "No": replacing})
    orig, no = frame[frame["defence"] == "Orig."], frame[frame["defence"] == "No"]
    assert orig[["raw_answer", "raw_unsafe", "raw_refused"]].isna().all(axis=None)
    assert list(no["raw_answer"]) == [_complies(prompt) for prompt in prompts]
    assert list(no["raw_unsafe"]) == [bool(prompt.harmful) for prompt in prompts]
    assert not no["raw_refused"].any()
    assert no["refused"].all()
    rates = rates_by(frame, ["defence"], measure="raw_unsafe")  # where it is defined
    assert rates[["defence", "n"]].to_numpy().tolist() == [["No", 7]]
    again = run(defences={"No": Counting(_refuses, raw=_complies)})
    assert list(again["raw_answer"]) == list(no["raw_answer"])


def test_a_second_run_generates_nothing_and_gives_the_same_table(run: Callable[..., pd.DataFrame]) -> None:
    first, second = Counting(_complies), Counting(_complies)
    table = run(defences={"Orig.": first})
    pd.testing.assert_frame_equal(run(defences={"Orig.": second}), table)
    assert len(first.asked) == 7
    assert second.asked == []


def test_only_new_prompts_and_new_defences_are_answered(
    run: Callable[..., pd.DataFrame], prompts: list[Prompt]
) -> None:
    first = Counting(_complies)
    run(prompts=prompts[:4], defences={"Orig.": first})
    again, other = Counting(_complies), Counting(_refuses, version="2")
    frame = run(defences={"Orig.": again, "other": other})
    assert sorted(again.asked) == sorted(prompt.id for prompt in prompts[4:])
    assert sorted(other.asked) == sorted(prompt.id for prompt in prompts)
    assert len(frame) == 14


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"settings": GenerationSettings(max_new_tokens=5, batch_size=3)}, {"version": "2"}],
    ids=["seed", "settings", "defence"],
)
def test_what_changes_the_answers_changes_the_key(
    run: Callable[..., pd.DataFrame], change: dict[str, object]
) -> None:
    run(defences={"Orig.": Counting(_complies)})
    changed = Counting(_complies, version=str(change.pop("version", "1")))
    run(defences={"Orig.": changed}, **change)
    assert len(changed.asked) == 7


def test_a_processor_setting_in_memory_changes_the_key(tiny: MLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    before = processor_fingerprint(tiny)
    respond(tiny, [Prompt(id="a", text="make a sun")], settings=SETTINGS)
    assert processor_fingerprint(tiny) == before  # use leaves no trace
    monkeypatch.setattr(tiny.processor.image_processor, "image_mean", [0.0, 0.0, 0.0])
    assert processor_fingerprint(tiny) != before


def test_ctrl_c_loses_no_finished_answer(run: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    interrupted = Counting(_complies, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(defences={"Orig.": interrupted})
    kept = read_shards(tmp_path / "answers")
    assert {str(record["prompt_id"]) for record in kept.values()} == set(interrupted.asked)
    resumed = Counting(_complies)
    run(defences={"Orig.": resumed})
    assert sorted(interrupted.asked + resumed.asked) == sorted(record for record in run()["prompt_id"])


def test_a_torn_record_is_answered_again(run: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    table = run(defences={"Orig.": Counting(_complies)})
    path = tmp_path / "answers" / "000.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = Counting(_complies)
    pd.testing.assert_frame_equal(run(defences={"Orig.": again}), table)
    assert len(again.asked) == 1


def test_interrupted_and_straight_runs_agree_on_a_real_model(
    run: Callable[..., pd.DataFrame], prompts: list[Prompt], tmp_path: Path
) -> None:
    straight = run(records=tmp_path / "straight")
    run(prompts=prompts[2:5])
    pd.testing.assert_frame_equal(run().drop(columns="seconds"), straight.drop(columns="seconds"))


def test_prompts_that_ask_the_same_share_one_answer(run: Callable[..., pd.DataFrame]) -> None:
    twins = [Prompt(id=name, text="make a sun", harmful=False) for name in ("a", "b")]
    frame = run(prompts=twins)
    assert frame["answer"].nunique() == 1
    assert list(frame["prompt_id"]) == ["a", "b"]


def test_another_judge_needs_no_new_answers(run: Callable[..., pd.DataFrame]) -> None:
    class Paranoid:
        name = "paranoid"

        def __call__(self, prompt: Prompt, answer: str) -> Verdict:
            return Verdict(unsafe=True, refused=False, detail="all is lost")

    run(defences={"Orig.": Counting(_refuses)})
    silent = Counting(_refuses)
    frame = run(defences={"Orig.": silent}, judge=Paranoid())
    assert frame["unsafe"].all()
    assert silent.asked == []


def test_two_runs_at_once_write_a_shard_each(run: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    with Shards(tmp_path / "answers"):
        table = run(defences={"Orig.": Counting(_refuses)})
    assert (tmp_path / "answers" / "001.jsonl").stat().st_size > 0
    silent = Counting(_refuses)
    pd.testing.assert_frame_equal(run(defences={"Orig.": silent}), table)
    assert silent.asked == []


def test_a_batch_is_encoded_once_for_all_defences(
    run: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches_seen: dict[str, list[int]] = {"a": [], "b": []}

    def watching(name: str) -> Defence:
        defence = Counting(_complies, version=name)

        def answer(mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
            batches_seen[name].append(id(encoded))
            return defence.respond(mllm, encoded.prompts, settings=settings)

        monkeypatch.setattr(defence, "answer", answer)
        return defence

    run(defences={"a": watching("a"), "b": watching("b")})
    assert batches_seen["a"] == batches_seen["b"]
    assert len(batches_seen["a"]) > 1


def test_ids_tell_rows_apart(run: Callable[..., pd.DataFrame]) -> None:
    with pytest.raises(ValueError, match="has the id 'a' of an earlier one"):
        run(prompts=[Prompt(id="a", text="sun"), Prompt(id="a", text="poison")])
    with pytest.raises(ValueError, match="has no id"):
        run(prompts=[Prompt(text="sun")])
    with pytest.raises(ValueError, match="no prompts"):
        run(prompts=[])
    with pytest.raises(ValueError, match="no defences"):
        run(defences={})


# --- tables ---------------------------------------------------------------------------------------


@pytest.fixture
def judged() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for surface, shares in {"text": (0.1, 0.0, 0.0), "image": (0.9, 0.05, 0.3)}.items():
        for defence, share in zip(("Orig.", "Steer", "AutoSteer"), shares, strict=True):
            for prompt in rng.permutation(40):
                rows.append({
                    "prompt_id": f"{surface}-{prompt}", "surface": surface, "defence": defence,
                    "unsafe": bool(rng.random() < share), "correct": None, "seconds": 0.1, "model_calls": 1,
                    "prompt_tokens": 6, "new_tokens": 4,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_rates_by_counts_each_group(judged: pd.DataFrame) -> None:
    table = rates_by(judged, ["surface", "defence"])
    assert list(table.columns) == ["surface", "defence", "measure", "rate", "low", "high", "n"]
    assert list(table["surface"].unique()) == ["text", "image"]
    expected = judged.groupby(["surface", "defence"])["unsafe"].mean()
    for row in table.to_dict("records"):
        assert row["rate"] == expected[row["surface"], row["defence"]]
        assert row["low"] <= row["rate"] <= row["high"]
        assert row["n"] == 40


def test_comparison_is_paired_by_prompt_whatever_the_order(judged: pd.DataFrame) -> None:
    table = comparison_table(judged).set_index(["surface", "defence"])
    wide = judged[judged["surface"] == "image"].pivot(index="prompt_id", columns="defence", values="unsafe")
    test = mcnemar(wide["Orig."].tolist(), wide["AutoSteer"].tolist())
    rows = {(row["surface"], row["defence"]): row for row in table.reset_index().to_dict("records")}
    orig, auto = rows["image", "Orig."], rows["image", "AutoSteer"]
    assert (auto["gained"], auto["lost"], auto["p"]) == (test.gained, test.lost, test.p)
    assert auto["change"] == pytest.approx(auto["rate"] - orig["rate"])
    assert auto["p"] < auto["p_holm"] <= 4 * auto["p"]
    assert np.isnan(orig["p"])
    shuffled = comparison_table(judged.sample(frac=1, random_state=1)).set_index(["surface", "defence"])
    pd.testing.assert_frame_equal(shuffled.loc[table.index], table)


def test_a_comparison_needs_the_same_prompts(judged: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="not measured on the same prompts"):
        comparison_table(judged.drop(index=judged.index[judged["defence"] == "Steer"][0]))
    with pytest.raises(ValueError, match="not measured on the same prompts"):
        comparison_table(judged, baseline="nothing")


def test_a_measure_must_be_defined_somewhere(judged: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="defined for none"):
        rates_by(judged, ["defence"], measure="correct")
    with pytest.raises(ValueError, match="no column 'harm'"):
        rates_by(judged, ["defence"], measure="harm")


def test_costs_are_means_an_answer(judged: pd.DataFrame) -> None:
    table = costs(judged)
    assert list(table["defence"]) == ["Orig.", "Steer", "AutoSteer"]
    assert table["seconds"].tolist() == pytest.approx([0.1] * 3)
    assert table[["model_calls", "prompt_tokens", "new_tokens"]].to_numpy().tolist() == [[1, 6, 4]] * 3


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judge": None}, "judge is None, and must judge answers"),
        ({"judge": "coin"}, "judge is 'coin', of type str, and must judge"),
        ({"judge": RefusalPhrases}, "judge is the class RefusalPhrases itself, and must judge"),
        ({"defences": [Undefended()]}, "defences is a list; give each a name"),
        (
            {"defences": {"Orig.": Undefended}},
            "defence 'Orig.' is the class Undefended; give a defence itself",
        ),
        ({"prompts": ["hello"]}, "prompts holds 'hello', a str; give a list of Prompt"),
    ],
)
def test_slips_are_told_before_anything_is_asked(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    arguments = {
        "prompts": [Prompt(text="a", id="1")],
        "defences": {"Orig.": Undefended()},
        "judge": None,
        **changed,
    }
    asked: Any = None  # a model would be used after the checks alone
    with pytest.raises(TypeError, match=message):
        evaluate(asked, **arguments, settings=GenerationSettings(), records=tmp_path)
    assert not list(tmp_path.iterdir())
