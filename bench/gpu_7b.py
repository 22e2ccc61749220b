"""The real size: LLaVA-OneVision-Qwen2-7B's configuration with random weights, bfloat16, on a GPU.

    load       seconds to make the model on the device
    collect    the last token's state at all 28 layers, against a plain prefill; memory over prompt length
    generate   64 tokens at 1, 16 and 64 rows: plain, AutoSteer shut, AutoSteer open; each prompt one picture
    head       one step of the head against the unembedding rebuilt, at this size and on this device

Without a GPU it is skipped. A quick run takes tiny sizes on whatever there is, so that the code is tested
everywhere.
"""

import dataclasses
import time
from functools import partial
from statistics import median

import torch

from autosteer_lib.defences.base import Defence
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings
from bench import active_head, collect_states, head_vs_official, inactive_gate, reading_memory
from bench.answering import TOKENS, gate_check
from bench.harness import Check, Measure, Result, Settings, alternate, ratios, synchronise
from bench.memory import cuda_peak_extra
from bench.random_models import REAL_7B, TINY, Size, prompts, random_mllm
from bench.subjects import ALWAYS_OPEN, ALWAYS_SHUT, Subject, random_subject

NAME = "gpu_7b"
ROUNDS = 9
BATCHES = (1, 16, 64)
LENGTHS = (64, 512, 2048)  # words of a prompt, for the memory of reading


def run(settings: Settings) -> Result:
    """Everything at the real size on CUDA; a quick run at tiny sizes anywhere."""
    cuda = torch.cuda.is_available()
    if not cuda and not settings.quick:
        return Result(bench=NAME, skipped="no CUDA device here; the real size is measured only on one")
    settings = dataclasses.replace(settings, device="cuda" if cuda else "cpu")
    size = TINY if settings.quick else REAL_7B
    device = settings.device

    start = time.perf_counter()
    mllm = random_mllm(size, seed=settings.seed, device=device, dtype=torch.bfloat16)
    synchronise(device)
    loaded = Measure(
        name=f"making {mllm.name}",
        is_="seconds",
        values=(time.perf_counter() - start,),
        details={
            "parameters": sum(parameter.numel() for parameter in mllm.model.parameters()),
            "bytes_allocated": torch.cuda.memory_allocated(device) if cuda else None,
            **dataclasses.asdict(size),
        },
    )
    subject = random_subject(size, mllm, pictures=True, seed=settings.seed)
    reading = _reading(subject, size, settings=settings)
    answering, agree = _answering(subject, settings=settings)
    del mllm, subject  # 16 GB that the rebuilt unembedding can use
    head, same_logits = _head(size, settings=settings)
    checks = (*agree, same_logits) if same_logits is not None else agree
    return Result(bench=NAME, measures=(loaded, *reading, *answering, head), checks=checks)


def _reading(subject: Subject, size: Size, *, settings: Settings) -> list[Measure]:
    mllm = subject.mllm
    rounds = 2 if settings.quick else ROUNDS
    some = subject.prompts[: 4 if settings.quick else 64]
    measures = [
        collect_states.rate(subject.name, mllm, some, batch_size=16, rounds=rounds, settings=settings)
    ]
    if settings.device != "cpu":
        lengths = (16, 256) if settings.quick else LENGTHS
        asked = {length: prompts(size, count=8, words=length, seed=settings.seed) for length in lengths}
        peak_of = partial(cuda_peak_extra, device=settings.device)
        taken = reading_memory.peaks(mllm, asked, rounds=3, peak_of=peak_of)
        measures.append(reading_memory.growth(taken, settings=settings))
    return measures


def _answering(subject: Subject, *, settings: Settings) -> tuple[list[Measure], tuple[Check, ...]]:
    mllm, fitted = subject.mllm, subject.fitted()
    sides: dict[str, Defence] = {
        "plain": Undefended(),
        "shut": fitted.retuned(threshold=ALWAYS_SHUT),
        "open": fitted.retuned(threshold=ALWAYS_OPEN),
    }
    tokens = 4 if settings.quick else TOKENS
    length = GenerationSettings(max_new_tokens=tokens)
    # Answers of full length: the model's end token has a logit of 0 and never wins (random_models).
    measures: list[Measure] = []
    checks: list[Check] = []
    for rows in (1, 2) if settings.quick else BATCHES:
        encoded = encode(mllm, subject.prompts[:rows])
        runs = {
            name: partial(defence.answer, mllm, encoded, settings=length) for name, defence in sides.items()
        }
        seconds = alternate(runs, rounds=2 if settings.quick else ROUNDS, device=settings.device)
        details = {
            "rows": rows,
            "new_tokens": tokens,
            "prompt_tokens": max(encoded.lengths),
            "tokens_per_second": {name: rows * tokens / median(taken) for name, taken in seconds.items()},
            "peak_bytes_above_the_weights": {
                name: cuda_peak_extra(answer, device=settings.device) if settings.device != "cpu" else None
                for name, answer in runs.items()
            },
        }
        for name, target in (("shut", inactive_gate.TARGET), ("open", active_head.TARGET)):
            measures.append(
                Measure(
                    name=f"gate {name}, {rows} × {tokens} tokens",
                    is_=f"seconds {name} / seconds plain",
                    values=ratios(seconds[name], seconds["plain"]),
                    samples={name: seconds[name], "plain": seconds["plain"]},
                    target=target,
                    judged=not settings.quick,
                    details=details,
                )
            )
            checks.append(gate_check(f"{rows} rows", runs[name](), opens=name == "open"))
    return measures, tuple(checks)


def _head(size: Size, *, settings: Settings) -> tuple[Measure, Check | None]:
    case = head_vs_official.Case(dim=size.width, rounds=2 if settings.quick else 20, at_least=150)
    timed, check = head_vs_official.measure(case, vocabulary=size.vocabulary, settings=settings)
    # The target was set for a CPU; here the ratio is reported and not judged.
    return dataclasses.replace(timed, target=None), check
