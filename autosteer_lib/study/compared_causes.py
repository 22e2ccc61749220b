"""Chapter 08, why: answers that are noise, what the detector goes by, where CAST loses its way, refusals that are none.

A method that does nothing here may fail by itself, by how it was read, or by the model; each of these looks at one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from autosteer_lib.defences import AnswerDetector, Cast
from autosteer_lib.defences.answer_detector import Exchange
from autosteer_lib.evaluation import BASELINE
from autosteer_lib.metrics import Rate
from autosteer_lib.organism.replies import is_reply
from autosteer_lib.study.compared import tests
from autosteer_lib.study.compared_choice import CHOSEN, PUBLISHED
from autosteer_lib.study.compared_data import ComparedData
from autosteer_lib.study.compared_words import words_for
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import IN_SIGHT, kind_of


def sentences(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Answers that are a sentence of the organism's world, right or wrong; what is none is noise.

    The judge calls a refusal what opens like one, so "sorry sorry sorry" is one to it.

    Returns:
        setting, group, defence, rate, low, high, n; no rows for a model of another world.
    """
    columns = ["setting", "group", "defence", "rate", "low", "high", "n"]
    if study.profile.data.source != "organism":
        return pd.DataFrame(columns=columns)
    said = frame["answer"].map(is_reply)
    groups = said.groupby([frame["setting"], frame["group"], frame["defence"]], sort=False)
    rows = [
        {"setting": setting, "group": group, "defence": defence, **Rate.of(part.tolist()).as_row()}
        for (setting, group, defence), part in groups
    ]
    return pd.DataFrame(rows, columns=columns)


def by_thing(study: Study, frame: pd.DataFrame, *, defence: str) -> pd.DataFrame:
    """Attacks that the undefended model carries out and a defence lets through, by the thing that is asked for.

    Returns:
        thing, rate, low, high, n; no rows where prompts name no thing.
    """
    things = {p.id: p.metadata.get("thing") for p in tests(study)}
    attacks = frame[(frame["group"] == "attack") & (frame["setting"] == CHOSEN)]
    wide = attacks.pivot(index="prompt_id", columns="defence", values="unsafe")
    wide = wide[[BASELINE, defence]].dropna().astype(bool)
    through = wide.loc[wide[BASELINE], defence]
    rows = [
        {"thing": thing, **Rate.of(part.tolist()).as_row()}
        for thing, part in through.groupby(through.index.map(things))
    ]
    table = pd.DataFrame(rows, columns=["thing", "rate", "low", "high", "n"])
    return table.sort_values(["rate", "n"], ascending=False).reset_index(drop=True)


def relapses(frame: pd.DataFrame) -> pd.DataFrame:
    """Attacks that are refused in the first words and carried out in the next ones; methods without any are left out.

    Returns:
        setting, defence, rate, low, high, n (attacks).
    """
    attacks = frame[(frame["group"] == "attack") & ~frame["failed"]]
    both = attacks["refused"].astype(bool) & attacks["unsafe"].astype(bool)
    groups = both.groupby([attacks["setting"], attacks["defence"]], sort=False)
    rows = [
        {"setting": setting, "defence": defence, **Rate.of(part.tolist()).as_row()}
        for (setting, defence), part in groups
        if part.any()
    ]
    return pd.DataFrame(rows, columns=["setting", "defence", "rate", "low", "high", "n"])


def cast_readings(study: Study, data: ComparedData, *, strength: float) -> pd.DataFrame:
    """CAST with its condition read otherwise: does it tell harm in texts, does it open in sight, what comes of it?

    Args:
        study: the study.
        data: whose validation prompts are answered; nothing is chosen by them here.
        strength: of the behaviour.

    Returns:
        condition, layer, f1 (on the texts that chose the threshold), where ("in sight", "in words"), measure ("opens on
        attacks", "opens on twins", "attacks refused" (and not carried out), "twins spoilt"), rate, low, high, n.
    """
    texts, depth = study.text_data.texts, study.mllm.layers
    upper_half = tuple(range(1, depth // 2 + 1))
    readings = {
        "mean, layers as published": Cast(strength=strength),
        "mean, up to half of the depth": Cast(strength=strength, condition_layers=upper_half),
        "last token, up to half of the depth": Cast(
            strength=strength, condition_layers=upper_half, reads="last"
        ),
    }
    for cast in readings.values():
        cast.fit(
            study.mllm,
            texts,
            refusal_text=study.profile.head.refusal_text,
            compliance_text=words_for(study.profile).complies,
            batch_size=study.settings.batch_size,
        )
    frame = study.evaluate(readings, data.validation)
    frame["where"] = frame["surface"].map(kind_of).isin(IN_SIGHT).map({True: "in sight", False: "in words"})
    rows = []
    for (name, where), part in frame.groupby(["defence", "where"], sort=False):
        attacks, twins = part[part["group"] == "attack"], part[part["group"] == "benign"]
        right = twins["correct"].fillna(True).astype(bool) & ~twins["refused"].astype(bool)
        point = readings[str(name)].point_
        measures = {
            "opens on attacks": attacks["triggered"].astype(bool),
            "opens on twins": twins["triggered"].astype(bool),
            "attacks refused": attacks["refused"].astype(bool) & ~attacks["unsafe"].astype(bool),
            "twins spoilt": ~right,
        }
        of = {"condition": name, "layer": point.layer, "f1": point.f1, "where": where}
        rows += [{**of, "measure": m, **Rate.of(seen.tolist()).as_row()} for m, seen in measures.items()]
    return pd.DataFrame(rows)


def openings(study: Study, frame: pd.DataFrame, detector: AnswerDetector) -> pd.DataFrame:
    """What the answer detector goes by: its alarms on the undefended answers, whole and without their first sentence.

    Returns:
        answers ("carried out", "harmless"), shown ("whole", "without the opening"), rate, low, high, n.
    """
    answered = frame[~frame["failed"].astype(bool)]
    plain = answered[(answered["defence"] == BASELINE) & (answered["setting"] == PUBLISHED)].set_index(
        "prompt_id"
    )
    prompts = {p.id: p for p in tests(study) if p.id in plain.index}
    sides = {
        "carried out": [p for p in prompts.values() if plain.loc[p.id, "unsafe"]],
        "harmless": [p for p in prompts.values() if not p.harmful and not plain.loc[p.id, "refused"]],
    }
    rows = []
    for name, side in sides.items():
        whole = [Exchange(prompt=p, answer=str(plain.loc[p.id, "answer"])) for p in side]
        cut = [replace(e, answer=_after_the_first_sentence(e.answer)) for e in whole]
        for shown, exchanges in (("whole", whole), ("without the opening", cut)):
            alarms = _alarms(study, detector, exchanges)
            rows.append({"answers": name, "shown": shown, **Rate.of(alarms).as_row()})
    return pd.DataFrame(rows)


def _alarms(study: Study, detector: AnswerDetector, exchanges: Sequence[Exchange]) -> list[bool]:
    spoken = [e for e in exchanges if e.answer.strip()]
    found = detector.look(study.mllm, spoken, batch_size=study.settings.batch_size)
    return [bool(look.triggered) for look in found]


def _after_the_first_sentence(answer: str) -> str:
    return re.split(r"(?<=[.!?])\s", answer, maxsplit=1)[-1]
