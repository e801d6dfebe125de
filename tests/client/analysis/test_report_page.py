"""A report's page: it loads nothing, and a real browser shows every figure."""

import re

import numpy as np
import pytest

from actvec.client.analysis.report import Material, write_pictures, write_report
from tests.browser import needs_browser
from tests.client.analysis.conftest import HOSTILE, content_of

ALL = [
    *("map", "cosines_raw", "cosines_centered", "pairs_raw", "pairs_centered"),
    *("norms", "outliers", "curves", "counts"),
]


def test_page_runs_no_text_and_loads_nothing(page):
    content = page.read_text()
    assert HOSTILE not in content
    assert r"\u003cscript>alert(1)\u003c/script>" in content
    outside = re.sub(r"<script.*?</script>", "", content, flags=re.S)
    assert not re.search(r"(src|href)\s*=|@import|url\(", outside)
    assert "default-src 'none'" in outside
    shown = content_of(page)
    assert shown["pools"][2] == "exp_933"
    assert "tokenizer_sha256" in shown["stamp"]


@pytest.mark.parametrize("layers", [1, 32])
def test_page_of_twenty_documents_is_small(tmp_path, layers):
    raw = np.random.default_rng(0).normal(size=(20, layers, 4, 8)).astype(np.float32)
    texts = ("A text of some length. " * 50,) * 20
    ids, pools = tuple(map(str, range(20))), tuple("abcd")
    path = tmp_path / "report.html"
    write_report(
        path, Material(ids, {"raw": raw, "centered": raw - 1}, pools, tuple(range(layers)), texts)
    )
    assert path.stat().st_size < 2e6


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (420, True)])
def test_browser_draws_every_figure(browser, page, width, dark):
    seen = browser.at(
        page,
        """ready.then(() => ({
          drawn: [...document.querySelectorAll('.js-plotly-plot')]
            .filter(one => one.querySelector(
              '.barlayer path, .scatterlayer path, .heatmaplayer image'))
            .map(one => one.id),
          ground: getComputedStyle(document.body).backgroundColor,
          ink: document.getElementById('norms').layout.font.color,
          wide: document.documentElement.scrollWidth,
          scripts: document.scripts.length,
          heading: document.querySelector('#neighbors option').textContent,
        }))""",
        width=width,
        dark=dark,
    )
    assert seen.complaints == []
    assert seen.value["drawn"] == ALL
    assert seen.value["wide"] <= width
    assert seen.value["scripts"] == 3
    assert seen.value["heading"] == HOSTILE
    colors = ("rgb(21, 23, 27)", "#e8e8ea") if dark else ("rgb(255, 255, 255)", "#1b1b1b")
    assert (seen.value["ground"], seen.value["ink"]) == colors


@needs_browser
def test_switches_change_every_figure_of_a_layer(browser, reviews_page):
    seen = browser.at(
        reviews_page,
        """ready.then(async () => {
          const press = (choice, name) => [...document.querySelectorAll(
            `[data-choice=${choice}] button`)].find(one => one.textContent === name).click();
          const state = () => [document.getElementById('map').data[0].x[0],
            document.getElementById('cosines_raw').data[0].z[0][1],
            document.getElementById('outliers').data[0].y[0],
            document.querySelector('#neighbors ol.raw button').textContent];
          const states = [state()];
          for (const [choice, name] of [['layer', 'layer 2'], ['pool', 'last'], ['kind', 'raw'],
                                        ['order', 'corpus order'], ['color', 'none']]) {
            press(choice, name);
            states.push(state());
          }
          return {
            states,
            norms: document.getElementById('norms').data[0].x,
            order: document.getElementById('cosines_raw').data[0].x.slice(0, 3),
            pressed: [...document.querySelectorAll('[aria-pressed=true]')]
              .map(one => one.textContent),
          };
        })""",
    )
    before, layer, pool, kind, order, _ = seen.value["states"]
    assert all(a != b for a, b in zip(before, layer, strict=True))
    assert all(a != b for a, b in zip(layer, pool, strict=True))
    assert pool[0] != kind[0]
    assert pool[1:] == kind[1:]
    assert kind[1] != order[1]
    assert seen.value["norms"] == list("123456")
    assert seen.value["order"] == ["0", "1", "2"]
    assert seen.value["pressed"] == ["raw", "layer 2", "last", "none", "corpus order"]
    assert seen.complaints == []


@needs_browser
def test_ids_like_dates_stay_names_and_distinct(browser, reviews_page):
    seen = browser.at(
        reviews_page,
        """ready.then(() => ({
          types: ['cosines_raw', 'cosines_centered', 'norms', 'outliers'].flatMap(name => {
            const { xaxis, yaxis } = document.getElementById(name)._fullLayout;
            return name.startsWith('cosines') ? [xaxis.type, yaxis.type] : [xaxis.type];
          }),
          cells: document.getElementById('cosines_raw').data[0].z.map(row => row.length),
          names: new Set(document.getElementById('cosines_raw').layout.xaxis.ticktext).size,
          points: document.getElementById('map').data.map(one => one.x.length),
          legend: [...document.querySelectorAll('#map .legendtext')].map(one => one.textContent),
        }))""",
    )
    assert set(seen.value["types"]) == {"category"}
    assert seen.value["cells"] == [60] * 60
    assert seen.value["names"] == 60
    assert seen.value["points"][:2] == [30, 30]
    assert seen.value["legend"] == [HOSTILE[:29] + "…", "1e3"]


@needs_browser
def test_hovering_shows_and_clicking_chooses(browser, reviews_page):
    seen = browser.at(
        reviews_page,
        """ready.then(async () => {
          const map = document.getElementById('map');
          Plotly.Fx.hover(map, [{ curveNumber: 0, pointNumber: 2 }]);
          await new Promise(requestAnimationFrame);
          const lines = [...map.querySelectorAll('.hovertext tspan.line')]
            .map(one => one.textContent);
          const bold = [...map.querySelectorAll('.hovertext tspan')]
            .filter(one => one.style.fontWeight === 'bold').map(one => one.textContent);
          map.emit('plotly_click', { points: [{ customdata: 5 }] });
          return { lines, bold, chosen: document.querySelector('#neighbors blockquote').textContent,
            agreement: document.getElementById('agreement').textContent };
        })""",
    )
    assert seen.value["bold"] == ["2024-01-06"]
    assert f"{HOSTILE}: {HOSTILE}"[:40] in seen.value["lines"][1]
    assert "Review 5." in " ".join(seen.value["lines"])
    assert seen.value["chosen"] == f"{HOSTILE} Review 5."
    assert re.search(r"raw \d+%, centered \d+%; by chance 49%", seen.value["agreement"])
    assert seen.complaints == []


@needs_browser
def test_labels_have_a_strip_by_layer_that_chooses(browser, tmp_path):
    """A direction is planted in the last layer and pool."""
    random = np.random.default_rng(0)
    raw = random.normal(size=(40, 3, 2, 16)).astype(np.float32)
    labels = ["warm", "curt"] * 20
    raw[::2, 2, 1, 0] += 6
    columns = {"number": list(range(40)), "label": labels}
    path = tmp_path / "report.html"
    ids = tuple(map(str, range(40)))
    write_report(path, Material(ids, {"raw": raw}, ("mean", "last"), (4, 8, 12), columns=columns))
    seen = browser.at(
        path,
        """ready.then(async () => {
          const hidden = document.getElementById('auc').closest('.panels').hidden;
          await choose('color', 'label');
          const { data: [{ z, x, y }] } = document.getElementById('auc');
          const cell = { points: [{ pointNumber: [1, 2] }] };
          document.getElementById('auc').emit('plotly_click', cell);
          const agreement = document.getElementById('agreement').textContent;
          return { z, x, y, agreement, row: rowName(), hidden,
            shown: document.getElementById('auc').clientWidth };
        })""",
    )
    assert (seen.value["x"], seen.value["y"]) == (["4", "8", "12"], ["mean", "last"])
    assert np.argmax(seen.value["z"]) == 5
    assert seen.value["z"][1][2] > 0.97
    assert seen.value["row"] == "layer 12, last"
    assert seen.value["agreement"].startswith("Nearest neighbor with the same label: raw 9")
    assert seen.value["hidden"]
    assert seen.value["shown"] > 400
    assert seen.complaints == []


@needs_browser
@pytest.mark.parametrize("count", [1, 2, 200])
def test_one_document_and_many_make_a_report(browser, tmp_path, count):
    raw = np.random.default_rng(0).normal(size=(count, 1, 1, 8)).astype(np.float32)
    # Alike in all but their ends, which the figures cut.
    ids = tuple(f"a document with quite a long name, number {number}" for number in range(count))
    path = tmp_path / "report.html"
    write_report(path, Material(ids, {"raw": raw}))
    seen = browser.at(
        path,
        """ready.then(() => ({
          drawn: [...document.querySelectorAll('.js-plotly-plot')].map(one => one.id),
          rows: document.getElementById('cosines_raw')?.data[0].y.length,
          ticks: document.getElementById('cosines_raw')?.layout.yaxis.showticklabels,
        }))""",
    )
    assert seen.complaints == []
    pairs = ["map", "cosines_raw", "pairs_raw"] if count > 1 else []
    assert seen.value["drawn"] == [*pairs, "norms", "outliers"]
    if count > 1:
        assert seen.value["rows"] == count
        assert seen.value["ticks"] == (count <= 40)


@needs_browser
def test_long_ids_keep_their_ends(browser, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(9, 1, 1, 8)).astype(np.float32)
    ids = tuple(f"{'corpora/of/one/place/' * 9}{number}.txt" for number in range(9))
    path = tmp_path / "report.html"
    write_report(path, Material(ids, {"raw": vectors}))
    seen = browser.at(
        path,
        """ready.then(() => [
          [...document.querySelectorAll('#neighbors option')].map(one => one.textContent),
          document.getElementById('map').data[0].text,
          document.getElementById('cosines_raw').layout.xaxis.ticktext,
          document.getElementById('map').data[0].hovertext.map(one => one.split('<br>')[0]),
          [0, ...document.querySelectorAll('#neighbors li span:first-child')]
            .map(one => one && one.textContent),
        ])""",
    )
    *all_documents, nearest = seen.value
    assert [len(set(names)) for names in all_documents] == [9] * 4
    assert len(set(nearest[1:])) == 5
    assert all(name.endswith(".txt") for name in nearest[1:])


@needs_browser
def test_zero_vector_has_no_neighbors(browser, tmp_path):
    raw = np.ones((3, 1, 1, 8), np.float32)
    path = tmp_path / "report.html"
    write_report(path, Material(("a", "b", "c"), {"raw": raw, "centered": raw - 1}))
    seen = browser.at(
        path,
        """ready.then(() => ({
          raw: document.querySelectorAll('#neighbors ol.raw li').length,
          centered: document.querySelectorAll('#neighbors ol.centered li').length,
          said: document.querySelector('.neighbors p').textContent,
          colors: document.getElementById('cosines_raw').data[0].zmin,
        }))""",
    )
    assert seen.complaints == []
    said = "none: a vector of zeros has no cosine"
    assert seen.value == {"raw": 2, "centered": 0, "said": said, "colors": 0}


@needs_browser
def test_the_figures_are_pictures_too(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(1, 1, 1, 8)).astype(np.float32)
    pictures = write_pictures(tmp_path, Material(("one",), {"raw": vectors}, ("exp_933",)))
    assert [picture.name for picture in pictures] == ["norms.png", "outliers.png"]
    for picture in pictures:
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        # Width and height, of the header: 1000 x 600 at a scale of 2.
        assert (content[16:20], content[20:24]) == (b"\0\0\x07\xd0", b"\0\0\x04\xb0")
