"""`actvec report`: what is in the page, and that a real browser draws it."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from actvec.client import Client, Document, InvalidArgument
from actvec.client.cli import main
from actvec.client.paired import PairedVectors, paired_vectors
from actvec.client.report import (
    gather,
    gather_tables,
    make_figures,
    write_pictures,
    write_report,
)
from actvec.client.report.cosines import cluster_order
from actvec.client.report.gather import Material
from actvec.client.samples import sample_corpus
from actvec.client.vector_tables import write_tables
from actvec.server.demo import WIDTH

HOSTILE = "<script>alert(1)</script>"
ALL = [
    *("norms", "alignment", "pairs", "cosines_raw", "cosines_centred"),
    *("outliers", "curves", "counts"),
]

# Appended to a page: works its switches and writes down what it finds.
PROBE = """<script>window.addEventListener('load', () => setTimeout(() => {
  const drawing = document.getElementById('cosines_centred');
  const press = name => [...drawing.querySelectorAll('.updatemenu-button')]
    .find(button => button.textContent.includes(name))
    .dispatchEvent(new MouseEvent('click', {bubbles: true}));
  const first = drawing.layout.yaxis.categoryarray[0];
  press('own order');
  press('last');
  setTimeout(() => {
    const found = {
      drawn: [...document.querySelectorAll('.js-plotly-plot')]
        .filter(one => one.querySelector('.barlayer path, .scatterlayer path, .heatmaplayer image'))
        .map(one => one.id),
      first: first,
      own: drawing.layout.yaxis.categoryarray[0],
      visible: drawing.data.map(trace => trace.visible),
    };
    document.body.innerHTML = '<pre id="found">' + JSON.stringify(found) + '</pre>';
  }, 500);
}, 1500));</script>"""


@pytest.fixture(scope="module")
def material(demo_server):
    """The sample corpus, the first document with a hostile id and text."""
    first, *others = sample_corpus()
    documents = [Document(HOSTILE, f"{HOSTILE} {first.text}"), *others]
    with Client(demo_server.target) as client:
        mean = client.corpus_mean(documents, job="report")
        pairs = paired_vectors(client, documents, mode="long", center=mean.id)
        return gather(pairs, documents[0], client.download_mean(mean.id))


@pytest.fixture(scope="module")
def page(material, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    write_report(path, material)
    return path


def test_there_is_a_figure_for_all_that_is_known(material):
    assert [figure.name for figure in make_figures(material)] == ALL


def test_the_page_holds_no_text_that_runs_and_loads_nothing(page):
    content = page.read_text()
    assert HOSTILE not in content
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    outside = re.sub(r"<script.*?</script>", "", content, flags=re.S)
    assert not re.search(r"(src|href)\s*=|@import|url\(", outside)
    assert "exp_933" in outside
    assert "tokenizer_sha256" in outside


def test_a_browser_draws_every_figure_and_the_switches_work(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium, which is not installed")
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    run = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--enable-logging=stderr", "--window-size=1280,4000"),
            *("--virtual-time-budget=15000", f"--user-data-dir={tmp_path}/profile"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"file://{probed}"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert "CONSOLE" not in run.stderr
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', run.stdout)
    found = json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["drawn"] == ALL
    assert found["visible"] == [True, False, False, False]
    assert "alert(1)" in found["own"]
    assert found["first"] != found["own"]


def test_tables_alone_make_a_report(demo_server, tmp_path):
    with Client(demo_server.target) as client:
        pairs = paired_vectors(client, sample_corpus()[:3], mode="long")
    write_tables(tmp_path, pairs)
    for mode, count in (("short", 1), ("long", 4)):
        material = gather_tables(tmp_path / f"vectors_{mode}_mode_raw.csv")
        assert material.pools == tuple(pairs.raw[0].pools)[-count:] or count == 1
        assert material.raw.shape == (3, count, WIDTH)
        write_report(tmp_path / "report.html", material)
        assert "There are no centred vectors" in (tmp_path / "report.html").read_text()
    with pytest.raises(InvalidArgument, match="other documents or dimensions"):
        gather_tables(
            tmp_path / "vectors_short_mode_raw.csv", tmp_path / "vectors_long_mode_raw.csv"
        )


def table_of(path, rows=8):
    """A table of two documents."""
    random = np.random.default_rng(0)
    lines = [",".join(f"{value:.8f}" for value in random.normal(size=2)) for _ in range(rows)]
    path.write_text("\n".join(["a,b", *lines]) + "\n")
    return path


@pytest.mark.parametrize(("mode", "count"), [("short", 1), ("long", 4)])
def test_the_mode_of_a_table_is_the_one_that_is_given(tmp_path, mode, count):
    for name in ("my_shortlist.csv", "my_longest.csv"):
        material = gather_tables(table_of(tmp_path / name), mode=mode)
        assert (material.mode, material.raw.shape) == (mode, (2, count, 8 // count))


def test_a_table_that_csv_named_needs_no_mode_and_another_name_says_nothing(tmp_path):
    for mode in ("short", "long"):
        for kind in ("raw", "centered"):
            table = table_of(tmp_path / f"vectors_{mode}_mode_{kind}.csv")
            assert gather_tables(table).mode == mode
    for name in ("my_shortlist.csv", "vectors_short_mode_raw_2.csv", "table.csv"):
        with pytest.raises(InvalidArgument, match=rf"mode of .*{name} is not known.* --mode"):
            gather_tables(table_of(tmp_path / name))


def test_the_program_takes_the_mode_that_is_given_for_tables_too(tmp_path, capfd):
    tables = [table_of(tmp_path / "my_shortlist.csv"), table_of(tmp_path / "my_centred.csv")]
    out = tmp_path / "report.html"

    def run(*options):
        with pytest.raises(SystemExit) as ending:
            main(["report", "--csv", *map(str, tables), "--out", str(out), *options])
        return ending.value.code, *capfd.readouterr()

    code, output, errors = run()
    assert (code, output, out.exists()) == (2, "", False)
    assert "my_shortlist.csv is not known" in errors
    assert run("--mode", "long")[0] == 0
    assert "2 documents, mode long:" in out.read_text()


@pytest.mark.parametrize("count", [1, 2, 200])
def test_one_document_and_many_make_a_report(tmp_path, count):
    random = np.random.default_rng(0)
    labels = [f"a document with quite a long name, number {number}" for number in range(count)]
    lines = [",".join(f'"{label}"' for label in labels)]
    lines += [",".join(f"{value:.8f}" for value in random.normal(size=count)) for _ in range(8)]
    (tmp_path / "vectors_short_mode_raw.csv").write_text("\n".join(lines) + "\n")
    material = gather_tables(tmp_path / "vectors_short_mode_raw.csv")
    figures = {figure.name: figure.drawing for figure in make_figures(material)}
    assert ("cosines_raw" in figures) == (count > 1)
    if count > 1:
        assert len(set(figures["cosines_raw"].data[0].x)) == count
        assert figures["cosines_raw"].layout.xaxis.showticklabels == (count <= 40)


def test_of_very_many_the_heatmap_shows_some_and_says_so_and_the_pairs_are_all_counted():
    vectors = np.random.default_rng(0).normal(size=(600, 1, 8)).astype(np.float32)
    material = Material("short", tuple(f"d{number}" for number in range(600)), vectors)
    figures = {figure.name: figure for figure in make_figures(material)}
    assert figures["cosines_raw"].drawing.data[0].z.shape == (200, 200)
    assert "One document in 3 is shown, 200 of 600." in figures["cosines_raw"].caption
    assert sum(figures["pairs"].drawing.data[0].y) == 600 * 599 / 2


@pytest.mark.skipif(not shutil.which("chromium"), reason="pictures are drawn by Chromium")
def test_the_figures_are_pictures_too(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(1, 1, 8)).astype(np.float32)
    pictures = write_pictures(tmp_path, Material("short", ("one",), vectors))
    assert [picture.name for picture in pictures] == ["norms.png", "outliers.png"]
    for picture in pictures:
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        # Width and height, of the header: 1000 x 600 at a scale of 2.
        assert (content[16:20], content[20:24]) == (b"\0\0\x07\xd0", b"\0\0\x04\xb0")


def test_nothing_is_no_report():
    with pytest.raises(InvalidArgument, match="nothing to report"):
        gather(PairedVectors((), (), ()))


def test_those_alike_stand_together():
    groups = np.array([0, 1, 0, 1, 2, 0])
    similarity = (groups[:, None] == groups[None, :]) * 0.9 + 0.1 * np.eye(6)
    ordered = groups[cluster_order(similarity)]
    assert (np.diff(ordered) != 0).sum() == 2
    assert sorted(cluster_order(np.full((4, 4), np.nan))) == [0, 1, 2, 3]


def test_the_program_says_what_it_wrote_and_what_it_left_out(demo_server, tmp_path, capfd):
    def run(*arguments):
        with pytest.raises(SystemExit) as ending:
            main(["--target", demo_server.target, "report", *map(str, arguments)])
        return ending.value.code, *capfd.readouterr()

    out = tmp_path / "report.html"
    code, output, _ = run("--text", "The tide comes back twice a day.", "--out", out)
    assert (code, output) == (0, f"{out}: 1 documents\n")
    assert "Of one document there are no cosines" in out.read_text()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "good.txt").write_text("A good text.")
    (tmp_path / "texts" / "blank.txt").write_text(" ")
    code, _, errors = run(tmp_path / "texts", "--out", out, "--mode", "short")
    assert code == 1
    assert "'blank' is not in the report" in errors
    assert run("--out", out)[0] == 2
    assert run("--text", "a", "--samples")[0] == 2
