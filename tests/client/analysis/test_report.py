"""`actvec report`: what is in the page, and that a real browser shows it."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from actvec.client import Client, Document, InvalidArgument
from actvec.client.analysis.csv_tables import write_tables
from actvec.client.analysis.paired import PairedVectors, paired_vectors
from actvec.client.analysis.report import (
    Material,
    gather,
    gather_tables,
    write_pictures,
    write_report,
)
from actvec.client.analysis.report.content import page_content
from actvec.client.cli import main
from actvec.client.findings import label_agreement
from actvec.client.samples import sample_corpus
from actvec.pooling import pools
from actvec.server.model.demo import WIDTH
from tests.browser import needs_browser

HOSTILE = "<script>alert(1)</script><b>&amp;"
ALL = [
    *("map", "cosines_raw", "cosines_centered", "pairs_raw", "pairs_centered"),
    *("norms", "outliers", "curves", "counts"),
]


@pytest.fixture(scope="module")
def samples(demo_server):
    """Vectors, documents and mean of short sample texts, the first with a hostile id and text."""
    first, *others = (one for one in sample_corpus() if one.id.endswith("short"))
    documents = [Document(HOSTILE, f"{HOSTILE} {first.text}"), *others]
    with Client(demo_server.target) as client:
        mean = client.corpus_mean(documents, job="report")
        pairs = paired_vectors(client, documents, mode="long", center=mean.id)
        return pairs, documents, client.download_mean(mean.id)


@pytest.fixture(scope="module")
def page(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    write_report(path, gather(*samples))
    return path


@pytest.fixture(scope="module")
def reviews():
    """60 documents of two labels, 6 layers and 3 pools, with ids and labels that mislead."""
    random = np.random.default_rng(0)
    raw = random.normal(size=(60, 6, 3, 16)).astype(np.float32) + 9
    labels = [HOSTILE if number % 2 else "1e3" for number in range(60)]
    return Material(
        ids=tuple(f"2024-01-{number % 30 + 1:02}" for number in range(60)),
        kinds={"raw": raw, "centered": raw - 9},
        pools=("mean", "last", f"span:{HOSTILE}"),
        layers=(1, 2, 3, 4, 5, 6),
        texts=tuple(f"{HOSTILE} Review {number}." for number in range(60)),
        columns={HOSTILE: labels},
    )


@pytest.fixture(scope="module")
def reviews_page(reviews, tmp_path_factory):
    path = tmp_path_factory.mktemp("reviews") / "report.html"
    write_report(path, reviews)
    return path


def content_of(path):
    """What a page was given to show."""
    (found,) = re.findall(r'<script type="application/json".*?>(.*?)</script>', path.read_text())
    return json.loads(found)


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


def test_first_screen_names_model_layers_mean_and_date(page):
    facts = content_of(page)["facts"]
    assert facts["Model"] == "demo"
    assert facts["Layers"] == "4, 5, 6 averaged (resid_post)"
    assert facts["Centered by"].startswith("report: 10 documents, 1")
    assert re.fullmatch(r"holds, worst error \de-\d\d", facts["raw - centered = pooled mean"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["Written"])


def test_identity_that_fails_is_reported(samples):
    pairs, documents, mean = samples
    wrong = [replace(one, values=2 * one.values) for one in pairs.centered]
    found = gather(replace(pairs, centered=tuple(wrong)), documents, mean)
    assert re.match(r"does NOT hold, worst error \d", found.identity)


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


def test_tables_alone_make_a_report(demo_server, tmp_path):
    with Client(demo_server.target) as client:
        pairs = paired_vectors(client, sample_corpus()[:3], mode="long")
    write_tables(tmp_path, pairs)
    for mode in ("short", "long"):
        names = tuple(pool.name for pool in pools(mode))
        material = gather_tables(tmp_path / f"vectors_{mode}_mode_raw.csv")
        assert material.pools == names
        assert material.kinds["raw"].shape == (3, 1, len(names), WIDTH)
        write_report(tmp_path / "report.html", material)
        assert "There are no centered vectors" in (tmp_path / "report.html").read_text()
    with pytest.raises(InvalidArgument, match="differ in documents, their order, or dimensions"):
        gather_tables(
            tmp_path / "vectors_short_mode_raw.csv", tmp_path / "vectors_long_mode_raw.csv"
        )


def test_report_needs_no_server(demo_server, tmp_path, capfd):
    corpus = tmp_path / "corpus.jsonl"
    lines = [{"text": one.text[:200], **one.columns} for one in sample_corpus()]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder, whitening, out = (tmp_path / name for name in ("vectors", "w.safetensors", "r.html"))

    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main(["--target", demo_server.target, *map(str, arguments)])
        assert ending.value.code == 0, capfd.readouterr().err

    run("stream", corpus, "--mode", "long", "--out", folder, "--keep", "topic,length,text")
    run("whiten", folder, "--out", whitening)
    run("report", "--vectors", folder, "--out", out, "--pools", "last,exp_933")
    assert content_of(out)["pools"] == ["last", "exp_933"]
    run("report", "--vectors", folder, "--whiten", whitening, "--out", out, "--mode", "short")
    shown = content_of(out)
    assert list(shown["kinds"]) == ["raw", "centered", "whitened"]
    assert shown["pools"] == ["exp_933"]
    assert list(shown["columns"]) == ["topic", "length", "tokens"]
    assert shown["texts"][0].startswith("On a mild day")
    assert shown["facts"]["Centered by"] == "the average of these documents"
    assert shown["labels"]["length"]["auc"]
    assert not shown["labels"]["topic"]["auc"]


def table_of(path, rows=8):
    """A table of two documents."""
    random = np.random.default_rng(0)
    lines = [",".join(f"{value:.8f}" for value in random.normal(size=2)) for _ in range(rows)]
    path.write_text("\n".join(["a,b", *lines]) + "\n")
    return path


@pytest.mark.parametrize(("mode", "count"), [("short", 1), ("long", 4)])
def test_given_mode_is_that_of_tables(tmp_path, mode, count):
    for name in ("my_shortlist.csv", "my_longest.csv"):
        material = gather_tables(table_of(tmp_path / name), mode=mode)
        names = tuple(pool.name for pool in pools(mode))
        assert (material.pools, material.kinds["raw"].shape) == (names, (2, 1, count, 8 // count))


def test_table_names_tell_the_mode(tmp_path):
    for mode in ("short", "long"):
        for kind in ("raw", "centered"):
            table = table_of(tmp_path / f"vectors_{mode}_mode_{kind}.csv")
            assert len(gather_tables(table).pools) == len(pools(mode))
    for name in ("my_shortlist.csv", "vectors_short_mode_raw_2.csv", "table.csv"):
        with pytest.raises(InvalidArgument, match=rf"mode of .*{name} is unknown.*short or long"):
            gather_tables(table_of(tmp_path / name))


def test_program_passes_the_mode_on(tmp_path, capfd):
    tables = [table_of(tmp_path / "my_shortlist.csv"), table_of(tmp_path / "my_centered.csv")]
    out = tmp_path / "report.html"

    def run(*options):
        with pytest.raises(SystemExit) as ending:
            main(["report", "--csv", *map(str, tables), "--out", str(out), *options])
        return ending.value.code, *capfd.readouterr()

    code, output, errors = run()
    assert (code, output, out.exists()) == (2, "", False)
    assert "my_shortlist.csv is unknown" in errors
    assert run("--mode", "long")[0] == 0
    assert "2 documents, 4 x" in out.read_text()


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


def test_report_shows_the_text_of_its_first_vector(demo_server, tmp_path):
    """Of two documents of one id the first fails."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": "a", "text": text}) + "\n" for text in (" ", "The second text."))
    )
    out = tmp_path / "report.html"
    with pytest.raises(SystemExit):
        main(["--target", demo_server.target, "report", str(corpus), "--out", str(out)])
    shown = content_of(out)
    assert shown["texts"] == ["The second text."]
    assert [word for word, _ in shown["shaded"]["words"]] == ["The", "second", "text."]


def numbers(rounded):
    """The numbers of an array in a page."""
    places = np.frombuffer(base64.b64decode(rounded["data"]), "<u2")
    return np.where(places == 65535, np.nan, rounded["low"] + rounded["step"] * places)


def test_heatmap_shows_some_of_many():
    vectors = np.random.default_rng(0).normal(size=(600, 1, 1, 8)).astype(np.float32)
    found = page_content(Material(tuple(f"d{number}" for number in range(600)), {"raw": vectors}))
    assert found["shown"] == list(range(0, 600, 3))
    (row,) = found["kinds"]["raw"]
    assert len(numbers(row["cosines"])) == 200 * 199 / 2
    assert sum(row["pairs"]["bars"]) == row["pairs"]["count"] == 600 * 599 / 2


def test_nearest_neighbors_are_those_of_the_cosines(reviews):
    found = page_content(reviews)
    at = 4 * 3 + 1
    rows = reviews.kinds["raw"][:, 4, 1].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows @ rows.T
    np.fill_diagonal(alike, -2)
    record = found["kinds"]["raw"][at]
    near = numbers(record["nearest"]).reshape(60, 5).astype(int)
    assert np.array_equal(near[:, 0], alike.argmax(axis=1))
    assert np.allclose(
        numbers(record["nearness"]).reshape(60, 5)[:, 0], alike.max(axis=1), atol=1e-5
    )


def test_agreement_of_labels_is_that_of_neighbors(reviews):
    labels = reviews.columns[HOSTILE]
    shown = page_content(reviews)["labels"][HOSTILE]
    for kind, vectors in reviews.kinds.items():
        expected = label_agreement(vectors[:, 4, 1], labels)
        shares = np.frombuffer(base64.b64decode(shown["agreement"][kind]), "<f4")
        assert shares[4 * 3 + 1] == pytest.approx(expected.share)
        assert shown["chance"] == pytest.approx(expected.chance)


def test_zero_vectors_agree_with_no_neighbor():
    vectors, labels = np.zeros((4, 1, 1, 8), np.float32), ["x", "x", "x", "y"]
    material = Material(("a", "b", "c", "d"), {"raw": vectors}, columns={"label": labels})
    shown = page_content(material)["labels"]["label"]["agreement"]["raw"]
    assert np.frombuffer(base64.b64decode(shown), "<f4") == [0.0]
    assert label_agreement(vectors[:, 0, 0], labels).share == 0


def test_ids_stay_as_many_as_documents():
    ids = ("a", "a (document 3)", "a")
    found = page_content(Material(ids, {"raw": np.ones((3, 1, 1, 8), np.float32)}))["ids"]
    assert (found[:2], len(set(found))) == (["a", "a (document 3)"], 3)


def test_kept_column_replaces_a_fact():
    """As in the tables of `StoredVectors`."""
    vectors, kept = np.ones((2, 1, 1, 8), np.float32), {"tokens": ["few", "many"]}
    material = Material(("a", "b"), {"raw": vectors}, columns=kept, tokens=(3, 5))
    assert page_content(material)["columns"] == kept


def test_zero_and_equal_vectors_are_shown():
    raw = np.ones((3, 1, 1, 8), np.float32)
    raw[0] = 0
    found = page_content(Material(("a", "b", "a"), {"raw": raw, "centered": raw - 1}))
    assert found["ids"] == ["a", "b", "a (document 3)"]
    assert found["kinds"]["centered"][0]["pairs"]["count"] == 0
    json.dumps(found, allow_nan=False)


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


def test_nothing_is_no_report():
    with pytest.raises(InvalidArgument, match="nothing to report"):
        gather(PairedVectors((), (), ()))


def test_program_names_files_and_omissions(demo_server, tmp_path, capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main(["--target", demo_server.target, "report", *map(str, arguments)])
        return ending.value.code, *capfd.readouterr()

    out = tmp_path / "report.html"
    code, output, _ = run("--text", "The tide comes back twice a day.", "--out", out)
    assert (code, output) == (0, f"{out}: 1 documents\n")
    assert "A single document has no cosines" in out.read_text()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "good.txt").write_text("A good text.")
    (tmp_path / "texts" / "blank.txt").write_text(" ")
    code, _, errors = run(tmp_path / "texts", "--out", out, "--mode", "short")
    assert code == 1
    assert "'blank' is not in the report" in errors
    assert run("--out", out)[0] == 2
    assert run("--text", "a", "--samples")[0] == 2
