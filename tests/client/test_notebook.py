"""The notebook runs as shown, and is stored without output."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "inspect_corpus.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_notebook_runs_and_shows_the_corpus(notebook, tmp_path):
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [
        output.get("text") or output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    tables = [text for text in shown if "duplicates  " in text]
    assert len(tables) == 2
    assert re.search(r"duplicates +1 ", tables[0])
    assert any("no `text`; there are: " in text for text in shown)
    assert any(re.match(r"Counts\(unreadable=\d+, empty=1", text) for text in shown)
    assert (tmp_path / "sample.jsonl.gz").exists()
