"""The notebooks run as they are shown; their cells check what they show."""

import importlib.util
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
NOTEBOOKS = ("steering_vector", "probe")


@pytest.fixture(scope="module")
def planted_server(start_server, tmp_path_factory):
    """A server of the notebooks' model."""
    spec = importlib.util.spec_from_file_location("planted_model", EXAMPLES / "planted_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("planted") / "planted-model"
    module.plant(folder)
    return start_server(f"--model={folder}", "--max-layer=last")


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, planted_server, tmp_path, monkeypatch):
    monkeypatch.setenv("ACTVEC_TARGET", planted_server.target)
    shutil.copy(EXAMPLES / "planted_model.py", tmp_path)
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    checks = [cell.source for cell in notebook.cells if "assert " in cell.source]
    assert len(checks) >= 4
    NotebookClient(
        notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_kept_without_outputs(name):
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}
