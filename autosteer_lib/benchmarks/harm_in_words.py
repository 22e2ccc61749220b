"""Sets of words alone: harmful requests, harmless ones that sound alike, and plain instructions.

The request is the prompt, and what a judge reads is what the model was asked. Where a repository carries the
file of another at a known commit, that one is taken: a pinned copy with a hash can be checked, an
unpinned original cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autosteer_lib.benchmarks.entry import NUMBER, Ask, Benchmark, HubSet, Part, Row, Sights, WebSet

RAW = "https://raw.githubusercontent.com"
_HARMBENCH = "f970939273ea17b491fadf6001fddc36ed3ae3ff"
_REFUSAL_DIRECTION = "9d852fae1a9121c78b29142de733cb1340770cc3"
_STRONGREJECT = "3432b2d696b428f242bd507df96d80f686571d5e"
_MALICIOUS_INSTRUCT = "1e490531c0ef4bc13430178bf1fbc8f813e34b1a"
_XSTEST = "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
_NO_REFUSAL = "the answer does not open with a refusal's phrase; later work asks a classifier"
_ITSELF = "the request itself"


def column(text: str, *, category: str = "", key: str = NUMBER) -> Callable[[Row, Sights], Iterator[Ask]]:
    """The ask of a set whose prompt is one column."""

    def ask(row: Row, _sights: Sights) -> Iterator[Ask]:
        yield Ask(key=str(row[key]), text=str(row[text]), category=str(row[category]) if category else "")

    return ask


def _harmbench(row: Row, _sights: Sights) -> Iterator[Ask]:
    context, behaviour = str(row["ContextString"] or "").strip(), str(row["Behavior"])
    yield Ask(
        key=str(row["BehaviorID"]),
        text=f"{context}\n\n{behaviour}" if context else behaviour,
        intention=behaviour,
        category=str(row["SemanticCategory"]),
    )


_HARMBENCH_COLUMNS = ("Behavior", "FunctionalCategory", "SemanticCategory", "ContextString", "BehaviorID")
_HARMBENCH_FILE = "harmbench_behaviors_text_{}.csv"

SETS = (
    Benchmark(
        name="harmbench",
        title="HarmBench, text",
        source=WebSet(
            page="https://github.com/centerforaisafety/HarmBench",
            revision=_HARMBENCH,
            urls={"": f"{RAW}/busycalibrating/AdversariaLLM/{_HARMBENCH}/data/behavior_datasets/"},
            hashes={
                _HARMBENCH_FILE.format(
                    "all"
                ): "2745611872be3b2eab141e39bb328b8c1140dc3cd8d0a49da6174260d9ccbfb9",
                _HARMBENCH_FILE.format(
                    "val"
                ): "7bfaaa5e2b9b95002c89e2d33c019f58e9e8496e2fc65d368f1eeb8179e69534",
            },
        ),
        licence="MIT",
        gate="",
        modality="text",
        papers=("MARS",),
        megabytes=0.2,
        prompt="ContextString, a blank line, Behavior; Behavior alone where there is no context",
        success="the classifier cais/HarmBench-Llama-2-13b-cls says yes",
        intention="Behavior",
        parts=(
            Part(
                surface="harmbench",
                group="attack",
                files=(_HARMBENCH_FILE.format("all"),),
                columns=_HARMBENCH_COLUMNS,
                ask=_harmbench,
                keep=lambda row: row["FunctionalCategory"] != "copyright",
                rows=300,
            ),
            Part(
                surface="harmbench/standard",
                group="attack",
                files=(_HARMBENCH_FILE.format("all"),),
                columns=_HARMBENCH_COLUMNS,
                ask=_harmbench,
                keep=lambda row: row["FunctionalCategory"] == "standard",
                rows=200,
            ),
        ),
        note="from a carrier's copy at a pinned commit; copyright rows are left out, they are judged by overlap of text",
    ),
    Benchmark(
        name="jailbreakbench",
        title="JailbreakBench (JBB-Behaviors)",
        source=HubSet(
            repo="JailbreakBench/JBB-Behaviors", revision="886acc352a31533ffbcf4ef22c744658688086fc"
        ),
        licence="MIT",
        gate="",
        modality="text",
        papers=(),
        megabytes=None,
        prompt="Goal",
        success="a Llama-3-70B judge calls the answer jailbroken; on the benign half, refusals are counted",
        intention=_ITSELF,
        parts=(
            Part(
                surface="jailbreakbench",
                group="attack",
                configs=("behaviors",),
                split="harmful",
                columns=("Goal", "Behavior", "Category"),
                ask=column("Goal", category="Category"),
                rows=100,
            ),
            Part(
                surface="jailbreakbench",
                group="benign",
                configs=("behaviors",),
                split="benign",
                columns=("Goal", "Behavior", "Category"),
                ask=column("Goal", category="Category"),
                rows=100,
            ),
        ),
    ),
    Benchmark(
        name="advbench",
        title="AdvBench, harmful behaviours",
        source=WebSet(
            page="https://github.com/llm-attacks/llm-attacks",
            revision=_REFUSAL_DIRECTION,
            urls={"": f"{RAW}/andyrdt/refusal_direction/{_REFUSAL_DIRECTION}/dataset/raw/"},
            hashes={"advbench.csv": "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1"},
        ),
        licence="MIT",
        gate="",
        modality="text",
        papers=(),
        megabytes=0.1,
        prompt="goal",
        success=_NO_REFUSAL,
        intention=_ITSELF,
        parts=(
            Part(
                surface="advbench",
                group="attack",
                files=("advbench.csv",),
                columns=("goal", "target"),
                ask=column("goal"),
                rows=520,
            ),
        ),
        note="from a carrier's copy at a pinned commit; many rows are near-duplicates, so a sample says as much",
    ),
    Benchmark(
        name="strongreject",
        title="StrongREJECT",
        source=WebSet(
            page="https://github.com/alexandrasouly/strongreject",
            revision=_STRONGREJECT,
            urls={"": f"{RAW}/alexandrasouly/strongreject/{_STRONGREJECT}/strongreject_dataset/"},
        ),
        licence="MIT as understood",
        gate="",
        modality="text",
        papers=(),
        megabytes=0.1,
        prompt="forbidden_prompt",
        success="score of a fine-tuned or rubric judge, 0 to 1",
        intention=_ITSELF,
        parts=(
            Part(
                surface="strongreject",
                group="attack",
                files=("strongreject_dataset.csv",),
                columns=("category", "source", "forbidden_prompt"),
                ask=column("forbidden_prompt", category="category"),
                rows=313,
            ),
        ),
    ),
    Benchmark(
        name="xstest",
        title="XSTest",
        source=WebSet(
            page="https://github.com/paul-rottger/exaggerated-safety",
            revision=_XSTEST,
            urls={"": f"{RAW}/paul-rottger/exaggerated-safety/{_XSTEST}/"},
            hashes={"xstest_prompts.csv": "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a"},
        ),
        licence="CC BY 4.0",
        gate="",
        modality="text",
        papers=(),
        megabytes=0.1,
        prompt="prompt",
        success="safe half: full compliance; unsafe half: full refusal, by GPT-4, a person or the answer's opening",
        intention=_ITSELF,
        parts=(
            Part(
                surface="xstest",
                group="borderline",
                files=("xstest_prompts.csv",),
                columns=("id", "prompt", "type", "label"),
                ask=column("prompt", category="type", key="id"),
                keep=lambda row: row["label"] == "safe",
                rows=250,
            ),
            Part(
                surface="xstest",
                group="attack",
                files=("xstest_prompts.csv",),
                columns=("id", "prompt", "type", "label"),
                ask=column("prompt", category="type", key="id"),
                keep=lambda row: row["label"] == "unsafe",
                rows=200,
            ),
        ),
    ),
    Benchmark(
        name="malicious_instruct",
        title="MaliciousInstruct",
        source=WebSet(
            page="https://github.com/Princeton-SysML/Jailbreak_LLM",
            revision=_MALICIOUS_INSTRUCT,
            urls={"": f"{RAW}/Princeton-SysML/Jailbreak_LLM/{_MALICIOUS_INSTRUCT}/data/"},
        ),
        licence="none stated",
        gate="",
        modality="text",
        papers=("MARS",),
        megabytes=None,
        prompt="one line",
        success="none of 29 refusal phrases anywhere in the answer, and a trained judge",
        intention=_ITSELF,
        parts=(
            Part(
                surface="malicious_instruct",
                group="attack",
                files=("MaliciousInstruct.txt",),
                columns=("text",),
                ask=column("text"),
                rows=100,
            ),
        ),
        note="MARS finds its direction on it, so it is no test of MARS; a copy on the hub says CC BY-SA 4.0",
    ),
    Benchmark(
        name="alpaca",
        title="Alpaca",
        source=HubSet(repo="tatsu-lab/alpaca", revision="dce01c9b08f87459cf36a430d809084718273017"),
        licence="CC BY-NC 4.0",
        gate="",
        modality="text",
        papers=("MARS",),
        megabytes=None,
        prompt="instruction; rows with an input of their own are left out",
        success="used for directions only; nothing is scored",
        intention=_ITSELF,
        parts=(
            Part(
                surface="alpaca",
                group="benign",
                split="train",
                columns=("instruction", "input"),
                ask=column("instruction"),
                keep=lambda row: not str(row["input"] or "").strip(),
            ),
        ),
        note="non-commercial",
    ),
)
