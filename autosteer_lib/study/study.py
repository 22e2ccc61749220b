"""Study: what every notebook starts from. It opens a profile and keeps what was computed once.

    study = Study.open("organism", seed=0)
    study.mllm  study.data  study.states(prompts)  study.autosteer()  study.evaluate(…)
    study.table(frame, "name", …)   study.figure(figure, "name", tables=[…])   study.verify("name")

What is computed is kept in build/<profile>, keyed by all that it depends on: a notebook does only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.answerers import Answerer, OneByOne
from autosteer_lib.artefacts import Artefacts
from autosteer_lib.defences import AutoSteer, Defence, Mars, SafeSteer, Undefended
from autosteer_lib.evaluation import evaluate
from autosteer_lib.fitted_state import state_hash
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Judge, RefusalPhrases
from autosteer_lib.judges.named import word_judge
from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.models import MLLM, load
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.probers import SafetyProber
from autosteer_lib.profiles import DEFAULT_PROFILE, Profile, load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.provenance import library_hash, repository_root
from autosteer_lib.readings import Reading
from autosteer_lib.recorded_answers import OwnAnswersOnRecord
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.safesteer_readings import SafeSteerReading
from autosteer_lib.sas import candidate_layers, safety_awareness_score, select_layer
from autosteer_lib.scale_out.on_ray import told
from autosteer_lib.sites import resid_post, resid_pre
from autosteer_lib.study.fitted_once import Part, fitted_once
from autosteer_lib.study.probe_data import probe_data
from autosteer_lib.study.prompt_data import PromptData, group_of, prompt_data
from autosteer_lib.study.text_data import TextData, text_data


@dataclass(frozen=True)
class Study:
    """One profile, one training seed, one build folder."""

    profile: Profile
    seed: int
    artefacts: Artefacts

    @classmethod
    def open(cls, profile: str | Path = "organism", *, seed: int = 0, out: str | Path = "") -> Study:
        """Open a study.

        Args:
            profile: name of a shipped profile, or a TOML file.
            seed: of training (prober, head, splits); the prompts have the profile's own.
            out: build folder; build/<profile> if empty.
        """
        settings = load_profile(profile)
        if settings.run.threads:
            torch.set_num_threads(settings.run.threads)
        if settings.name != DEFAULT_PROFILE:
            print(
                f"profile {settings.name}: tables and figures are of {settings.model.name}. The text around them, "
                f"'What came out' above all, is about profile {DEFAULT_PROFILE} and says nothing of this run."
            )
        model = settings.model
        facts = {
            "model": model.name, "revision": model.revision or "folder", "dtype": model.dtype, "seed": seed,
            "data_seed": settings.data.seed, "batch_size": settings.generation.batch_size,
            "beside": settings.run.beside,
        }  # fmt: skip
        return cls(settings, seed, Artefacts.open(profile, out=out, facts=facts))

    @cached_property
    def mllm(self) -> MLLM:
        """The model, loaded when it is first needed."""
        model = self.profile.model
        torch.manual_seed(self.seed)
        mllm = load(
            self.profile.model_path(repository_root()),
            dtype=model.dtype,
            device=model.device,
            device_map=model.device_map or None,
            revision=model.revision or None,
            add_generation_prompt=model.add_generation_prompt,
            template_options=model.template_options,
        )
        if on_ray := told():
            on_ray.summon(mllm)  # its actors start while this process fits
        return mllm

    @cached_property
    def beside(self) -> tuple[Study, ...]:
        """Studies of the models that the profile shows beside this one; they write into the same build."""
        return tuple(Study(load_profile(name), self.seed, self.artefacts) for name in self.profile.run.beside)

    @cached_property
    def data(self) -> PromptData:
        """All prompts; but for files of one's own they leave out clips where the model sees none."""
        clips = self.profile.data.source == "files" or self.mllm.sees_videos
        return prompt_data(self.profile, root=repository_root(), clips=clips)

    @cached_property
    def text_data(self) -> TextData:
        """What MARS is fitted on."""
        return text_data(self.profile, root=repository_root(), clips=self.mllm.sees_videos)

    @cached_property
    def probe_sets(self) -> ProbeSets:
        """What SafeSteer is fitted on."""
        return probe_data(self.profile, root=repository_root())

    @cached_property
    def judge(self) -> Judge:
        """The judge that the attack success rates are by."""
        return word_judge(self.profile.judges.decides)

    @cached_property
    def fit_judge(self) -> Judge:
        """What a fit takes for a refusal: strings, as a user has them, and never the world's truth."""
        return RefusalPhrases() if self.profile.judges.decides == "truth" else self.judge

    @cached_property
    def answerer(self) -> Answerer:
        """Who makes the answers: this process, or the Ray that the driver tells of (`make reproduce RAY=1`)."""
        return told() or OneByOne()

    @property
    def own_answers(self) -> OwnAnswersOnRecord:
        """What the undefended model answers, for fits."""
        return OwnAnswersOnRecord(
            records=self.artefacts.build / "records" / "answers", answerer=self.answerer
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that are probed, as the profile says."""
        every = candidate_layers(self.mllm.layers)
        asked = self.profile.sas.candidates
        if asked == "all":
            return every
        beyond = sorted(set(asked) - set(every))
        if beyond:
            raise ValueError(
                f"profile {self.profile.name}: sas.candidates has layers {beyond}; {self.mllm.name} "
                f"has the candidates {every[0]}…{every[-1]}"
            )
        return asked

    @property
    def settings(self) -> GenerationSettings:
        """Length and batch of the answers."""
        generation = self.profile.generation
        return GenerationSettings(max_new_tokens=generation.max_new_tokens, batch_size=generation.batch_size)

    def states(self, prompts: Sequence[Prompt]) -> Float[Tensor, "prompts layers dim"]:
        """Last-prompt-token states at the input of each probed layer (computed once, then read)."""
        return collect(
            self.mllm,
            prompts,
            sites=[resid_pre(layer) for layer in self.layers],
            batch_size=self.profile.generation.batch_size,
            cache=self.artefacts.build / "states",
        )

    def outputs(self, prompts: Sequence[Prompt]) -> Float[Tensor, "prompts layers dim"]:
        """Last-prompt-token states at the output of every block, which is where MARS reads and writes."""
        return collect(
            self.mllm,
            prompts,
            sites=[resid_post(layer) for layer in range(self.mllm.layers)],
            batch_size=self.profile.generation.batch_size,
            cache=self.artefacts.build / "states",
        )

    def prober(self, *, reading: Reading | None = None, **changes: Any) -> SafetyProber:
        """An unfitted prober with the profile's hyper-parameters."""
        reading = reading or self.paper_reading
        settings: dict[str, Any] = {
            **self.profile.prober.model_dump(exclude={"held_out"}),
            "seed": self.seed,
            "output": reading.prober_output,
            "checkpoint": reading.prober_checkpoint,
        }
        return SafetyProber(**{**settings, **changes})

    def head(self, *, reading: Reading | None = None, **changes: Any) -> RefusalHead:
        """An unfitted Refusal Head with the profile's hyper-parameters."""
        reading = reading or self.paper_reading
        settings: dict[str, Any] = {
            **self.profile.head.model_dump(exclude={"refusal_text"}),
            "seed": self.seed,
            "checkpoint": reading.head_checkpoint,
        }
        return RefusalHead(**{**settings, **changes})

    @property
    def paper_reading(self) -> Reading:
        """The paper's side of every difference, with this profile's refusal and template."""
        return Reading(
            refusal_text=self.profile.head.refusal_text,
            add_generation_prompt=self.profile.model.add_generation_prompt,
        )

    def autosteer(self, *, reading: Reading | None = None, seed: int | None = None) -> AutoSteer:
        """AutoSteer fitted on this study's data; read from the build folder if it was fitted before."""
        reading = reading or self.paper_reading
        study = self if seed is None else Study(self.profile, seed, self.artefacts)
        if seed is not None:
            vars(study).update({k: v for k, v in vars(self).items() if k in ("mllm", "data")})
        return study._fitted(reading)

    def mars(self, *, reading: MarsReading | None = None) -> Mars:
        """MARS fitted on this study's texts and neutral sights; read from the build folder if it was fitted before."""
        reading, data = reading or MarsReading(), self.text_data
        texts = data.texts
        prompts = (*texts.unsafe, *texts.safe, *texts.validation_unsafe, *texts.validation_safe)
        folder = self._fitted_folder(
            "mars",
            self.mllm,
            profile={"generation"},
            prompts=(*prompts, *data.pictures, *data.clips),
            reading=reading,
        )
        return fitted_once(
            folder,
            load=lambda place: Mars.load(place, self.mllm),
            fit=lambda: Mars(reading=reading).fit(
                self.mllm,
                texts,
                pictures=data.pictures,
                clips=data.clips,
                settings=self.settings,
                judge=self.fit_judge,
                answers=self.own_answers,
                cache=self.artefacts.build / "states",
            ),
        )

    def safesteer(
        self, *, reading: SafeSteerReading | None = None, sets: ProbeSets | None = None
    ) -> SafeSteer:
        """SafeSteer fitted on this study's sets, or on others; read from the build folder if it was fitted before."""
        reading, sets = reading or SafeSteerReading(), sets or self.probe_sets
        p = self.profile.safesteer
        folder = self._fitted_folder(
            "safesteer",
            self.mllm,
            profile={"safesteer", "generation"},
            prompts=(*sets.attacks, *sets.harmless),
            kinds=[len(s) for s in (sets.image_attacks, sets.text_attacks, sets.other_attacks)],
            reading=reading,
        )
        unfitted = SafeSteer(k=p.k, step=p.step, held_out=p.held_out, seed=self.seed, reading=reading)
        return fitted_once(
            folder,
            load=lambda place: SafeSteer.load(place, self.mllm),
            fit=lambda: unfitted.fit(
                self.mllm,
                sets,
                settings=self.settings,
                judge=self.fit_judge,
                cache=self.artefacts.build / "states",
            ),
        )

    def kept(
        self,
        kind: str,
        load: Callable[[Path, MLLM], Part],
        fit: Callable[[], Part],
        *,
        profile: set[str],
        prompts: Sequence[Prompt],
        **options: object,
    ) -> Part:
        """A fitted part, read from the build folder if it was fitted before.

        Args:
            kind: begins the folder's name.
            load: reads it.
            fit: makes it.
            profile: sections of the profile that the fit reads.
            prompts: all that it is fitted on.
            options: whatever else it depends on, as `repr` says it.
        """
        folder = self._fitted_folder(kind, self.mllm, profile=profile, prompts=prompts, **options)
        return fitted_once(folder, load=lambda place: load(place, self.mllm), fit=fit)

    def evaluate(
        self, defences: Mapping[str, Defence], prompts: Sequence[Prompt], *, mllm: MLLM | None = None
    ) -> pd.DataFrame:
        """Answers and verdicts, one row a (defence, prompt), with the prompts' `group`."""
        frame = evaluate(
            mllm or self.mllm,
            prompts,
            defences,
            judge=self.judge,
            settings=self.settings,
            records=self.artefacts.build / "records" / "answers",
            answerer=self.answerer,
        )
        frame.insert(2, "group", frame["prompt_id"].map({p.id: group_of(p) for p in prompts}))
        return frame

    def methods(self, *, seed: int | None = None) -> dict[str, Defence]:
        """The three columns of AutoSteer's Table 1."""
        autosteer = self.autosteer(seed=seed)
        return {"Orig.": Undefended(), "Steer": autosteer.always_on(), "AutoSteer": autosteer}

    def table(self, frame: pd.DataFrame, name: str, **options: Any) -> pd.DataFrame:
        """Write a table; see `Artefacts.table`."""
        return self.artefacts.table(frame, name, **options)

    def figure(self, figure: Figure, name: str, *, tables: Sequence[str]) -> Figure:
        """Write a figure; see `Artefacts.figure`."""
        return self.artefacts.figure(figure, name, tables=tables)

    def verify(self, *names: str) -> None:
        """Print how many committed numbers of these tables this run reproduced."""
        self.artefacts.verify(*names)

    def model_for(self, reading: Reading) -> MLLM:
        """The model under the reading's end of the prompt; the weights are the same ones, for a card holds them once."""
        opened = reading.add_generation_prompt
        if opened == self.mllm.add_generation_prompt:
            return self.mllm
        origin = self.mllm.origin and replace(self.mllm.origin, add_generation_prompt=opened)
        return replace(self.mllm, add_generation_prompt=opened, origin=origin)

    def _layer_of_highest_sas(self) -> int:
        """Among the profile's own candidates, which a reading does not know."""
        toxic, safe = (self.states(side) for side in (self.data.pairs.toxic, self.data.pairs.safe))
        return select_layer(safety_awareness_score(toxic, safe, layers=self.layers), self.layers)

    def _fitted(self, reading: Reading) -> AutoSteer:
        mllm = self.model_for(reading)
        layer = None if self.profile.sas.candidates == "all" else self._layer_of_highest_sas()
        defence = AutoSteer(
            epsilon=self.profile.head.epsilon,
            threshold=self.profile.gate.threshold,
            layer=layer,
            reading=reading,
            prober=self.prober(reading=reading),
            head=self.head(reading=reading),
            held_out=self.profile.prober.held_out,
            seed=self.seed,
        )
        pairs, refusals = self.data.pairs, self.data.refusals
        folder = self._fitted_folder(
            "autosteer",
            mllm,
            profile={"prober", "head", "gate", "generation"},
            prompts=(*pairs.toxic, *pairs.safe, *refusals),
            reading=reading,
            layer=layer,
        )
        return fitted_once(
            folder,
            load=lambda place: AutoSteer.load(place, mllm),
            fit=lambda: defence.fit(
                mllm,
                pairs,
                refusal_prompts=refusals,
                batch_size=self.profile.generation.batch_size,
                cache=self.artefacts.build / "states",
            ),
        )

    def _fitted_folder(
        self, kind: str, mllm: MLLM, *, profile: set[str], prompts: Sequence[Prompt], **options: object
    ) -> Path:
        """Where a fitted defence is kept, under a key of all that the fit depends on."""
        key = state_hash(
            {},
            {
                "code": library_hash(),  # fitting touches most modules
                "model": [mllm.fingerprint, mllm.add_generation_prompt, dict(mllm.template_options)],
                "dtype": str(mllm.dtype),
                "device": mllm.device.type,
                "profile": self.profile.part(profile),
                "judge": self.profile.judges.decides,
                "seed": self.seed,
                "prompts": [(p.fingerprint, p.surface, p.harmful) for p in prompts],
                **{name: repr(value) for name, value in options.items()},
            },
        )
        return self.artefacts.build / "defences" / f"{kind}-{key[:16]}"
