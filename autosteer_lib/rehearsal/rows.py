"""Every registered set as a folder of the exact layout and columns, with harmless rows of our own.

What stands where a real set has a harmful request is a question about tea. Nothing here is from any set. Sets that a
profile fits on have enough rows for a small fit, and ask what no test set asks (such tests would be dropped); others
have one or two rows.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from autosteer_lib.benchmarks import BENCHMARKS
from autosteer_lib.benchmarks.harm_in_sight import SCENARIOS
from autosteer_lib.benchmarks.usefulness import MVBENCH_FILMS
from autosteer_lib.rehearsal.files import Rows, csv_file, image, json_file, lines, picture, tables
from autosteer_lib.rehearsal.films import film

TEA = "How long should the tea draw?"
CAKE = "How long should the cake bake?"
FEW_SCENARIOS = SCENARIOS[:2]  # of thirteen; the loader does the same with each
FEW_TASKS = ("action_antonym", "state_change")


def harmbench(folder: Path) -> None:
    kinds = ("standard", "contextual", "copyright", *["standard"] * 25)
    rows = [
        {
            "Behavior": f"{TEA} Pot {i}.", "FunctionalCategory": kind, "SemanticCategory": "kitchen",
            "Tags": "", "ContextString": "The pot is green." if kind == "contextual" else "",
            "BehaviorID": f"tea_{kind}_{i}",
        }
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    csv_file(folder / "harmbench_behaviors_text_all.csv", rows)


def jailbreakbench(folder: Path) -> None:
    def rows(goal: str) -> Rows:
        return [
            {
                "Index": i,
                "Goal": f"{goal} {i}",
                "Target": "Sure",
                "Behavior": "tea",
                "Category": "kitchen",
                "Source": "own",
            }
            for i in range(3)
        ]

    both = {("behaviors", "harmful"): rows(TEA), ("behaviors", "benign"): rows(CAKE)}
    tables(folder, both, ending="csv")


def advbench(folder: Path) -> None:
    csv_file(folder / "advbench.csv", [{"goal": f"{TEA} Bag {i}.", "target": "Sure"} for i in range(12)])


def strongreject(folder: Path) -> None:
    rows = [{"category": "kitchen", "source": "own", "forbidden_prompt": f"{TEA} Lid."}]
    csv_file(folder / "strongreject_dataset.csv", rows)


def xstest(folder: Path) -> None:
    rows = [
        {"id": i, "prompt": f"{TEA} {i}", "type": "kitchen", "label": label, "focus": "", "note": ""}
        for i, label in enumerate(("safe", "safe", "unsafe"), 1)
    ]
    csv_file(folder / "xstest_prompts.csv", rows)


def malicious_instruct(folder: Path) -> None:
    folder.mkdir(parents=True)
    asked = [f"{TEA} Cup {i}." for i in range(48)]
    (folder / "MaliciousInstruct.txt").write_text("\n".join(asked) + "\n\n", encoding="utf-8")


def alpaca(folder: Path) -> None:
    rows = [
        {"instruction": f"{CAKE} {i}", "input": "" if i % 4 else "Rye.", "output": "An hour.", "text": ""}
        for i in range(120)
    ]
    tables(folder, {("", "train"): rows})


def vlsafe(folder: Path) -> None:
    files = [f"{i:012}.jpg" for i in range(12)]
    for i, file in enumerate(files):
        picture(folder / "train2017" / file, 10 * i)
    asked = [
        {"image_id": file, "caption": "a pot", "query": f"{TEA} {i}", "reference": ""}
        for i, file in enumerate(files)
    ]
    twins = [
        {"image_id": file, "safe_query": f"{CAKE} {i}", "orig_query": f"{TEA} {i}"}
        for i, file in enumerate(files)
    ]
    lines(folder / "train/VLSafe_harmlessnss_alignment.jsonl", asked)
    lines(folder / "train/vlsafe_convert_safe.jsonl", twins)
    lines(folder / "examine_sampled_500_VLSafe.jsonl", asked[:2])


def tovilag_plus(folder: Path) -> None:
    coco = ("COCO_val2014_000000000001.jpg", "COCO_train2014_000000000002.jpg")
    picture(folder / "val2014" / coco[0])
    picture(folder / "train2014" / coco[1])
    picture(folder / "pictures/owned/1.jpg")
    owned = {"image_pth": "owned/1.jpg", "query": "Describe the picture."}
    lines(
        folder / "Mono_NontoxicImg_ToxicText_500Samples_convert4test.jsonl",
        [{"image_pth": name, "query": TEA, "caption": "a pot"} for name in coco],
    )
    lines(folder / "Mono_NontoxicText_ToxicImg_500Samples_porn_bloody_convert4test.jsonl", [owned])
    lines(
        folder / "Mono_NontoxicText_ToxicImg_1000Samples_porn_bloody_train.jsonl",
        [{**owned, "captions": "a kettle"}],
    )
    lines(folder / "cotoxic_500Samples_convert4test2.jsonl", [{**owned, "caption": "a kettle"}])


def figstep(folder: Path) -> None:
    for file, pictures in (("safebench", "SafeBench"), ("SafeBench-Tiny", "SafeBench-Tiny")):
        rows = [
            {
                "dataset": "ForbidQI", "category_id": 1, "task_id": task, "category_name": "kitchen",
                "question": TEA, "instruction": "Steps to make tea.",
            }
            for task in (1, 2)
        ]  # fmt: skip
        csv_file(folder / f"data/question/{file}.csv", rows)
        for task in (1, 2):
            picture(folder / f"data/images/{pictures}/query_ForbidQI_1_{task}_6.png", 40 * task)


def mm_safetybench(folder: Path, *, scenarios: Sequence[str] = FEW_SCENARIOS) -> None:
    def rows(kind: str, config: str, *, shown: bool) -> Rows:
        place = scenarios.index(config)
        return [
            {
                "id": str(i),
                "question": f"{kind} {config} {i}",
                "image": image(20 * i + place) if shown else None,
            }
            for i in range(2)
        ]

    tables(
        folder,
        {
            (config, kind): rows(kind, config, shown=kind != "Text_only")
            for config in scenarios
            for kind in ("SD", "TYPO", "SD_TYPO", "Text_only")
        },
    )


def hades(folder: Path) -> None:
    rows = [
        {
            "id": str(i), "scenario": "kitchen", "keywords": "kettle", "step": step, "category": kind,
            "instruction": "Say how to clean a kettle.", "image": image(step),
        }
        for step in (0, 5)
        for i, kind in enumerate(("object", "behavior"))
    ]  # fmt: skip
    tables(folder, {("", "test"): rows})


def jailbreakv(folder: Path) -> None:
    rows = [
        {
            "id": i, "jailbreak_query": f"Let us play a game. {TEA}", "redteam_query": f"{TEA} Spoon {i}.",
            "format": "Template", "policy": "kitchen", "image_path": "llm_transfer_attack/blank_1.png", "from": "own",
            "selected_mini": True, "transfer_from_llm": True,
        }
        for i in range(2)
    ]  # fmt: skip
    for file in ("mini_JailBreakV_28K", "JailBreakV_28K"):
        csv_file(folder / f"JailBreakV_28K/{file}.csv", rows)
    picture(folder / "JailBreakV_28K/llm_transfer_attack/blank_1.png")


def video_safetybench(folder: Path) -> None:
    (folder / "video/1_kitchen").mkdir(parents=True)
    film(folder / "video/1_kitchen/1.mp4", [20, 60, 100])
    for kind in ("benign", "harmful"):
        row = {
            "question_id": f"{kind}_1", "question": CAKE, "harmful_intention": TEA, "question_type": kind,
            "video_path": "video/1_kitchen/1.mp4", "category": "1_kitchen", "subcategory": "tea",
        }  # fmt: skip
        json_file(folder / f"{kind}_data.json", [row])


def vlguard(folder: Path) -> None:
    picture(folder / "test/tea/1.png")
    both = [
        {"safe_instruction": CAKE, "response": "An hour."},
        {"unsafe_instruction": TEA, "response": "No."},
    ]
    rows = [
        {"id": "1", "image": "tea/1.png", "safe": True, "instr-resp": both},
        {
            "id": "2", "image": "tea/1.png", "safe": False, "harmful_category": "kitchen",
            "harmful_subcategory": "tea", "instr-resp": [{"instruction": TEA, "response": "No."}],
        },
    ]  # fmt: skip
    json_file(folder / "test.json", rows)


def spa_vl(folder: Path) -> None:
    def rows(question: str, colour: int) -> Rows:
        return [
            {
                "image": image(colour + i),
                "question": f"{question} Tin {i}.",
                "class1": "a",
                "class2": "b",
                "class3": "c",
            }
            for i in range(4)
        ]

    tables(folder, {("test", "harm"): rows(TEA, 1), ("test", "help"): rows(CAKE, 50)})
    readme = folder / "README.md"
    left_out = "- config_name: default\n  data_files:\n  - split: train\n    path: train/*.parquet\n"
    readme.write_text(
        readme.read_text().replace("configs:\n", f"configs:\n{left_out}")
    )  # listed, and not fetched


def mssbench(folder: Path) -> None:
    for side, colour in (("safe", 40), ("unsafe", 200)):
        picture(folder / f"chat/{side}.jpg", colour)
        picture(folder / f"embodied/{side}.png", colour)
    chat = {
        "safe_image_path": "safe.jpg", "intent": "tea", "unsafe_image": "a crowded table",
        "unsafe_image_path": "unsafe.jpg", "Type": "kitchen", "queries": [TEA, CAKE],
    }  # fmt: skip
    embodied = {
        "task": "tea", "category": "kitchen", "safe_instruction": TEA, "safe_instructions": [TEA, CAKE],
        "unsafe_instruction": TEA, "unsafe_instructions": [TEA], "safe": "safe.png", "unsafe": "unsafe.png",
    }  # fmt: skip
    json_file(folder / "combined.json", {"chat": [chat], "embodied": [embodied]})


def siuo(folder: Path) -> None:
    picture(folder / "images/T-01.png")
    row = {
        "question_id": 1, "image": "T-01.png", "question": TEA, "category": "kitchen",
        "safety_warning": "The pot is hot.", "reference_answer": "Four minutes.",
    }  # fmt: skip
    json_file(folder / "siuo_gen.json", [row])


def mossbench(folder: Path) -> None:
    picture(folder / "data/images/1.png")
    row = {
        "image": "images/1.png", "short description": "tea", "description": "tea", "question": TEA, "pid": "1",
        "metadata": {"over": "type 1", "human": 0, "child": 0, "syn": 0, "ocr": 0, "harm": [1]},
    }  # fmt: skip
    json_file(folder / "data/images_information/information.json", {"1": row})


def realworldqa(folder: Path) -> None:
    asked = [("Which?\nA. left\nB. right\nAnswer with the letter.", "B"), ("How many?", "3")]
    rows = [{"image": image(i), "question": q, "answer": a} for i, (q, a) in enumerate(asked)]
    tables(folder, {("", "test"): rows})


def _mmmu_rows(count: int) -> Rows:
    pictures = {f"image_{n}": image(n) if n <= 2 else None for n in range(1, 8)}
    return [
        {
            "id": f"validation_Tea_{i}", "question": "Is <image 1> before <image 2>?", "explanation": "",
            "options": "['yes', 'no', 'see <image 2>']" if i == 0 else "[]", "img_type": "", "subfield": "tea",
            "answer": "B" if i == 0 else "['1/2', '0.5']", "topic_difficulty": "", **pictures,
            "question_type": "multiple-choice" if i == 0 else "open",
        }
        for i in range(count)
    ]  # fmt: skip


def mmmu(folder: Path) -> None:
    tables(folder, {("", "validation"): _mmmu_rows(2)})


def mmmu_pro(folder: Path) -> None:
    vision = [{"id": "1", "image": image(9), "options": "['a', 'b']", "answer": "A", "subject": "tea"}]
    tables(
        folder,
        {
            ("standard (10 options)", "test"): _mmmu_rows(1),
            ("standard (4 options)", "test"): _mmmu_rows(1),
            ("vision", "test"): vision,
        },
    )


def mm_vet(folder: Path) -> None:
    rows = [
        {
            "question_id": f"v1_{i}", "image": image(1 + i), "question": f"{CAKE} {i}" if i else TEA,
            "answer": "4<OR>four", "capability": "ocr",
        }
        for i in range(12)
    ]  # fmt: skip
    tables(folder, {("", "test"): rows})


def pope(folder: Path) -> None:
    picture(folder / "val2014/COCO_val2014_000000000001.jpg")
    for kind in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": i,
                "image": "COCO_val2014_000000000001.jpg",
                "text": "Is there a pot?",
                "label": label,
            }
            for i, label in enumerate(("yes", "no"), 1)
        ]
        lines(folder / f"output/coco/coco_pope_{kind}.json", rows)


def mvbench(folder: Path) -> None:
    for task in FEW_TASKS:
        films = folder / "video" / MVBENCH_FILMS[task]
        films.mkdir(parents=True)
        film(films / "1.mp4", [20, 60])
        row = {"video": "1.mp4", "question": "What?", "candidates": ["up", "down"], "answer": "down"}
        json_file(folder / f"json/{task}.json", [row])


WRITERS: dict[str, Callable[[Path], None]] = {
    writer.__name__: writer
    for writer in (
        harmbench, jailbreakbench, advbench, strongreject, xstest, malicious_instruct, alpaca, vlsafe, tovilag_plus,
        figstep, mm_safetybench, hades, jailbreakv, video_safetybench, vlguard, spa_vl, mssbench, siuo, mossbench,
        realworldqa, mmmu, mmmu_pro, mm_vet, pope, mvbench,
    )
}  # fmt: skip


def shortened() -> dict[str, Any]:
    """Entries that read less than the whole set, so that tests need not write all of it."""
    safety, films = BENCHMARKS["mm_safetybench"], BENCHMARKS["mvbench"]
    few = tuple(f"json/{task}.json" for task in FEW_TASKS)
    return {
        "mm_safetybench": replace(
            safety, parts=tuple(replace(part, configs=FEW_SCENARIOS) for part in safety.parts)
        ),
        "mvbench": replace(films, parts=tuple(replace(part, files=few) for part in films.parts)),
    }


def write_sets(names: Iterable[str], home: Path) -> Path:
    """Write these sets below a folder, whole: what $AUTOSTEER_BENCHMARKS names in a rehearsal.

    A set that this file has written already is taken as it is.

    Raises:
        ValueError: a registered set of which nothing here knows the layout.
    """
    names = list(names)
    if unknown := [name for name in names if name not in WRITERS]:
        raise ValueError(
            f"no rows of our own for {', '.join(unknown)}: write a function of that name in autosteer_lib/rehearsal/rows.py "
            "that makes the set's folder in its exact schema, and enter it in WRITERS"
        )
    written_by, mine = home / "rows.sha256", sha256(Path(__file__).read_bytes()).hexdigest()
    if not written_by.is_file() or written_by.read_text() != mine:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        written_by.write_text(mine)
    for name in names:
        if not (home / name).is_dir():
            partial = home / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            if name == "mm_safetybench":
                mm_safetybench(partial, scenarios=SCENARIOS)
            else:
                WRITERS[name](partial)
            partial.rename(home / name)
    return home
