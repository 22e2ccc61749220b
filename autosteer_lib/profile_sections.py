"""The sections of a profile: each key's type, its range, and what it means.

One class a table of the TOML file. A key's docstring is what people read about it: the message about a wrong value
ends in it. Where a value is the paper's own, its source stands there. profiles.py loads and checks a file.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """One table of the TOML file: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RunSection(Section):
    description: str
    """One line for people: what this profile is for."""
    offline: bool
    """True: nothing is fetched; the driver then forbids it (HF_HUB_OFFLINE), so a run cannot depend on a network."""
    threads: Annotated[int, Field(ge=1)] | Literal[False]
    """CPU threads; false leaves the choice to torch. One thread adds floats in one order on every machine, and
    a model of 1.8 M parameters gains nothing from more: on a busy machine two threads that wait for each
    other were measured to be ten times slower than one."""
    notebooks_at_once: int = Field(ge=1)
    """Notebooks that may run side by side, each with its threads and a model of its own in memory; never more than
    there are cores for. 1 where the model fills the machine."""
    beside: list[str]
    """Profiles whose models the notebooks show beside this one's, as the paper shows two; their answers, states and
    fits are kept in this profile's build."""
    disk_gb: float = Field(gt=0)
    """Free disk space in GB that the driver asks for before it starts: checkpoints, caches, executed notebooks."""


class ModelSection(Section):
    name: str = Field(min_length=1)
    """A folder, relative to the repository's root, or a Hugging Face id (`owner/name`)."""
    revision: str | Literal[False]
    """Commit of the Hugging Face repository, so that a rerun loads the same bytes; false for a folder."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """"auto" is float32 on a CPU and the checkpoint's own type on an accelerator."""
    device: Literal["auto", "cpu", "cuda", "mps"]
    """"auto" takes the first of cuda, mps, cpu that is there."""
    device_map: Literal["auto"] | Literal[False]
    """"auto" spreads a model that is larger than one card (accelerate); false keeps it on one device."""
    add_generation_prompt: bool
    """Whether the chat template opens the assistant's turn. It decides which token is the last of the
    prompt, thus what is probed: with it the end of the assistant header, without it (the official code)
    the end of the user's turn."""
    template_options: dict[str, bool | int | float | str]
    """What the chat template is told besides, by its author's names: `{ enable_thinking = false }` has a Qwen3.5
    begin its answer where it would begin a thought. One that the template does not read is an error."""
    families: tuple[str, ...]
    """One checkpoint of each further family, by Hugging Face id: `make plan` lists them, and `make fetch
    ARGS=--families` fetches them too. The notebooks load `name` alone."""


class SetsSection(Section):
    """Which benchmarks serve for what, by name ("figstep") or surface ("mm_safetybench/sd"): see
    autosteer_lib/benchmarks. Of a set that has several groups each list takes its own."""

    pairs: tuple[str, ...] = Field(min_length=1)
    """Sets of contrast pairs. Twins share picture and sentence; VLSafe alone has them (AutoSteer §3.2)."""
    refusals: tuple[str, ...] = Field(min_length=1)
    """Sets of toxic prompts that the Refusal Head learns on."""
    attacks: tuple[str, ...] = Field(min_length=1)
    """Test sets of harmful requests."""
    benign: tuple[str, ...]
    """Test sets of their harmless counterparts."""
    borderline: tuple[str, ...]
    """Test sets of harmless requests that look dangerous."""
    utility: tuple[str, ...]
    """Test sets of questions with answers."""
    text_unsafe: tuple[str, ...] = Field(min_length=1)
    """Unsafe texts that the refusal direction is found on (MARS App. C: MaliciousInstruct)."""
    text_safe: tuple[str, ...] = Field(min_length=1)
    """Safe texts beside them (MARS App. C: Alpaca)."""
    validation_unsafe: tuple[str, ...] = Field(min_length=1)
    """Unsafe texts that choose the layer (MARS App. C: HarmBench). No test list may have the rows of these four lists."""
    validation_safe: tuple[str, ...] = Field(min_length=1)
    """Safe texts beside them, never those of `text_safe` (MARS App. C: Alpaca)."""
    probe_image: tuple[str, ...] = Field(min_length=1)
    """Attacks that the picture shows, for SafeSteer's probe (SafeSteer §3.1: MM-SafetyBench's SD)."""
    probe_text: tuple[str, ...] = Field(min_length=1)
    """Attacks in words, put beside a plain picture or nothing (SafeSteer §3.1: CB, MM-SafetyBench's questions)."""
    probe_other: tuple[str, ...] = Field(min_length=1)
    """Further attacks, an equal share of each (SafeSteer §3.1: TYPO, and SD + TYPO)."""
    probe_harmless: tuple[str, ...] = Field(min_length=1)
    """Harmless prompts of the probe (SafeSteer §3.1: MM-Vet)."""
    settings_attacks: tuple[str, ...] = Field(min_length=1)
    """Attacks on which the comparison of all defences chooses their settings; no other list may have anything
    of these sets, whose surfaces ask the same in other forms."""
    settings_benign: tuple[str, ...] = Field(min_length=1)
    """Harmless prompts beside them, likewise."""


class DataSection(Section):
    source: Literal["organism", "files", "benchmarks"]
    """"organism" draws prompts from the shipped world; "files" reads prepared sets from `folder`; "benchmarks"
    loads the published sets that `sets` names, from this machine's cache (`make fetch` fills it)."""
    folder: str | Literal[False]
    """Folder of prepared sets, relative to the repository's root; false where there is none to read."""
    sets: SetsSection | Literal[False]
    """Published sets, in a table [data.sets]; false for other sources."""
    seed: int = Field(ge=0)
    """Seed of the draw. The notebooks' own `seed` is for training; this one fixes who is in which split."""
    pairs: int = Field(ge=4)
    """N contrast pairs for SAS and prober (AutoSteer: 3,000)."""
    refusal_prompts: int = Field(ge=2)
    """Toxic prompts that the Refusal Head learns on (AutoSteer: 3,000 harmful queries + 1,000 toxic pictures)."""
    tests_per_surface: int = Field(ge=2)
    """Test prompts of each attack surface and of each benign set (AutoSteer: 500)."""


class SasSection(Section):
    candidates: Literal["all"] | tuple[int, ...]
    """Layers that SAS may choose: "all", or a list (the official code looked at each fourth only)."""


class ProberSection(Section):
    width: int = Field(ge=1)
    """Hidden units of d → width → toxicity (AutoSteer §3.3: 64)."""
    epochs: int = Field(ge=1)
    """Passes over the pairs (official code: 200, a checkpoint after each)."""
    lr: float = Field(gt=0)
    """AdamW's step (official code: 1e-5)."""
    weight_decay: float = Field(ge=0)
    """AdamW's decay (official code: 1e-5)."""
    batch_size: int = Field(ge=1)
    """States a step (official code: 8)."""
    held_out: float = Field(gt=0, lt=1)
    """Share of pairs kept out of training; the epoch is chosen on them, never on a test set."""


class HeadSection(Section):
    epsilon: float = Field(gt=0)
    """Strength ε in training and in use: logits of h + ε·h·Sᵀ (AutoSteer §3.4: 0.1)."""
    lr: float = Field(gt=0)
    """AdamW's step (official code: 1e-5)."""
    weight_decay: float = Field(ge=0)
    """AdamW's decay (official code leaves torch's default, 0.01)."""
    epochs: int = Field(ge=1)
    """Passes over the refusal prompts (official code: up to 30, the 12th was used)."""
    batch_size: int = Field(ge=1)
    """Prompts a step (official code: 2)."""
    refusal_text: str = Field(min_length=1)
    """The one answer that the head is trained to give."""


class GateSection(Section):
    threshold: float = Field(gt=0, lt=1)
    """τ: the head is on for an answer when P(toxic) ≥ τ (AutoSteer §3.4: 0.5)."""


class MarsSection(Section):
    texts: int = Field(ge=10)
    """Unsafe texts that the refusal direction is found on, and as many safe ones (MARS App. C: 100)."""
    validation: int = Field(ge=2)
    """Other texts of each kind, which choose the layer (MARS App. C: 100)."""
    neutral: int = Field(ge=1)
    """Neutral pictures, and as many neutral clips (MARS §3.1: 128)."""
    neutral_words: Literal["task"] | Annotated[tuple[str, ...], Field(min_length=1)]
    """What is asked beside them: "task" takes the sentences of the organism's own fit split; or a list of
    sentences (the paper does not say)."""
    side: int = Field(ge=1)
    """Width and height of a neutral sight in pixels (the paper does not say)."""
    frames: int = Field(ge=1)
    """Frames of a neutral clip (the paper has none)."""
    alphas: tuple[float, ...] = Field(min_length=1)
    """Fixed strengths of the preliminary study (MARS §2.2: 1, 2, 3)."""
    neutral_counts: tuple[int, ...] = Field(min_length=1)
    """N of the neutral-picture sweep, each at most `neutral` (MARS Table 9: 0, 8, 24, 48, 64, 128)."""
    sweep_tests: int = Field(ge=1)
    """Prompts of each test set in the sweeps and the ablation, its first ones: there are many variants."""
    confirmation_seed: int = Field(ge=0)
    """Of the fresh prompts on which the choice of candidates is measured once more; drawn for nothing else."""


class SafeSteerSection(Section):
    image_attacks: int = Field(ge=2)
    """Attacks that the picture shows (SafeSteer §3.1: 50, drawn pictures)."""
    text_attacks: int = Field(ge=2)
    """Attacks in words (SafeSteer §3.1: 50)."""
    beside_words: Literal["nothing", "plain"]
    """What those words stand beside: "nothing", or a "plain" picture (SafeSteer §3.1: a blank one)."""
    other_attacks: int = Field(ge=2)
    """Further attacks, half in writing, half in picture and words (SafeSteer §3.1: 50 TYPO and 50 SD + TYPO)."""
    harmless: int = Field(ge=4)
    """Harmless prompts (SafeSteer §3.1: 200 of MM-Vet); of the organism's, half are questions, half requests."""
    held_out: float = Field(gt=0, lt=1)
    """Share of each of these kept back, on which the sign of the score is chosen (ours)."""
    k: int = Field(ge=1)
    """Candidates for each token (SafeSteer does not say which of 5 to 20 it took)."""
    step: int = Field(ge=1)
    """Tokens of an answer that are re-ranked (likewise)."""
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """K of the sweep (SafeSteer App. A: 5, 10, 15, 20)."""
    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    """Steps of the sweep, 0 being no re-ranking (SafeSteer App. A: 0, 5, 10, 15, 20)."""
    sweep_tests: int = Field(ge=1)
    """Prompts of each test set in the sweeps and the ablations, its first ones: there are many variants."""


class GenerationSection(Section):
    max_new_tokens: int = Field(ge=1)
    """Tokens of an answer at most; decoding is greedy."""
    batch_size: int = Field(ge=1)
    """Prompts answered at once; also the batch in which states are collected."""


class JudgesSection(Section):
    decides: str = Field(min_length=1)
    """Judge of attack success and refusals, also while a defence is fitted, so one that needs the words alone:
    "truth" (of the organism's world), "refusal phrases", "phrases: <a published list>", or "coin" (rehearsals)."""
    second: tuple[str, ...]
    """Judges that are asked about the same answers afterwards: those above, or published judges by name
    ("llama-guard-3": judges/open_judge.py)."""
    folder: str | Literal[False]
    """Folder that holds published judges' checkpoints by those names, relative to the repository's root; false takes
    them from the hub."""


class ComparedSection(Section):
    tests: int = Field(ge=1)
    """Prompts of each test set on which all defences are compared, its first ones."""
    validation: int = Field(ge=2)
    """Attacks of each validation surface, and as many harmless twins: of the fit split, met in no fit."""
    candidates: int = Field(ge=1)
    """Settings of each method that are tried on them: its published one, and the next of its list."""
    role_plays: int = Field(ge=8)
    """Texts under a role-play, and as many harmless ones, among which AdaSteer finds unsafe texts that get through
    (its code: 100 of each attack); half of them are held out for its lines."""
    transfer_from: str | Literal[False]
    """Profile whose model lends its refusal direction to activation transfer; false leaves that method out."""


class EvaluationSection(Section):
    seeds: tuple[int, ...] = Field(min_length=1)
    """Training seeds whose spread is reported (AutoSteer: one run)."""
    epsilons: tuple[float, ...] = Field(min_length=1)
    """ε of the always-on sweep (AutoSteer Fig. 6: 0 to 0.20 in steps of 0.01)."""
    thresholds: tuple[float, ...] = Field(min_length=1)
    """τ of the threshold sweep (not in the paper)."""
    widths: tuple[int, ...] = Field(min_length=1)
    """Prober widths of the width sweep (not in the paper)."""
    pair_counts: tuple[int, ...] = Field(min_length=1)
    """N of the pair-count sweep, each at most `data.pairs` (not in the paper)."""


class Profile(Section):
    """A whole profile. `name` is the file's own name, never a key in it."""

    name: str
    """Names the build folder: build/<name>."""
    run: RunSection
    model: ModelSection
    data: DataSection
    sas: SasSection
    prober: ProberSection
    head: HeadSection
    gate: GateSection
    mars: MarsSection
    safesteer: SafeSteerSection
    generation: GenerationSection
    judges: JudgesSection
    compared: ComparedSection
    evaluation: EvaluationSection

    def part(self, sections: set[str]) -> str:
        """These sections as JSON, for the key of what depends on them.

        Raises:
            ValueError: no such section: it would count for nothing, and another value of it find what it does not make.
        """
        if unknown := sorted(sections - type(self).model_fields.keys()):
            raise ValueError(
                f"a profile has no section {', '.join(unknown)}; allowed: {', '.join(type(self).model_fields)}"
            )
        return self.model_dump_json(include=sections)

    def model_path(self, root: Path) -> str | Path:
        """What `models.load` takes: a folder under `root` if it is one, else the Hugging Face id.

        An id has at most one slash, so a longer name is a folder even where the folder is missing: a lost
        folder is then reported as such instead of being looked for on a network.
        """
        folder = root / self.model.name
        return folder if folder.is_dir() or self.model.name.count("/") > 1 else self.model.name
