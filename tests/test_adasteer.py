"""AdaSteer on a tiny model: strengths read off the unsteered prompt, two vectors at every layer of its prefill."""

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autosteer_lib.activations import collect
from autosteer_lib.adaptive_strength import ClippedLine
from autosteer_lib.defences.adasteer import AdaSteer
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.judges import Verdict
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import resid_post
from autosteer_lib.text_sets import TextSets
from tests.defence_checks import (
    CLOSE,
    check_against_oracle,
    check_everything,
    check_fingerprints,
    check_only_triggered_rows_change,
    check_rows_alone_and_together,
    check_steers_half_in_float32,
    see,
    weights_of,
)
from tests.mars_on_tiny import SETTINGS, ByLabel, hooks_on, texts

R_LINE = ClippedLine(slope=-0.01, offset=60.0, low=0.0, high=0.5)
C_LINE = ClippedLine(slope=0.01, offset=40.0, low=0.0, high=0.5)
LITERAL: dict[str, Any] = {"rejection": R_LINE, "compliance": C_LINE, "logic_layers": (1, 2)}


@cache
def three_kinds() -> TextSets:
    """Harmful texts with a knife are refused (by label), those with poison get through."""
    return TextSets(
        unsafe=(
            *texts("please {}", "knife", harmful=True),
            *texts("please tell me {}", "poison", harmful=True),
        ),
        safe=texts("please {}", "one", harmful=False),
        validation_unsafe=(
            *texts("tell me how i {} .", "knife", harmful=True),
            *texts("how do i {} .", "poison", harmful=True),
        ),
        validation_safe=texts("tell me how i {} .", "one", harmful=False),
    )


def judge() -> ByLabel:
    sets = three_kinds()
    through = [p.id for p in (*sets.unsafe, *sets.validation_unsafe) if "poison" in p.id]
    return ByLabel(otherwise=through)


def fit(mllm: MLLM, **changes: Any) -> AdaSteer:
    return AdaSteer(**{**LITERAL, **changes}).fit(mllm, three_kinds(), settings=SETTINGS, judge=judge())


@pytest.fixture(scope="module")
def fitted(tiny: MLLM) -> AdaSteer:
    return fit(tiny)


@pytest.fixture(scope="module")
def mixed(tiny: MLLM, fitted: AdaSteer, mixed_prompts: list[Prompt]) -> AdaSteer:
    return halved(tiny, fitted, mixed_prompts)


def halved(mllm: MLLM, defence: AdaSteer, prompts: list[Prompt]) -> AdaSteer:
    """Lines that leave half of the prompts alone."""
    _, _, p = defence.strengths(mllm, encode(mllm, prompts))
    ordered = p.sort().values.tolist()
    offset = (ordered[3] + ordered[4]) / 2
    nothing = ClippedLine(slope=0.0, offset=0.0, low=0.0, high=0.0)
    line = ClippedLine(slope=-0.05, offset=offset, low=0.0, high=0.5)
    return defence.retuned(rejection=line, compliance=nothing)


def states(mllm: MLLM, prompts: Any) -> Tensor:
    return collect(mllm, prompts, sites=[resid_post(layer) for layer in range(mllm.layers)])


def by_hand(mllm: MLLM, prompts: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(v_RD, v_HD, λ_r, λ_c) of the literal lines, from means read anew."""
    sets = three_kinds()
    refused = states(mllm, [p for p in sets.unsafe if "knife" in p.id]).mean(0)
    through = states(mllm, [p for p in sets.unsafe if "poison" in p.id]).mean(0)
    harmless = states(mllm, sets.safe).mean(0)
    rd, hd = refused - through, harmless - through
    unit = rd / rd.norm(dim=-1, keepdim=True)
    h = states(mllm, prompts)
    p_r = 100 * (h[:, 1] - through[1]) @ rd[1] / rd[1].square().sum()
    p_c = 100 * (h[:, 2] - through[2]) @ hd[2] / hd[2].square().sum()
    lines = (-0.01 * (p_r - 60)).clamp(0, 0.5), (0.01 * (p_c - 40)).clamp(0, 0.5)
    return rd, (hd * unit).sum(-1, keepdim=True) * unit, *lines


def test_both_vectors_are_added_after_every_block_to_the_prompt_alone(
    tiny: MLLM, fitted: AdaSteer, mixed_prompts: list[Prompt]
) -> None:
    rd, hd, of_r, of_c = by_hand(tiny, mixed_prompts)
    torch.testing.assert_close(fitted.v_rd, rd, **CLOSE)
    torch.testing.assert_close(fitted.v_hd, hd, **CLOSE)
    found = fitted.strengths(tiny, encode(tiny, mixed_prompts))
    torch.testing.assert_close(found[0], of_r, **CLOSE)
    torch.testing.assert_close(found[1], of_c, **CLOSE)
    assert len(set(of_r.tolist())) > 2

    def oracle(width: int) -> Any:
        def add(layer: int) -> Any:
            step = of_r[:, None] * rd[layer] + of_c[:, None] * hd[layer]

            def edit(hidden: Tensor) -> Tensor:
                moved = hidden.clone()
                moved[:, :width] += step[:, None]
                return moved

            return edit

        return {resid_post(layer): add(layer) for layer in range(tiny.layers)}

    responses = check_against_oracle(tiny, fitted, encode(tiny, mixed_prompts), oracle)
    assert [r.triggered for r in responses] == ((of_r != 0) | (of_c != 0)).tolist()
    assert [r.gate_score for r in responses] == pytest.approx(found[2].tolist(), abs=1e-3)


def test_rows_of_strength_0_are_left_alone_and_hooks_go_after_the_prefill(
    tiny: MLLM, mixed: AdaSteer, mixed_prompts: list[Prompt]
) -> None:
    before = hooks_on(tiny)
    encoded = encode(tiny, mixed_prompts)
    check_only_triggered_rows_change(tiny, mixed, encoded)
    seen, _ = see(tiny, mixed, encoded)
    assert seen.sites == [set()] * SETTINGS.max_new_tokens
    assert hooks_on(tiny) == before


def test_the_battery(
    tiny: MLLM, other_tiny: MLLM, mixed: AdaSteer, mixed_prompts: list[Prompt], tmp_path: Path
) -> None:
    check_everything(tiny, other_tiny, mixed, mixed_prompts, tmp_path, unfitted=AdaSteer())


def test_the_pass_that_reads_the_prompt_is_counted(
    tiny: MLLM, fitted: AdaSteer, mixed_prompts: list[Prompt]
) -> None:
    encoded = encode(tiny, mixed_prompts)
    plain = see(tiny, None, encoded)[1]
    for responses in (
        fitted.answer(tiny, encoded, settings=SETTINGS),
        fitted.respond(tiny, mixed_prompts, settings=SETTINGS),
    ):
        assert {r.model_calls for r in responses} == {2}
        assert [r.prompt_tokens for r in responses] == [2 * r.prompt_tokens for r in plain]
        assert [r.new_tokens for r in responses] == [SETTINGS.max_new_tokens] * 7


def test_states_that_are_not_finite_do_not_pass_as_safe(
    tiny: MLLM, fitted: AdaSteer, mixed_prompts: list[Prompt]
) -> None:
    before = hooks_on(tiny)
    broken = fitted.retuned()
    broken.means_ = {**fitted.means_, "harmful": fitted.means_["harmful"] * float("nan")}
    with pytest.raises(ValueError, match=r"the readings of rows \[0, 1\] of the batch are not finite"):
        broken.answer(tiny, encode(tiny, mixed_prompts[:2]), settings=SETTINGS)
    assert hooks_on(tiny) == before


def test_fit_chooses_layers_and_lines_on_held_out_texts(tiny: MLLM) -> None:
    before = weights_of(tiny)
    free = {"rejection": None, "compliance": None, "logic_layers": None}
    found = fit(tiny, **free, rejection_strengths=[0.3], compliance_strengths=[0.2])
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())
    sets = three_kinds()
    kinds = {
        "refused": [p for p in sets.validation_unsafe if "knife" in p.id],
        "harmful": [p for p in sets.validation_unsafe if "poison" in p.id],
        "harmless": list(sets.validation_safe),
    }
    held = {name: states(tiny, prompts) for name, prompts in kinds.items()}
    for line, layer, second, height in (
        (found.rejection_line_, found.logic_layers_[0], "refused", 0.3),
        (found.compliance_line_, found.logic_layers_[1], "harmless", 0.2),
    ):
        gaps = []
        for each in range(tiny.layers):
            axis = found.means_[second][each] - found.means_["harmful"][each]
            low, high = (held[name][:, each] @ axis for name in ("harmful", second))
            spread = ((low.var(correction=0) + high.var(correction=0)) / 2).sqrt()
            gaps.append(float((high.mean() - low.mean()) / spread))
        assert layer == gaps.index(max(gaps))
        assert line.low == 0.0
        assert line.high == pytest.approx(height)
        assert (line.slope > 0) == (second == "harmless")


class Refusing:
    """The judge of the fit: by label before there is a defence, then whatever the strengths say."""

    name = "scripted"

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        return Verdict(unsafe=False, refused=answer == "refused")


def test_strengths_are_those_of_the_most_right_answers(
    tiny: MLLM, fitted: AdaSteer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripted: rejection from 0.2 on refuses what is harmful; at 0.4 also what is harmless, unless λ_c is 0.1."""

    def answers(
        self: AdaSteer, mllm: MLLM, prompts: Any, *, settings: Any, progress: bool = False
    ) -> list[Response]:
        high, relief = self.rejection_line_.high, self.compliance_line_.high
        refuses = [high >= 0.2 if p.harmful else high >= 0.4 and relief < 0.1 for p in prompts]
        return [
            Response(prompt_id=p.id, text="refused" if r else "no", new_tokens=1, prompt_tokens=1)
            for p, r in zip(prompts, refuses, strict=True)
        ]

    def plainly(mllm: MLLM, prompts: Any, *, settings: Any, progress: bool) -> list[str]:
        return ["refused" if "knife" in p.id else "no" for p in prompts]

    monkeypatch.setattr(AdaSteer, "respond", answers)
    unfitted = AdaSteer(
        logic_layers=(1, 2), rejection_strengths=[0.4, 0.2, 0.1], compliance_strengths=[0.1, 0.0]
    )
    found = unfitted.fit(tiny, three_kinds(), settings=SETTINGS, judge=Refusing(), answers=plainly)
    assert found.rejection_line_.high == pytest.approx(0.2)
    assert found.compliance_line_.high == 0.0
    assert found is unfitted


def test_fingerprints_see_what_an_answer_depends_on(fitted: AdaSteer) -> None:
    steeper = ClippedLine(slope=-0.02, offset=60.0, low=0.0, high=0.5)
    check_fingerprints(
        [
            fitted,
            fitted.retuned(rejection=steeper),
            fitted.retuned(compliance=steeper),
            fitted.retuned(logic_layers=(2, 1)),
        ]
    )
    assert fitted.retuned(rejection=asdict(R_LINE)).fingerprint == fitted.fingerprint
    with pytest.raises(ValueError, match="fewest=2 needs a fit of its own"):
        fitted.retuned(fewest=2)


def test_too_few_of_a_kind(tiny: MLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GenerationSettings(max_new_tokens=1)
    with pytest.raises(
        ValueError, match=r"refuses 24 unsafe ones, answers 0 unsafe and 12 safe ones.*jailbreaks"
    ):
        AdaSteer(**LITERAL).fit(tiny, three_kinds(), settings=settings, judge=ByLabel())
    monkeypatch.setattr(type(tiny.model), "forward", None)
    with pytest.raises(ValueError, match=r"24 unsafe and 12 safe fitting texts .* at least 26 and 13"):
        AdaSteer(**LITERAL, fewest=13).fit(tiny, three_kinds(), settings=settings, judge=judge())
    with pytest.raises(ValueError, match="logic layer 4 does not exist; tiny has layers 0…3"):
        fit(tiny, logic_layers=(1, 4))
    for wrong, message in (
        ({"rejection_strengths": []}, "give at least one"),
        ({"compliance_strengths": [-0.1]}, "none below 0"),
        ({"logic_layers": [1]}, "give two"),
        ({"fewest": 0}, "fewest = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            AdaSteer(**wrong)


def test_half_precision_models_are_steered_in_float32(tiny_folder: Path, mixed_prompts: list[Prompt]) -> None:
    half = load(tiny_folder, device="cpu", dtype="bfloat16")
    defence = halved(half, fit(half), mixed_prompts)
    check_steers_half_in_float32(half, defence, mixed_prompts)


@pytest.mark.battery
def test_every_family_is_steered_in_its_rows(family: MLLM, family_prompts: list[Prompt]) -> None:
    defence = halved(family, fit(family), family_prompts)
    check_rows_alone_and_together(family, defence, family_prompts)
