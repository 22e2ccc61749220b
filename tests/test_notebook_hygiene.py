"""A committed notebook is whole, in order, and of no machine."""

from pathlib import Path

import nbformat
import pytest

from autosteer_lib.notebook_files import (
    check_parameters,
    find_notebooks,
    for_publication,
    notebook_parameters,
    read_notebook,
    source_hash,
)
from autosteer_lib.notebook_hygiene import main, problems
from tests.notebook_projects import notebook


def _executed():
    content = notebook(["x = 1"], checked="print(x)")
    for count, cell in enumerate((cell for cell in content.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    content.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    return content


def _faults(tmp_path: Path, content, name: str = "00_chapter.ipynb") -> list[str]:
    nbformat.write(content, tmp_path / name)
    return problems(tmp_path / name)


def _stream(name: str, text: str):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_a_clean_notebook_has_no_faults(tmp_path):
    assert _faults(tmp_path, _executed()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda book: book.cells[-1].update(execution_count=7), "cell 4 has execution count 7, expected 3"),
        (lambda book: book.cells[-1].update(execution_count=None), "execution count None"),
        (lambda book: book.cells[1].metadata.update(tags=[]), "0 cells are tagged `parameters`"),
        (lambda book: book.cells[2].update(source="x = 1\n" * 41), "cell 3 has 41 lines, at most 40"),
        (lambda book: book.cells[2].update(source="open('/home/ada/x')"), "cell 3 says a path of one machine"),
        (lambda book: book.cells[0].update(source="see /Users/ada/x"), "cell 1 says a path of one machine"),
        (lambda book: book.cells[2].update(source=r"open('C:\Users\ada')"), "a path of one machine"),
        (lambda book: book.cells[-1].outputs.append(_stream("stdout", "at /tmp/ipykernel_7/1.py")), "shows a path"),
        (lambda book: book.cells[-1].outputs.append(_stream("stdout", "2026-07-01 12:30")), "a time of day"),
        (lambda book: book.cells[-1].outputs.append(_stream("stderr", "UserWarning: x")), "stderr (UserWarning: x)"),
        (lambda book: book.cells[-1].outputs.append(nbformat.v4.new_output("error", ename="E")), "in an error (E)"),
        (lambda book: book.metadata.update(papermill={}), "papermill's own record"),
        (lambda book: book.cells[2].metadata.update(tags=["injected-parameters"]), "was injected"),
        (lambda book: book.cells[2].metadata.update(tags=["nbval-check-output"]), "prints nothing to check"),
        (lambda book: book.cells[3].metadata.update(tags=[]), "no cell tagged nbval-check-output, so nothing of it is"),
        (
            lambda book: book.cells[1].metadata.update(tags=["parameters", "reads-earlier-table"]),
            "cell 2 has a tag 'reads-earlier-table' that is none of this project's; did you mean reads-earlier-tables?",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_found(tmp_path, change, fault):
    content = _executed()
    change(content)
    found = _faults(tmp_path, content)
    assert len(found) == 1
    assert found[0].startswith("00_chapter.ipynb: ")
    assert fault in found[0]


def test_an_address_or_a_relative_path_is_no_machine_path(tmp_path):
    content = _executed()
    content.cells[0].source = "https://example.org/home/x, build/organism/tmp/x, 7/root/2, tables/var/x"
    assert _faults(tmp_path, content) == []


def test_names_and_broken_files(tmp_path, capsys):
    assert "so the driver does not find it" in _faults(tmp_path, _executed(), "chapter.ipynb")[0]
    (tmp_path / "01_broken.ipynb").write_text("{")
    assert "is not a readable notebook" in problems(tmp_path / "01_broken.ipynb")[0]
    assert main([str(tmp_path / "01_broken.ipynb")]) == 1
    nbformat.write(_executed(), tmp_path / "00_chapter.ipynb")
    assert main([str(tmp_path / "00_chapter.ipynb")]) == 0
    assert capsys.readouterr().out.endswith("1 notebooks are clean\n")


def test_publication_removes_the_machine_and_keeps_the_results(tmp_path):
    content = _executed()
    content.metadata.update(papermill={"start_time": "2026-07-01T12:30"}, widgets={"state": {}})
    content.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    injected = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["injected-parameters"]})
    content.cells.insert(2, injected)
    last = content.cells[-1]
    last.metadata.update(papermill={"duration": 1.0}, execution={"shell.execute_reply": "2026-07-01T12:30"})
    last.execution_count = 9
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "7f"}, "text/plain": "100%"}
    last.outputs += [
        _stream(
            "stderr", "answers:  50%|█████     | 1/2\ranswers: 100%|██████████| 2/2 [00:01<00:00, 1.9it/s]\n"
        ),
        nbformat.v4.new_output("display_data", data=widget),
        nbformat.v4.new_output(
            "execute_result", data={"text/plain": f"{tmp_path}/figures"}, execution_count=9
        ),
        _stream("stdout", f"wrote {tmp_path}/build/x\n"),
    ]
    clean = for_publication(content, root=tmp_path)
    assert _faults(tmp_path, clean) == []
    assert [output.get("text") for output in clean.cells[-1].outputs if "text" in output] == [
        "1\n",
        "wrote build/x\n",
    ]
    assert clean.cells[-1].outputs[1].data["text/plain"] == "figures"
    assert clean.cells[-1].outputs[1].execution_count == 3
    assert clean.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert content.cells[-1].execution_count == 9, "the argument is left as it was"


def test_a_real_warning_survives_publication(tmp_path):
    content = _executed()
    content.cells[-1].outputs.append(_stream("stderr", "UserWarning: something is wrong\n"))
    assert "stderr" in _faults(tmp_path, for_publication(content, root=tmp_path))[0]


def test_parameters_are_read_without_running_anything():
    content = notebook(
        [], parameters='profile = "organism"  # which\nseed: int = -1\nout = ""\nrates = [0.1, 0.2]'
    )
    assert notebook_parameters(content, name="x") == {
        "profile": "organism", "seed": -1, "out": "", "rates": [0.1, 0.2],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ('profile = "organism"\nseed = 0', "lacks out; it needs profile, seed, out"),
        ('profile = "organism"\nseed = 1 + len("x")\nout = ""', "parameter seed is computed"),
        ("import torch", "may only assign plain values"),
        ("a, b = 1, 2", "may only assign plain values"),
    ],
)
def test_a_parameters_cell_is_plain(parameters, message):
    with pytest.raises(ValueError, match=message):
        notebook_parameters(notebook([], parameters=parameters), name="x")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sead": 1}, r"no parameter 'sead': did you mean seed\? allowed: out, profile, seed"),
        ({"seed": "1"}, r"seed = '1' is str, but must be int \(default 0\)"),
        ({"seed": True}, "is bool, but must be int"),
    ],
)
def test_a_misspelt_or_wrongly_typed_parameter_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        check_parameters(given, {"profile": "organism", "seed": 0, "out": ""}, name="00_x")


def test_order_is_by_number_with_gaps(tmp_path):
    for name in ("09_report", "00_organism", "04_head"):
        nbformat.write(_executed(), tmp_path / f"{name}.ipynb")
    (tmp_path / "scratch.ipynb").write_text("{}")
    assert [path.stem for path in find_notebooks(tmp_path)] == ["00_organism", "04_head", "09_report"]
    nbformat.write(_executed(), tmp_path / "04_again.ipynb")
    with pytest.raises(ValueError, match="have one number"):
        find_notebooks(tmp_path)


def test_no_notebooks_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no notebooks in"):
        find_notebooks(tmp_path)


def test_source_hash_is_of_what_people_wrote(tmp_path):
    content = _executed()
    before, code = source_hash(content), source_hash(content, code_only=True)
    content.cells[-1].outputs, content.cells[-1].execution_count = [], None
    assert source_hash(content) == before
    content.cells[0].source = "# Another title"
    assert source_hash(content) != before
    assert source_hash(content, code_only=True) == code
    content.cells[-1].source = "print(x + 1)"
    assert source_hash(content, code_only=True) != code


def test_the_projects_own_notebooks_are_clean():
    folder = Path(__file__).parents[1] / "notebooks"
    assert [problem for path in sorted(folder.glob("*.ipynb")) for problem in problems(path)] == []


def test_round_trip_through_a_file(tmp_path):
    nbformat.write(_executed(), tmp_path / "00_x.ipynb")
    assert source_hash(read_notebook(tmp_path / "00_x.ipynb")) == source_hash(_executed())
