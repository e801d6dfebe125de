"""The site builds without a warning, with only the environment's programs."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import actvec.client
from tests.browser import needs_browser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built where nothing of the environment is on the path."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_reference_lists_every_public_name(site):
    client = (site / "reference/client.html").read_text()
    for name in ("Client.extract", "Client.stream", "Client.corpus_mean", "StampChanged"):
        assert f'id="actvec.client.{name}"' in client
    names = re.findall(r'<h[23] id="actvec\.client\.(\w+)"', client)
    assert set(names) == set(actvec.client.__all__)
    assert names[:2] == ["Client", "AsyncClient"]
    contract = (site / "reference/contract.html").read_text()
    assert "StreamCorpusMean" in contract
    assert 'id="vectorsettings"' in contract
    assert 'id="streamcorpusmean"' in contract
    assert 'href="../grpc.html"' in contract


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("bulk", "actvec.client.bulk"),
        ("bulk", "actvec.client.documents"),
        ("research", "actvec.client.findings"),
        ("research", "actvec.client.corpora"),
        ("pooling", "actvec.pooling"),
    ],
)
def test_reference_lists_classes_and_functions(site, page, module):
    shown = (site / f"reference/{page}.html").read_text()
    # As Markdown, the prompts of an example are quotes of quotes.
    assert "<blockquote>" not in shown
    public = importlib.import_module(module)
    names = {
        name
        for name in public.__all__
        if inspect.isclass(getattr(public, name)) or inspect.isfunction(getattr(public, name))
    }
    assert names - set(re.findall(rf'id="{re.escape(module)}\.(\w+)"', shown)) == set()


@needs_browser
def test_site_searches_offline_and_fits_a_phone(site, browser):
    seen = browser.at(
        site / "bulk.html",
        """new Promise(async done => {
          // The theme's script puts wide tables into boxes that scroll.
          const tables = [...document.querySelectorAll('article table:not([class])')];
          const boxed = table => table.closest('.md-typeset__scrollwrap');
          for (let tries = 0; tries < 600 && !tables.every(boxed); tries++)
            await new Promise(wake => setTimeout(wake, 100));
          // Before the search opens, which grows out of the page.
          const wide = document.documentElement.scrollWidth;
          const query = document.querySelector('[data-md-component=search-query]');
          query.focus();
          query.value = 'centering';
          query.dispatchEvent(new Event('input', { bubbles: true }));
          let found = [];
          for (let tries = 0; tries < 600 && !found.length; tries++) {
            await new Promise(wake => setTimeout(wake, 100));
            // Its worker may start only after the first letter.
            query.dispatchEvent(new KeyboardEvent('keyup', { bubbles: true }));
            found = [...document.querySelectorAll('.md-search-result__item a')];
          }
          const commands = [...document.querySelectorAll('.language-console code')];
          done({
            found: found.map(one => one.textContent).join(' '),
            wide,
            boxed: tables.filter(boxed).length,
            commands: commands.length,
            cut: commands.filter(one => one.scrollWidth > one.clientWidth + 1).length,
            ground: getComputedStyle(document.body).backgroundColor,
            elsewhere: performance.getEntriesByType('resource').map(one => one.name)
              .filter(name => !name.startsWith('file:')),
          });
        })""",
        width=420,
        dark=True,
    )
    assert "Centering" in seen.value["found"]
    assert seen.value["boxed"] > 0
    assert seen.value["wide"] == 420
    assert (seen.value["commands"] > 3, seen.value["cut"]) == (True, 0)
    assert seen.value["elsewhere"] == []
    red, green, blue = map(int, re.findall(r"\d+", seen.value["ground"])[:3])
    assert max(red, green, blue) < 60
    assert seen.complaints == []
