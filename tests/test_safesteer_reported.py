"""SafeSteer's reported numbers: all there, as printed, and every cell that does not add up is marked."""

import pytest

from autosteer_lib.reported import TRUST, available, reported
from autosteer_lib.study import safesteer_paper_numbers as numbers

ROWS = {"results": 5 * 3 * 6, "cost": 5 + 2, "ablation": 3 * 4 * 4, "claims": 1}


def test_all_tables_are_there_and_name_their_source() -> None:
    assert set(available(paper="safesteer")) == set(ROWS)
    for table, rows in ROWS.items():
        frame = reported(table, paper="safesteer")
        assert len(frame) == rows
        assert set(frame["trust"]) <= set(TRUST)
        assert frame["source"].str.contains("2605.11716", regex=False).all()
        assert (set(frame["table"]), set(frame["paper"])) == ({table}, {"safesteer"})


@pytest.mark.parametrize(
    ("method", "values"),
    [  # FigStep, MM-SafetyBench, VLGuard S-U, U, SS, MM-Vet
        (("LLaVA-1.5-7B", "Orig."), (42.80, 37.62, 2.69, 15.38, 15.77, 31.00)),
        (("LLaVA-1.5-7B", "ECSO"), (25.40, 26.59, 1.08, 12.04, 16.67, 27.90)),
        (("LLaVA-1.5-7B", "SafeSteer"), (23.40, 30.37, 0.90, 8.60, 13.98, 27.60)),
        (("Qwen2.5-VL-7B", "MLLM-Protector"), (14.60, 8.02, 0.54, 2.71, 24.19, 39.00)),
        (("Qwen2.5-VL-7B", "SafeSteer"), (1.80, 1.75, 0.18, 0.90, 15.41, 52.20)),
        (("Qwen3-VL-8B", "MRD"), (6.60, 2.39, 0.00, 1.13, 21.15, 53.30)),
        (("Qwen3-VL-8B", "SafeSteer"), (0.60, 0.69, 0.00, 0.23, 11.29, 56.00)),
    ],
)
def test_rows_of_table_1_are_as_printed(method: tuple[str, str], values: tuple[float, ...]) -> None:
    table = numbers.tidy("results")
    rows = table[(table["model"] == method[0]) & (table["method"] == method[1])]
    assert tuple(rows["percent"]) == values


def test_vlguard_rates_are_whole_prompts_or_have_a_note() -> None:
    """558 prompts with a safe picture, 442 with an unsafe one."""
    table = numbers.tidy("results")
    odd = []
    for name, n in (("VLGuard, S-U", 558), ("VLGuard, SS", 558), ("VLGuard, U", 442)):
        rows = table[table["set"] == name]
        assert len(rows) == 15
        for percent, note in zip(rows["percent"], rows["note"], strict=True):
            if min(abs(100 * k / n - percent) for k in range(n)) > 0.006:
                odd.append(percent)
                assert "no whole number of 442" in note
    assert odd == [12.04]


def test_an_overall_rate_of_the_ablation_is_the_mean_of_its_subsets_or_has_a_note() -> None:
    odd = []
    for model in numbers.MODELS:
        table = numbers.ablation(model=model)
        wide = table.pivot(index="variant", columns="surface", values="rate")
        mean = wide[["CB", "SD", "TYPO"]].mean(axis=1)
        for variant in wide.index:
            note = table[(table["variant"] == variant) & (table["surface"] == "all")]["note"].item()
            off = abs(mean[variant] - wide.loc[variant, "all"]) > 1.01e-4
            assert off == bool(note), (model, variant)
            if off:
                assert f"is {100 * mean[variant]:.2f}" in note
                odd.append((model, variant))
    assert odd == [
        ("LLaVA-1.5-7B", "neither"), ("LLaVA-1.5-7B", "no MSAV"), ("Qwen2.5-VL-7B", "no MSAV"),
        ("Qwen2.5-VL-7B", "no probe"), ("Qwen3-VL-8B", "no MSAV"), ("Qwen3-VL-8B", "no probe"),
    ]  # fmt: skip


def test_the_cell_that_stands_three_times_is_marked_where_its_row_does_not_add_up() -> None:
    table = numbers.tidy("ablation")
    same = table[table["percent"] == 11.39].set_index("variant")["note"]
    assert set(same.index) == {"neither", "no probe", "no MSAV"}
    assert same["neither"] == ""
    assert "implies 2.26" in same["no probe"]
    assert "implies 3.18" in same["no MSAV"]


def test_tables_1_and_3_share_a_run() -> None:
    for model in numbers.MODELS:
        plane = numbers.safety_against_cost(model=model)
        both = dict(zip(plane["method"], plane["y"], strict=True))
        ablation = numbers.ablation(model=model)
        overall = ablation[ablation["surface"] == "all"].set_index("variant")["rate"]
        assert overall["full"] == pytest.approx(both["SafeSteer"])
        assert overall["neither"] == pytest.approx(both["Orig."])


def test_the_headline_is_one_cell() -> None:
    (claim,) = reported("claims", paper="safesteer").to_dict("records")
    table = numbers.rates(model="Qwen2.5-VL-7B", methods=["Orig.", "SafeSteer"])
    before, after = table[table["surface"] == "FigStep"]["rate"]
    assert 100 * (before - after) == pytest.approx(claim["value"])
    assert "one cell" in claim["note"]


def test_numbers_take_the_figures_shapes() -> None:
    cost = numbers.cost()
    assert list(cost["method"]) == ["Orig.", "ECSO", "MLLM-Protector", "MRD", "SafeSteer"]
    assert cost["training_hours"].isna().tolist() == [True, True, False, True, False]
    assert cost["training_hours"].iloc[-1] == 0.03
    assert cost["times_plain"].iloc[-1] == pytest.approx(0.9497, abs=1e-4)
    plane = numbers.safety_against_cost(model="Qwen3-VL-8B")
    assert dict(zip(plane["method"], plane["x"], strict=True))["SafeSteer"] == pytest.approx(0.1129)
    utility = numbers.rates(model="LLaVA-1.5-7B", measure="accuracy", methods=["ECSO"])
    assert utility.to_dict("records") == [
        {"surface": "MM-Vet", "defence": "ECSO", "rate": pytest.approx(0.279)}
    ]
    with pytest.raises(ValueError, match=r"no model 'GPT' in 'results'; there are: LLaVA-1.5-7B, Qwen2"):
        numbers.rates(model="GPT")


def test_contradictions_quote_numbers_that_the_tables_hold() -> None:
    found = numbers.contradictions()
    assert list(found.columns) == ["kind", "number", "where", "printed", "disagrees"]
    assert found["number"].is_unique
    known = {f"{value:.2f}" for name in ROWS for value in reported(name, paper="safesteer")["value"]}
    quoted = found["printed"].str.findall(r"(?<!\w)\d+\.\d\d").explode().dropna()
    assert len(quoted) > 20
    assert set(quoted) <= known
