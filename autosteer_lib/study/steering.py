"""Chapter 04: the Refusal Head. How it learns, what strength it takes, and how an answer drifts.

The always-on head ("Steer") is swept over ε on the surface that the paper sweeps (harm in words over a
picture) and on its harmless twins, whose refusals the paper does not show.
"""

from __future__ import annotations

import pandas as pd
import torch

from autosteer_lib.defences import AutoSteer, Steer
from autosteer_lib.evaluation import rates_by
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.gap import verdict
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import first_of


def swept(study: Study) -> str:
    """The surface of the sweep: VLSafe in the paper's Fig. 6, else the first with harm in words beside a picture."""
    return first_of(study, ("vlsafe", "words", "image", "text"))[0]


def head_history(defence: AutoSteer) -> pd.DataFrame:
    """Next-token accuracy and loss of the head by epoch.

    Returns:
        epoch, split, accuracy, loss.
    """
    return pd.DataFrame(defence.head_.history_)


def training_log(history: pd.DataFrame) -> pd.DataFrame:
    """The head's history as `plotting.training_curves` draws it."""
    held_out = history[history["split"] == "held_out"]
    loss = held_out.assign(quantity="loss", value=held_out["loss"])
    accuracy = held_out.assign(quantity="refusal tokens right", value=held_out["accuracy"])
    both = pd.concat([loss, accuracy]).rename(columns={"epoch": "step"})
    return both.assign(stage="Refusal Head (held-out)")[["stage", "step", "quantity", "value"]]


def matrix_facts(defence: AutoSteer) -> pd.DataFrame:
    """What training did to S, which began as the identity.

    Returns:
        quantity, value: norm of S − I over that of I, effective rank of S − I, share of its energy in
        the first singular direction.
    """
    change = defence.head_.matrix_.double() - torch.eye(len(defence.head_.matrix_))
    energy = torch.linalg.svdvals(change).square()
    shares = energy / energy.sum()
    entropy = -(shares * shares.clamp_min(1e-300).log()).sum()
    return pd.DataFrame(
        {
            "quantity": [
                "‖S − I‖ / ‖I‖",
                "effective rank of S − I",
                "energy of its first direction",
                "dimensions",
            ],
            "value": [
                float(change.norm() / len(change) ** 0.5),
                float(entropy.exp()),
                float(shares[0]),
                float(len(change)),
            ],
        }
    )


def _strengths(study: Study, defence: AutoSteer) -> dict[str, Steer]:
    return {
        f"{epsilon:g}": defence.always_on(epsilon=epsilon) for epsilon in study.profile.evaluation.epsilons
    }


def epsilon_sweep(study: Study, defence: AutoSteer) -> pd.DataFrame:
    """The always-on head over ε: attacks that succeed, harmless twins that are refused.

    Returns:
        epsilon, series, rate, low, high, n; attacks alone where the surface has no twins.
    """
    strengths, surface = _strengths(study, defence), swept(study)
    tables = []
    for group, column, series in (
        ("attack", "unsafe", "attack succeeds"),
        ("benign", "refused", "harmless twin refused"),
    ):
        if surface not in study.data.surfaces(group):  # type: ignore[arg-type]  # a Group
            continue
        prompts = study.data.test(group=group, surface=surface)  # type: ignore[arg-type]
        frame = study.evaluate(strengths, prompts)
        tables.append(rates_by(frame, ["defence"], measure=column).assign(series=series))
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "epsilon", table["defence"].astype(float))
    return table[["epsilon", "series", "rate", "low", "high", "n"]]


def drift(study: Study, defence: AutoSteer, *, prompts: int = 2) -> pd.DataFrame:
    """How the answer to an attack changes as ε grows (Fig. 7).

    The prompts are the first that the undefended model carries out and the strongest head refuses.

    Returns:
        prompt, epsilon, answer, verdict.
    """
    attacks = study.data.test(group="attack", surface=swept(study))
    frame = study.evaluate(_strengths(study, defence), attacks)
    frame = frame[~frame["failed"]].assign(epsilon=lambda rows: rows["defence"].astype(float))
    ends = frame.pivot(index="prompt_id", columns="epsilon", values="unsafe").dropna().astype(bool)
    turned = ends[ends.iloc[:, 0] & ~ends.iloc[:, -1]].index
    answered = [p for p in attacks if p.id in ends.index]
    chosen = [p for p in answered if p.id in turned][:prompts] or answered[:prompts]
    return _drift_rows(frame, chosen)


def _drift_rows(frame: pd.DataFrame, prompts: list[Prompt]) -> pd.DataFrame:
    rows = []
    for prompt in prompts:
        own = frame[frame["prompt_id"] == prompt.id].sort_values("epsilon")
        for _, row in own.iterrows():
            rows.append(
                {
                    "prompt": prompt.text,
                    "epsilon": row["epsilon"],
                    "answer": row["answer"],
                    "verdict": verdict(row["unsafe"], row["refused"]),
                }
            )
    return pd.DataFrame(rows)
