"""Activation vectors of the sample corpus: a server, a client, files on disk.

    python -m examples.demo

starts `actvec-server` with the demo model on a free port, streams the twenty sample texts through
it in both modes, writes the vectors under ./vectors/demo/, computes the mean of the texts, prints
the similarity of different texts without and with centering, writes a report, and stops the server.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from actvec.client import ActvecError, Client, Document, Mode, ServerError, Vector
from actvec.client.analysis.paired import paired_vectors
from actvec.client.analysis.report import gather, write_report
from actvec.client.bulk.sinks.single_files import FileSink
from actvec.client.samples import sample_corpus

OUT = Path("vectors/demo")
REPORT = OUT / "report.html"
READY = "actvec-server ready on "


def main() -> None:
    """Compute the vectors and show their properties."""
    corpus = sample_corpus()
    with demo_server() as target, Client(target, retry_for=5) as client:
        info = client.info()
        print(
            f"{info.model}: {info.architecture}, layers {list(info.layers)} of {info.n_layers},"
            f" width {info.d_model}, {info.dtype} on {info.device}\n"
        )
        started = time.perf_counter()
        short, _ = vectors(client, corpus, "short")
        long, milliseconds = vectors(client, corpus, "long")
        seconds = time.perf_counter() - started
        mean = client.corpus_mean(corpus, job="samples")
        centered, _ = vectors(client, corpus, "short", center=mean.id)
        pairs = paired_vectors(client, corpus, mode="long", center=mean.id)
        write_report(REPORT, gather(pairs, corpus, client.download_mean(mean.id)))

    folder = FileSink(OUT)
    for vector in [*short.values(), *long.values()]:
        folder.save(vector)

    width = max(len(document.id) for document in corpus)
    print(f"{'document':<{width}}  {'tokens':>6}  {'norm short':>10}  {'norm long':>9}  {'ms':>6}")
    for document in corpus:
        a, b = short[document.id], long[document.id]
        print(
            f"{document.id:<{width}}  {b.tokens:>6}  {a.norm:>10.2f}  {b.norm:>9.2f}"
            f"  {milliseconds[document.id]:>6.0f}"
        )
    documents = len(short) + len(long)
    tokens = sum(vector.tokens for vector in [*short.values(), *long.values()])
    print(
        f"\n{documents} vectors of {tokens:,} tokens in {seconds:.2f} s:"
        f" {documents / seconds:.1f} documents/s, {tokens / seconds:,.0f} tokens/s"
        f"\nms: from the submission of a text to its long vector, while the others are in flight"
        f"\nsaved in {OUT}/"
    )
    print(
        f"\ncorpus mean {mean.id}: {mean.documents} documents, {mean.tokens:,} tokens,"
        f" {mean.max_tokens:,} positions from the end"
        "\naverage cosine between different documents, short vectors:"
        f" raw {average_cosine(short):.3f}, centered {average_cosine(centered):.3f}"
        f"\nreport, to open in a browser: {REPORT}"
        "\nnext: docs/index.md has a page per task"
    )


def average_cosine(vectors: dict[str, Vector]) -> float:
    """The mean cosine over all pairs of different documents."""
    matrix = np.stack([vector.values for vector in vectors.values()]).astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    pairs = np.triu_indices(len(matrix), k=1)
    return float((matrix @ matrix.T)[pairs].mean())


def vectors(
    client: Client, corpus: list[Document], mode: Mode, center: str | None = None
) -> tuple[dict[str, Vector], dict[str, float]]:
    """Return each document's vector, and the milliseconds from submission to result."""
    submitted: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    results: dict[str, Vector] = {}

    def submit() -> Iterable[Document]:
        for document in corpus:
            submitted[document.id] = time.perf_counter()
            yield document

    for result in client.stream(submit(), mode=mode, center=center):
        if not isinstance(result, Vector):
            sys.exit(f"{result.id} has no vector: {result.code}: {result.message}")
        milliseconds[result.id] = 1000 * (time.perf_counter() - submitted[result.id])
        results[result.id] = result
    return results, milliseconds


@contextmanager
def demo_server() -> Iterator[str]:
    """Start a server of the demo model on a free port of this machine; yield its HOST:PORT."""
    with tempfile.TemporaryDirectory() as scratch, Path(scratch, "log").open("w") as log:
        command = [sys.executable, "-m", "actvec.server.program.main", "--model=demo", "--port=0"]
        server = subprocess.Popen(  # noqa: S603 - our own program
            [*command, f"--data-dir={scratch}/data"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            line = next((line for line in server.stdout or () if line.startswith(READY)), None)
            if line is None:
                raise ServerError(f"actvec-server ended with exit code {server.wait()}")
            yield line.removeprefix(READY).strip()
        except ActvecError as error:
            sys.exit(f"{error}\n{Path(log.name).read_text()}".rstrip())
        finally:
            # On SIGTERM the server answers everything it has, and ends.
            server.terminate()
            server.wait(timeout=30)


if __name__ == "__main__":
    main()
