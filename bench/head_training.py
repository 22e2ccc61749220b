"""Training the Refusal Head: final states computed once, against a forward pass of the model every epoch.

    here        states once (the model is frozen, the refusal fixed), then epochs of logits alone
    each epoch  as the published script: every batch of every epoch goes through the whole model

Same answers, same order, same start, same optimiser: so the loss of every epoch must be the same, and is
checked. The slow side is spared what it could be spared: its prompts are encoded once, outside the time,
it keeps no graph of the frozen model, and it does the head's arithmetic in the cheap form.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from autosteer_lib.activations import answer_states
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.refusal_head import RefusalHead, steer
from autosteer_lib.sites import attach, final_norm
from bench.harness import Check, Measure, Result, Settings, Target, compare
from bench.subjects import Subject, medium, shipped

TARGET = Target(kind="at_least", bound=10, words="at least 10 × faster at equal loss")
LOSSES_AGREE = 1e-4  # relative; batches of another shape round differently, 30 epochs in a row
WARM_UP_EPOCHS = 1


def run(settings: Settings) -> Result:
    """On both models, with the epochs and batches that each trains its head with."""
    measures: list[Measure] = []
    checks: list[Check] = []
    cases = (
        # (subject, prompts, rounds): the medium model's slow side takes most of a minute a sample
        (shipped(settings), 128, 5),
        (medium(settings, pictures=True), 8, 3),
    )
    for subject, count, rounds in cases:
        measure, check = measured(
            subject,
            subject.refusals[: 6 if settings.quick else count],
            rounds=2 if settings.quick else rounds,
            settings=settings,
        )
        measures.append(measure)
        checks.append(check)
    return Result(bench="head_training", measures=tuple(measures), checks=tuple(checks))


def measured(
    subject: Subject, prompts: Sequence[Prompt], *, rounds: int, settings: Settings
) -> tuple[Measure, Check]:
    """One model: the ratio of the times, and how far the losses are apart."""
    mllm, answer = subject.mllm, subject.refusal_text
    hyperparameters = {**subject.head.hyperparameters, "seed": settings.seed}
    if settings.quick:
        hyperparameters["epochs"] = 3
    encoded = encode(mllm, prompts, answer=answer)
    losses: dict[str, list[float]] = {}

    def once(epochs: int) -> None:
        head = RefusalHead(**{**hyperparameters, "epochs": epochs})
        losses["once"] = states_once(mllm, prompts, answer=answer, head=head)

    def each(epochs: int) -> None:
        head = RefusalHead(**{**hyperparameters, "epochs": epochs})
        losses["each"] = forward_each_epoch(mllm, encoded, head=head)

    once(WARM_UP_EPOCHS)
    each(WARM_UP_EPOCHS)
    epochs = int(hyperparameters["epochs"])
    name = f"{subject.name}, {len(prompts)} answers, {epochs} epochs"
    timed = compare(
        name,
        {"forward each epoch": lambda: each(epochs), "states once": lambda: once(epochs)},
        rounds=rounds,
        warm_up=0,
        settings=settings,
        target=TARGET,
        details={
            "answers": len(prompts),
            "tokens": encoded.inputs["input_ids"].shape[1],
            "answer_tokens": encoded.answer_tokens,
            **hyperparameters,
        },
    )
    difference = max(abs(a - b) / abs(b) for a, b in zip(losses["once"], losses["each"], strict=True))
    check = Check(
        name=f"{name}: same loss in every epoch (last: {losses['once'][-1]:.6f})",
        difference_is="largest |once − each| / |each| over the epochs",
        difference=difference,
        allowed=LOSSES_AGREE,
    )
    return timed, check


def states_once(mllm: MLLM, prompts: Sequence[Prompt], *, answer: str, head: RefusalHead) -> list[float]:
    """The library's way; the training loss of each epoch."""
    read = answer_states(mllm, prompts, answer=answer, batch_size=16)
    head.fit(read.states, read.targets, mllm.unembedding, rows=read.rows)
    return [record.loss for record in head.history_ if record.split == "train"]


def forward_each_epoch(mllm: MLLM, encoded: Encoded, *, head: RefusalHead) -> list[float]:
    """The published script's way; the training loss of each epoch.

    Args:
        mllm: the frozen model.
        encoded: all prompts with the refusal forced after them.
        head: its hyper-parameters are read; it is not fitted.
    """
    answers, length = len(encoded.prompts), encoded.answer_tokens
    targets = torch.tensor(encoded.answer_ids, device=mllm.device)
    words = mllm.unembedding.float()
    matrix = torch.eye(mllm.dim, device=mllm.device).requires_grad_()
    optimiser = torch.optim.AdamW([matrix], lr=head.lr, weight_decay=head.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(head.seed)
    read: list[Tensor] = []
    losses = []
    with attach(mllm, {final_norm(): lambda hidden: read.append(hidden[:, -length - 1 : -1].float())}):
        for _ in range(head.epochs):
            total = torch.zeros((), device=mllm.device)
            for rows in torch.randperm(answers, generator=generator).split(head.batch_size):
                read.clear()
                with torch.no_grad():
                    mllm.forward(_rows(encoded, rows))
                states = read[0].flatten(0, 1)
                loss = cross_entropy(
                    linear(steer(states, matrix, epsilon=head.epsilon), words), targets.repeat(len(rows))
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.detach() * len(rows)
            losses.append(float(total) / answers)
    return losses


def _rows(encoded: Encoded, rows: Tensor) -> dict[str, Tensor]:
    """Some rows of an encoded batch with their pictures, without the columns in which all are padding."""
    mask = encoded.inputs["attention_mask"]
    seen = torch.tensor([bool(prompt.images) for prompt in encoded.prompts])
    pictures = (seen.cumsum(0) - 1)[rows][seen[rows]].to(mask.device)
    rows = rows.to(mask.device)
    first = int(mask[rows].argmax(dim=1).min())
    chosen = {}
    for name, value in encoded.inputs.items():
        if value.shape == mask.shape:
            chosen[name] = value[rows][:, first:]
        elif len(pictures):  # pixels and sizes have a row a picture
            chosen[name] = value[pictures]
    return chosen
