"""Fetches a sample of a dataset into one file; what broke goes on, what is done is kept."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actvec.client.corpora.acceptance import (
    Acceptance,
    Counts,
    Verdict,
    WordLimits,
    text_digest,
)
from actvec.client.corpora.candidates import Candidates, Progress
from actvec.client.corpora.sampling import Sample, draw, shard_order
from actvec.client.corpora.sources import Source, Texts, one_line
from actvec.client.corpora.writing import write_corpus, writer_for
from actvec.client.errors import (
    FailedPrecondition,
    InvalidArgument,
    SourceBroken,
    UnsupportedInput,
)
from actvec.client.vectors import Document
from actvec.client.whole import write_whole

# Texts that are read between two commits, and so at most read again after a kill.
_COMMIT_EVERY = 5000


@dataclass(frozen=True)
class Fetched:
    """A corpus on disk.

    Attributes:
        path: The file.
        manifest: The JSON file beside it that says where it came from.
        documents: Documents in it.
        counts: What became of the texts that were read.
        exhausted: Whether the dataset was read to its end.
        cached: Whether the file was there already, and nothing was read.
        resumed_at: Texts that an earlier, broken fetch had read; 0 for a fresh one.
    """

    path: Path
    manifest: Path
    documents: int
    counts: Counts
    exhausted: bool
    cached: bool
    resumed_at: int


def fetch_corpus(
    source: Source,
    path: str | Path,
    *,
    words: WordLimits,
    sample: Sample,
    on_text: Callable[[Counts], None] | None = None,
) -> Fetched:
    """Write a sample of a dataset's texts to a file, each under the id `<shard>-<row>`.

    The same arguments and the same dataset give the same file. Where that file is there already it
    is kept. A fetch that broke, or was killed, is gone on with by the same call; what it has read
    is in a folder `<path>.part` until then.

    Args:
        source: The dataset.
        path: The file: `.jsonl`, `.jsonl.gz` or `.parquet`. A manifest `<path>.manifest.json` is
            written beside it.
        words: How many words a text may have.
        sample: How many documents are wanted, and by which seed.
        on_text: Is told the counts after each text.

    Raises:
        UnsupportedInput: there is no such dataset or column, or the file's name ends otherwise.
        MissingExtra: a package is not installed.
        SourceBroken: the dataset could not be read on; the same call goes on from there.
        FailedPrecondition: the file is there and holds something else.
        InvalidArgument: no text was accepted.
        Aborted: another process fetches to the same file.
        OSError: the file cannot be written.
    """
    path = Path(path)
    writer_for(path)
    request = {"source": source.request(), "words": vars(words), "sample": vars(sample)}
    part = path.with_name(f"{path.name}.part")
    if path.exists() and (_manifest_path(path).exists() or not part.exists()):
        return _cached(path, source, request)
    _manifest_path(path).unlink(missing_ok=True)
    with closing(Candidates(part)) as candidates:
        progress = _resume(candidates, source, request)
        resumed_at = progress.counts.seen
        exhausted = _gather(
            candidates, progress, source, words=words, sample=sample, on_text=on_text
        )
        if not progress.counts.accepted:
            candidates.clear()
            raise InvalidArgument(
                f"none of {progress.counts.seen:,} texts was accepted: {refusals(progress.counts)}"
            )
        # Until the manifest stands beside the file, a kill must not lose what was read.
        candidates.commit(progress)
        offsets = draw(sample, ((text_digest(one.text), at) for at, one in candidates))
        write_corpus(path, candidates.at(offsets))
        manifest = {
            "request": request,
            "source": progress.identity,
            "counts": progress.counts.to_dict(),
            "documents": len(offsets),
            "exhausted": exhausted,
            "sha256": _file_sha256(path),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "actvec_version": version("actvec"),
        }
        write_whole(_manifest_path(path), (json.dumps(manifest, indent=2) + "\n").encode())
        candidates.clear()
    return _fetched(path, manifest, cached=False, resumed_at=resumed_at)


def refusals(counts: Counts) -> str:
    """The counts of texts that were not accepted, in words."""
    return (
        f"{counts.empty:,} empty, {counts.too_short:,} too short, {counts.too_long:,} too long,"
        f" {counts.duplicate:,} duplicate"
    )


def _cached(path: Path, source: Source, request: dict[str, Any]) -> Fetched:
    """What is there, if it is what is wanted."""
    advice = "remove it to fetch it anew, or name another file"
    try:
        manifest = json.loads(_manifest_path(path).read_bytes())
        differing = _differences(manifest["request"], request)
        fetched = _fetched(path, manifest, cached=True, resumed_at=0)
        whole = manifest["sha256"] == _file_sha256(path)
        unchanged = source.unchanged(manifest["source"])
    except UnsupportedInput:
        # The dataset is gone, and cannot have changed: what was made of it is all there is.
        unchanged = True
    except FileNotFoundError:
        raise FailedPrecondition(
            f"{path} is there, and no fetch wrote it: there is no {_manifest_path(path).name}"
            f" beside it; {advice}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{_manifest_path(path)} is damaged; {advice}") from error
    if differing:
        raise FailedPrecondition(f"{path} was fetched otherwise, with {differing}; {advice}")
    if not whole:
        raise FailedPrecondition(f"{path} was changed after it was fetched; {advice}")
    if not unchanged:
        raise FailedPrecondition(f"the dataset has changed since {path} was fetched; {advice}")
    return fetched


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings of an earlier request that were other ones, in words."""
    return ", ".join(
        f"{name} {before[part].get(name)}"
        for part, settings in now.items()
        for name in sorted(settings.keys() | before[part].keys())
        if before[part].get(name) != settings.get(name)
    )


def _resume(candidates: Candidates, source: Source, request: dict[str, Any]) -> Progress:
    """Where an earlier fetch of the same has got; the beginning where there is none."""
    progress = candidates.resume()
    if progress and progress.request == request and source.unchanged(progress.identity):
        return progress
    candidates.clear()
    return Progress(request, source.identity(), 0, 0, Counts(), 0)


def _gather(
    candidates: Candidates,
    progress: Progress,
    source: Source,
    *,
    words: WordLimits,
    sample: Sample,
    on_text: Callable[[Counts], None] | None,
) -> bool:
    """Read until there are enough candidates; whether the dataset ended before that."""
    acceptance = Acceptance(words)
    for _, document in candidates:
        acceptance.remember(document.text)
    texts = source.open(progress.identity)
    order = shard_order(sample, texts.shards)
    counts = progress.counts
    while progress.shards < len(order) and counts.accepted != sample.wanted:
        shard = order[progress.shards]
        for text in _read(texts, shard, candidates, progress):
            verdict = acceptance.judge(text)
            counts.add(verdict)
            if verdict is Verdict.ACCEPTED:
                candidates.add(Document(f"{shard:05d}-{progress.row:07d}", text or ""))
            progress.row += 1
            if counts.seen % _COMMIT_EVERY == 0:
                candidates.commit(progress)
            if on_text is not None:
                on_text(counts)
            if counts.accepted == sample.wanted:
                return False
        progress.shards, progress.row = progress.shards + 1, 0
    return counts.accepted != sample.wanted


def _read(
    texts: Texts, shard: int, candidates: Candidates, progress: Progress
) -> Iterator[str | None]:
    """The texts of a shard from the row on that is next; a break keeps what was read."""
    rows = texts.read(shard, progress.row)
    while True:
        try:
            text = next(rows)
        except StopIteration:
            return
        except Exception as error:  # of the network, of gzip, of Arrow: whatever `datasets` meets
            raise _broken(error, shard, candidates, progress) from error
        yield text


def _broken(
    error: Exception, shard: int, candidates: Candidates, progress: Progress
) -> SourceBroken:
    """The error for one of `datasets`; what was read before it is made to last."""
    place = f"after {progress.row:,} rows" if progress.row else "before its first row"
    message = f"the dataset broke in shard {shard} {place}: {one_line(error)}"
    if not progress.counts.seen:
        return SourceBroken(message)
    candidates.commit(progress)
    return SourceBroken(
        f"{message}. {progress.counts.seen:,} texts were read and are kept in"
        f" {candidates.folder}; the same command goes on from there"
    )


def _fetched(path: Path, manifest: dict[str, Any], *, cached: bool, resumed_at: int) -> Fetched:
    return Fetched(
        path=path,
        manifest=_manifest_path(path),
        documents=manifest["documents"],
        counts=Counts.from_dict(manifest["counts"]),
        exhausted=manifest["exhausted"],
        cached=cached,
        resumed_at=resumed_at,
    )


def _manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest.json")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
