"""Optional packages, imported on use."""

import pytest

from actvec.client.errors import MissingExtra
from actvec.client.extras import import_extra


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "is not installed"),
        ("import no_such_dependency", "cannot be imported (No module named 'no_such_dependency')"),
        ("raise ImportError('built for numpy 1')", "cannot be imported (built for numpy 1)"),
    ],
    ids=["missing", "without a dependency", "broken"],
)
@pytest.mark.parametrize("module", ["actvec_test_extra", "actvec_test_extra.part"])
def test_what_keeps_a_package_from_use_is_named(tmp_path, monkeypatch, module, source, problem):
    monkeypatch.syspath_prepend(tmp_path)
    if source is not None:
        (tmp_path / "actvec_test_extra").mkdir()
        (tmp_path / "actvec_test_extra" / "__init__.py").write_text(source)
    with pytest.raises(MissingExtra) as raised:
        import_extra(module, "report")
    assert str(raised.value) == (
        f"this needs actvec_test_extra, which {problem}: pip install 'actvec[report]'"
    )


def test_package_without_the_module_is_not_called_missing(tmp_path, monkeypatch):
    """An old version, for example."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "actvec_test_old").mkdir()
    (tmp_path / "actvec_test_old" / "__init__.py").touch()
    told = r"actvec_test_old, which cannot be imported \(No module named 'actvec_test_old.part'\)"
    with pytest.raises(MissingExtra, match=told):
        import_extra("actvec_test_old.part", "report")
