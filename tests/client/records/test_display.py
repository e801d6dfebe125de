"""Records in a notebook: tables and drawings, in which foreign texts stay plain text."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from actvec.client import Client, Document
from actvec.client.records.display import sparkline

HOSTILE = "<script>alert(1)</script>"


class Cells(HTMLParser):
    """The cells of tables, as a browser reads them."""

    def __init__(self, shown):
        super().__init__()
        self.found = []
        self.feed(shown)

    def handle_starttag(self, tag, _attributes):
        assert tag != "script"
        if tag == "td":
            self.found.append("")

    def handle_data(self, data):
        if self.found:
            self.found[-1] += data


def cells(shown):
    return Cells(shown).found


@pytest.fixture(scope="module")
def client(demo_server):
    with Client(demo_server.target) as client:
        yield client


def test_info_is_a_table(client):
    shown = cells(client.info()._repr_html_())
    assert shown[shown.index("model") + 1] == "demo"
    assert shown[shown.index("modes") + 1] == "short (128 numbers), long (512 numbers)"
    assert "max_tokens 4096" in shown[shown.index("limits") + 1]


def test_vector_shows_each_pool_and_its_stamp(client):
    vector = client.extract(
        Document(HOSTILE, "A text."), pools=["mean", "last"], layers=[1, 2], separate=True
    )
    shown = vector._repr_html_()
    assert HOSTILE not in shown
    assert [cell for cell in cells(shown) if cell.startswith("layer ")] == list(
        vector.stamp.row_names
    )
    assert shown.count("<svg") == 4
    assert f"norm {np.linalg.norm(vector.matrix[0]):.2f}" in cells(shown)
    assert vector.stamp.tokenizer_sha256 in cells(shown)


def test_arrays_and_means_show_their_size(client):
    documents = [Document(HOSTILE, "A text."), Document("blank", " ")]
    shown = client.vectors(documents, mode="short")._repr_html_()
    assert "1 documents, 1 failures: 1 x 1 x 1 x 128 numbers" in shown
    assert HOSTILE not in shown
    mean = client.corpus_mean(["A text.", "Another."], job="display")
    assert str(mean) in mean._repr_html_()
    assert mean.sha256 in cells(mean._repr_html_())


@pytest.mark.parametrize("size", [1, 5, 20_480])
def test_sparkline_reaches_every_extreme(size):
    values = np.random.default_rng(0).normal(size=size).astype(np.float32)
    drawn = [float(one) for one in re.findall(r"[MV](?:[\d.]+ )?([\d.]+)", sparkline(values))]
    assert len(drawn) == 2 * min(size, 240)
    assert min(drawn) == pytest.approx(0, abs=0.1)
    assert max(drawn) == pytest.approx(24, abs=0.7)
    assert "<path" in sparkline(np.zeros(3, np.float32))
