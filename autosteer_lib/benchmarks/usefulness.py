"""Sets of useful questions, with answers that can be compared.

Options are lettered and the letter is asked for. MMMU puts its pictures among the words, as <image 1>; here the
pictures stand before the words, in order, and the words say [picture 1] instead, since a family's own mark
for pictures must not be written by hand.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autosteer_lib.benchmarks.entry import NUMBER, ORIGIN, Ask, Benchmark, HubSet, Part, Row, Sights, WebSet
from autosteer_lib.scoring import Scoring

_POPE = "08d957b917e5a378a2f99d35b6293c536a66298b"
LETTER_PLEASE = "Answer with the option's letter from the given choices directly."
# MVBench's tasks on whole films: annotation file → folder of its films. Left out are five tasks that ask about a
# part of a film or a folder of frames, which VideoFile does not cut, and the one whose films may not be passed on.
MVBENCH_FILMS = {
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "counterfactual_inference": "clevrer/video_validation",
}


def lettered(options: list[str]) -> str:
    """One option a line, from (A) on."""
    return "\n".join(
        f"({letter}) {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False)
    )


def _realworldqa(row: Row, sights: Sights) -> Iterator[Ask]:
    answer = str(row["answer"]).strip()
    yield Ask(
        key=str(row[NUMBER]),
        text=str(row["question"]),
        images=(sights.picture(row["image"], key=str(row[NUMBER])),),
        reference=answer,
        scoring="letter" if re.fullmatch("[A-J]", answer) else "word",
    )


def _mmmu(row: Row, sights: Sights) -> Iterator[Ask]:
    key = str(row["id"])
    options, answer = _listed(row["options"]), _listed(row["answer"])
    pictures: list[Path] = []
    for n in range(1, 8):
        value = row.get(f"image_{n}")
        if value is not None:
            pictures.append(sights.picture(value, key=key))
    words = str(row["question"])
    words += f"\n{lettered(options)}\n{LETTER_PLEASE}" if options else ""
    scoring: Scoring = "letter" if options else "word"
    yield Ask(
        key=key,
        text=re.sub(r"<image (\d+)>", r"[picture \1]", words),
        images=tuple(pictures),
        reference="\n".join(answer),
        scoring=scoring,
        category=str(row.get("subfield") or row.get("subject") or ""),
    )


def _mmmu_pro_vision(row: Row, sights: Sights) -> Iterator[Ask]:
    yield Ask(
        key=str(row["id"]),
        text=f"{lettered(_listed(row['options']))}\n{LETTER_PLEASE}",
        images=(sights.picture(row["image"], key=str(row["id"])),),
        reference=str(row["answer"]),
        scoring="letter",
    )


def _mm_vet(row: Row, sights: Sights) -> Iterator[Ask]:
    yield Ask(
        key=str(row["question_id"]),
        text=str(row["question"]),
        images=(sights.picture(row["image"], key=str(row["question_id"])),),
        reference=str(row["answer"]),
        category=str(row["capability"]),
    )


def _pope(row: Row, sights: Sights) -> Iterator[Ask]:
    yield Ask(
        key=str(row["question_id"]),
        text=str(row["text"]),
        images=(sights.picture(f"val2014/{row['image']}", key=str(row["question_id"])),),
        reference=str(row["label"]),
        scoring="yes_no",
    )


def _mvbench(row: Row, sights: Sights) -> Iterator[Ask]:
    task = str(row[ORIGIN])
    candidates = [str(candidate) for candidate in row["candidates"]]
    film = f"{MVBENCH_FILMS[task]}/{row['video']}"
    yield Ask(
        key=f"{task}/{row[NUMBER]}",
        text=f"{row['question']}\n{lettered(candidates)}\n{LETTER_PLEASE}",
        videos=(sights.film(f"video/{film}", f"video/data0613/{film}"),),  # clevrer's came in data0613.zip
        reference=string.ascii_uppercase[candidates.index(str(row["answer"]))],
        scoring="letter",
        category=task,
    )


def _listed(value: Any) -> list[str]:
    """A list, or the text of one ("['left', 'right']"), as MMMU writes options and some answers."""
    if isinstance(value, str) and value.strip().startswith("["):
        value = ast.literal_eval(value)
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)] if value else []


def _pope_part(kind: str) -> Part:
    return Part(
        surface=f"pope/{kind}",
        group="utility",
        files=(f"output/coco/coco_pope_{kind}.json",),
        columns=("question_id", "image", "text", "label"),
        ask=_pope,
        rows=3000,
    )


def _pro_part(surface: str, config: str, ask: Callable[[Row, Sights], Iterator[Ask]], *columns: str) -> Part:
    return Part(
        surface=surface,
        group="utility",
        configs=(config,),
        split="test",
        columns=("id", "options", "answer", *columns),
        ask=ask,
        rows=1730,
    )


SETS = (
    Benchmark(
        name="realworldqa",
        title="RealWorldQA",
        source=HubSet(repo="xai-org/RealworldQA"),
        licence="CC BY-ND 4.0",
        gate="",
        modality="image",
        papers=("AutoSteer",),
        megabytes=1357.0,
        prompt="question, which holds options and the form of the answer, with its picture",
        success="the expected letter, or the expected word or number among the answer's words",
        intention="question",
        parts=(
            Part(
                surface="realworldqa",
                group="utility",
                split="test",
                columns=("image", "question", "answer"),
                ask=_realworldqa,
                rows=765,
            ),
        ),
        note="no changed copies may be passed on",
    ),
    Benchmark(
        name="mmmu",
        title="MMMU, validation",
        source=HubSet(
            repo="lmms-lab/MMMU",
            revision="364f2e2eb107b36e07ff4c5a15f5947a759cef47",
            leave_out=("data/test-*", "data/dev-*"),
        ),
        licence="Apache-2.0",
        gate="",
        modality="image",
        papers=("AutoSteer", "MARS"),
        megabytes=341.0,
        prompt="question and lettered options, with the pictures before them",
        success="the expected letter; open questions: the expected words",
        intention="question",
        parts=(
            Part(
                surface="mmmu",
                group="utility",
                split="validation",
                columns=("id", "question", "options", "answer", "image_1"),
                ask=_mmmu,
                rows=900,
            ),
        ),
        note="the copy with one configuration instead of thirty; AutoSteer's code kept the last piece of text only",
    ),
    Benchmark(
        name="mmmu_pro",
        title="MMMU-Pro",
        source=HubSet(repo="MMMU/MMMU_Pro", revision="cd9382dd4f8fa7704aa1007f004bfa63aabde6fc"),
        licence="Apache-2.0",
        gate="",
        modality="image",
        papers=("MARS",),
        megabytes=None,
        prompt="as MMMU; in vision the picture holds the question",
        success="the expected letter",
        intention="question",
        parts=(
            _pro_part("mmmu_pro", "standard (10 options)", _mmmu, "question", "image_1"),
            _pro_part("mmmu_pro/4", "standard (4 options)", _mmmu, "question", "image_1"),
            _pro_part("mmmu_pro/vision", "vision", _mmmu_pro_vision, "image"),
        ),
    ),
    Benchmark(
        name="mm_vet",
        title="MM-Vet",
        source=HubSet(repo="lmms-lab/MMVet", revision="b310d12d0d9e765db953da28a7ef7ff43620dc83"),
        licence="CC BY-NC 4.0",
        gate="",
        modality="image",
        papers=("SafeSteer",),
        megabytes=67.0,
        prompt="question, with its picture",
        success="GPT-4 grades from 0 to 1; without such a judge accuracy is not computed",
        intention="question",
        parts=(
            Part(
                surface="mm_vet",
                group="utility",
                split="test",
                columns=("question_id", "image", "question", "answer", "capability"),
                ask=_mm_vet,
                rows=218,
                scored=False,
            ),
        ),
        note="non-commercial; SafeSteer fits its probe on 200 of the 218",
    ),
    Benchmark(
        name="pope",
        title="POPE",
        source=WebSet(
            page="https://github.com/AoiDragon/POPE",
            revision=_POPE,
            urls={
                "": f"https://raw.githubusercontent.com/AoiDragon/POPE/{_POPE}/",
                "val2014/": "http://images.cocodataset.org/val2014/",
            },
            hashes={
                "output/coco/coco_pope_random.json": "ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994",
                "output/coco/coco_pope_popular.json": "72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753",
                "output/coco/coco_pope_adversarial.json": "420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8",
            },
        ),
        licence="MIT; pictures under COCO's terms",
        gate="",
        modality="image",
        papers=(),
        megabytes=None,
        prompt="text, with its COCO picture",
        success="the first yes or no of the answer is the label",
        intention="text",
        parts=(_pope_part("random"), _pope_part("popular"), _pope_part("adversarial")),
    ),
    Benchmark(
        name="mvbench",
        title="MVBench, whole films",
        source=HubSet(
            repo="OpenGVLab/MVBench",
            revision="1cd5c077113061fc5342d7aa526c0777c2fbca7f",
            archives=("video/*.zip",),
            leave_out=("video/sta.zip", "video/star.zip", "video/tvqa.zip"),  # of tasks that are not read
        ),
        licence="MIT on its card, not verified at the sources of the films",
        gate="",
        modality="video",
        papers=(),
        megabytes=None,
        prompt="question and lettered candidates, with the film",
        success="the expected letter",
        intention="question",
        parts=(
            Part(
                surface="mvbench",
                group="utility",
                files=tuple(f"json/{task}.json" for task in MVBENCH_FILMS),
                columns=("video", "question", "candidates", "answer"),
                ask=_mvbench,
                rows=2800,
            ),
        ),
        note="14 of the 20 tasks: those on whole films that may be passed on",
    ),
)
