"""Material of reports, their pages, and what a page holds."""

import json
import re

import numpy as np
import pytest

from actvec.client import Client, Document
from actvec.client.analysis.paired import paired_vectors
from actvec.client.analysis.report import Material, gather, write_report
from actvec.client.samples import sample_corpus

HOSTILE = "<script>alert(1)</script><b>&amp;"


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
