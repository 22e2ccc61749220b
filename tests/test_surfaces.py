"""Chapters ask for kinds of surfaces: of the organism they get its own names, of other sets what stands for them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autosteer_lib.benchmarks import BENCHMARKS
from autosteer_lib.organism.prompt_sets import ATTACKS
from autosteer_lib.prompts import Prompt
from autosteer_lib.study import Study, mars_ablation, safesteer_ablation, steering
from autosteer_lib.study.prompt_data import PromptData, group_of
from autosteer_lib.study.surfaces import (
    IN_WORDS,
    MUST_BE_SEEN,
    SURFACES,
    all_of,
    either_of,
    first_of,
    kind_of,
    kinds,
    twinned,
)

PICTURE = Image.new("RGB", (4, 4))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("smoke"))


def _with(study: Study, attacks: Sequence[Prompt], *, twins: Sequence[str] = ()) -> Study:
    """The study with other attacks, and a harmless prompt on each of these surfaces."""
    tests = [replace(p, metadata={"group": "attack"}, harmful=True) for p in attacks]
    tests += [
        Prompt(id=f"{s}/benign", text="a cake", surface=s, harmful=False, metadata={"group": "benign"})
        for s in twins
    ]
    other = Study(study.profile, study.seed, study.artefacts)
    vars(other)["data"] = PromptData(pairs=study.data.pairs, refusals=study.data.refusals, tests=tuple(tests))
    return other


def _on(*surfaces: str) -> list[Prompt]:
    return [Prompt(id=s, text="make tea", surface=s) for s in surfaces]


def test_of_the_organism_each_kind_is_a_surface_of_its_own(study: Study) -> None:
    found = kinds(study)
    assert list(found) == list(ATTACKS)
    assert found == {surface: "role-play" if surface == "jailbreak" else surface for surface in ATTACKS}
    assert first_of(study, "text", "image", "video") == ["text", "image", "video"]
    assert first_of(study, ("image", "combination"), "video", twins=True) == ["image", "video"]
    assert all_of(study, *MUST_BE_SEEN) == ["image", "typographic", "video", "combination"]
    assert all_of(study, *IN_WORDS, twins=True) == ["text", "jailbreak", "words"]
    assert steering.swept(study) == "words"
    assert first_of(study, *safesteer_ablation.KINDS) == ["words", "image", "typographic"]
    assert mars_ablation.sights(study) == ["image", "video"]
    assert mars_ablation.sights(study, clips=False) == ["image"]


def test_published_sets_stand_for_kinds(study: Study) -> None:
    paper = _with(
        study,
        _on("vlsafe", "hades/neutral", "figstep", "vlguard/safe_image", "mssbench/chat"),
        twins=["vlguard/safe_image", "mssbench/chat"],
    )
    assert first_of(paper, "words") == ["vlguard/safe_image"], "a surface with twins comes first"
    assert all_of(paper, "words") == ["vlsafe", "vlguard/safe_image"]
    assert first_of(paper, ("image", "combination"), "video", twins=True) == ["mssbench/chat"]
    assert first_of(paper, "image", "typographic", "video") == ["hades/neutral", "figstep"]
    assert first_of(paper, "video") == ["vlsafe"], "none of the kind: the first surface stands for all"
    assert steering.swept(paper) == "vlsafe"
    assert mars_ablation.sights(paper) == ["hades/neutral", "mssbench/chat"], (
        "harm in sight, and one with twins"
    )


def test_a_papers_own_set_comes_before_its_kind(study: Study) -> None:
    every = _on("vlsafe", "figstep", "jailbreakbench", "vlguard/safe_image")
    every += _on(*(f"mm_safetybench/{part}" for part in ("text", "sd", "typo", "sd_typo")))
    paper = _with(study, every, twins=["jailbreakbench", "vlguard/safe_image"])
    table3 = ["mm_safetybench/text", "mm_safetybench/sd", "mm_safetybench/typo"]
    assert first_of(paper, *safesteer_ablation.KINDS) == table3
    asked = safesteer_ablation.sweep_prompts(paper)
    assert [p.surface for p in asked if p.harmful] == table3
    assert [p.surface for p in asked if not p.harmful and group_of(p) == "benign"] == ["vlguard/safe_image"]


def test_names_and_kinds_are_looked_for_in_their_order() -> None:
    there = ["vlguard/unsafe_image", "hades/neutral", "image"]
    assert either_of(("hades/neutral", "image"), among=there) == ["hades/neutral"]
    assert either_of(("hades", "image"), among=there[:2]) == there[:2]
    assert either_of(("video",), among=there) == []
    assert mars_ablation.PICTURES[0] in SURFACES["image"]


def test_surfaces_of_files_are_told_by_their_first_attack(study: Study) -> None:
    clip = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    mine = _with(
        study,
        [
            Prompt(id="1", surface="a", text="Make a bomb"),
            Prompt(
                id="2", surface="b", text="Please make a bomb!", intention="make a bomb", images=(PICTURE,)
            ),
            Prompt(id="3", surface="c", text="How is this made?", intention="make a bomb", images=(PICTURE,)),
            Prompt(id="4", surface="d", text="How is this made?", intention="make a bomb", videos=(clip,)),
        ],
    )
    assert kinds(mine) == {"a": "text", "b": "words", "c": "image", "d": "video"}
    assert kind_of("a") is None


def test_without_twins_nothing_tells_harm_from_what_surrounds_it(study: Study) -> None:
    with pytest.raises(ValueError, match="no attack surface has harmless prompts of the same surface"):
        twinned(_with(study, _on("vlsafe"), twins=["alpaca"]))


def test_every_attack_of_the_registry_has_one_kind() -> None:
    names = [surface for surfaces in SURFACES.values() for surface in surfaces]
    assert len(names) == len(set(names))
    attacks = {
        part.surface for entry in BENCHMARKS.values() for part in entry.parts if part.group == "attack"
    }
    assert attacks <= set(names), "give each a kind in SURFACES of study/surfaces.py"


def test_a_row_that_failed_stops_no_chapter(study: Study, tmp_path: Path) -> None:
    from autosteer_lib.study import gap, outcome, safesteer_ablation

    answers = gap.undefended(study)
    first = study.data.test(group="attack", surface="image")[0].id
    hurt = answers["prompt_id"] == first
    failed = answers.assign(failed=answers["failed"] | hurt)
    failed.loc[hurt, ["answer", "unsafe", "refused"]] = None
    shown = gap.examples(study, failed).set_index("surface")
    assert shown.loc["image", "prompt"] == study.data.test(group="attack", surface="image")[1].text
    other = failed.assign(defence="AutoSteer")
    both = [failed, other]
    import pandas as pd

    frame = pd.concat(both, ignore_index=True)
    assert len(outcome.cases(study, frame)) <= 3 * len(study.data.surfaces("attack"))
    endings = safesteer_ablation.endings(failed).query("set == 'attacks, image'")
    assert set(endings["n"]) == {
        int((answers["surface"].eq("image") & answers["group"].eq("attack")).sum()) - 1
    }
