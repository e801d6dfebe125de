"""Jobs of a small corpus, and a way to stop them in the middle."""

import json

from actvec.client.bulk import Layout, VectorJob
from actvec.client.documents import DocumentSource, open_documents

FORMATS = ("files", "shards", "parquet")
COUNT = 60
BLANK = range(0, COUNT, 20)


def text_of(number):
    return " " if number in BLANK else f"In {1700 + number} the bridge was closed for repairs."


def write_corpus(path, numbers=range(COUNT)):
    lines = [json.dumps({"id": f"doc-{n}", "text": text_of(n)}) + "\n" for n in numbers]
    path.write_text("".join(lines))
    return path


def job(corpus, folder, layout="shards", rows_per_file=16, **settings):
    """A job of a corpus: a path, or an open source."""
    source = corpus if isinstance(corpus, DocumentSource) else open_documents(corpus)
    layout = Layout(layout, rows_per_file=rows_per_file)
    return VectorJob(source, folder, **({"mode": "short"} | settings), layout=layout)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def failures_of(folder):
    path = folder / "errors.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class StopHereError(Exception):
    """Raised by a test to end a job early."""


def stop_after(documents):
    def on_progress(progress):
        if progress.documents >= documents:
            raise StopHereError

    return on_progress
