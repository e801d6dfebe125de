"""Fetches a sample of a dataset into one file; an interrupted fetch resumes."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actvec.client.corpora.acceptance import Acceptance, Counts, Verdict, WordLimits, text_digest
from actvec.client.corpora.candidates import Candidates, FetchProgress
from actvec.client.corpora.sampling import Sample, draw, shard_order
from actvec.client.corpora.sources import Identity, Source
from actvec.client.corpora.writing import write_corpus, writer_for
from actvec.client.errors import (
    FailedPrecondition,
    InvalidArgument,
    SourceBroken,
    SourceDamaged,
    UnsupportedInput,
)
from actvec.client.files import Content, given_path, sync_folder, write_json
from actvec.client.messages.documents import check_utf8
from actvec.client.records.differences import differences
from actvec.client.records.vectors import Document, Failure

# Rows between two commits: a killed fetch reads at most this many again.
_COMMIT_EVERY = 5000

# Number of unreadable rows whose reasons are kept; all are counted.
_KEPT_FAILURES = 10


@dataclass(frozen=True)
class Fetched:
    """A corpus on disk.

    Attributes:
        path: The file.
        manifest: The JSON file beside it that records its origin.
        documents: Number of documents.
        counts: The rows read, by result.
        failures: Ids and reasons of the first unreadable rows.
        exhausted: Whether the dataset was read to its end.
        cached: Whether the file existed already, so that nothing was read.
        resumed_at: Rows read by an earlier, interrupted fetch; 0 for a fresh one.
    """

    path: Path
    manifest: Path
    documents: int
    counts: Counts
    failures: dict[str, str]
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
    """Write a sample of a dataset's texts to a file, with ids `<shard>-<row>`.

    The same arguments and the same dataset give the same file; an existing file stays. To resume an
    interrupted fetch, repeat the call; until the file is complete, a folder `<path>.part` holds the
    texts read. Rows without a text are counted and skipped.

    Args:
        source: The dataset.
        path: The file: `.jsonl`, `.jsonl.gz` or `.parquet`. Its manifest is `<path>.manifest.json`.
        words: Limits on the words of a text.
        sample: The number of documents and the seed.
        on_text: Called with the counts after each row.

    Raises:
        UnsupportedInput: the dataset or the column does not exist, or the file's suffix is
            unsupported.
        MissingExtra: a package is not installed.
        SourceBroken: the dataset broke before its end; repeat the call to resume.
        FailedPrecondition: the file exists and holds something else.
        InvalidArgument: no text was accepted.
        Aborted: another process fetches to the same file.
        OSError: the file cannot be written.
    """
    path = given_path(path)
    writer_for(path)
    request = {"source": source.request(), "words": vars(words), "sample": vars(sample)}
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        fetched = _cached(path, source, request)
        # Remains if the fetch was killed at its very end.
        shutil.rmtree(part, ignore_errors=True)
        return fetched
    with closing(Candidates(part)) as candidates:
        progress = _resume(candidates, source, request)
        resumed_at = progress.counts.seen
        exhausted = _gather(
            candidates, progress, source, words=words, sample=sample, on_text=on_text
        )
        if not progress.counts.accepted:
            candidates.clear()
            raise InvalidArgument(_nothing_accepted(progress))
        # A kill before the file exists must not lose the texts read.
        candidates.commit(progress)
        offsets = draw(sample, ((text_digest(one.content), at) for at, one in candidates))
        written = part / f"corpus-{path.name}"
        write_corpus(written, candidates.at(offsets))
        manifest = {
            "request": request,
            "source": progress.identity,
            "counts": progress.counts.to_dict(),
            "failures": progress.failures,
            "documents": len(offsets),
            "exhausted": exhausted,
            "sha256": Content.of(written).sha256,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "actvec_version": version("actvec"),
        }
        # The file comes last: once it has its name, it is whole and its manifest exists.
        write_json(_manifest_path(path), manifest)
        written.replace(path)
        sync_folder(path.parent)
        candidates.clear()
    return _fetched(path, manifest, cached=False, resumed_at=resumed_at)


def _nothing_accepted(progress: FetchProgress) -> str:
    counts = progress.counts
    message = f"none of {counts.seen:,} texts was accepted: {counts.refusals}"
    reason = next(iter(progress.failures.values()), None)
    return message if reason is None else f"{message}. The first that cannot be read: {reason}"


def _cached(path: Path, source: Source, request: dict[str, Any]) -> Fetched:
    """Return the existing file, if it is the requested one."""
    advice = "remove it to fetch it anew, or name another file"
    try:
        manifest = json.loads(_manifest_path(path).read_bytes())
        differing = differences(_settings(manifest["request"]), _settings(request))
        fetched = _fetched(path, manifest, cached=True, resumed_at=0)
        whole = manifest["sha256"] == Content.of(path).sha256
        unchanged = _is_unchanged(source, manifest["source"])
    except UnsupportedInput:
        # The dataset is gone and cannot have changed: the file is all there is.
        unchanged = True
    except FileNotFoundError:
        raise FailedPrecondition(
            f"{path} is there, and no fetch wrote it: there is no {_manifest_path(path).name}"
            f" beside it; {advice}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{_manifest_path(path)} is damaged; {advice}") from error
    if differing:
        raise FailedPrecondition(f"{path} was fetched with other settings: {differing}; {advice}")
    if not whole:
        raise FailedPrecondition(f"{path} was changed after it was fetched; {advice}")
    if not unchanged:
        raise FailedPrecondition(f"the dataset has changed since {path} was fetched; {advice}")
    return fetched


def _settings(request: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a fetch by their names."""
    return {name: value for part in request.values() for name, value in part.items()}


def _is_unchanged(source: Source, identity: Identity) -> bool:
    """Whether an earlier identity still holds; a commit always does, without asking the hub."""
    return "commit" in identity or source.identity() == identity


def _resume(candidates: Candidates, source: Source, request: dict[str, Any]) -> FetchProgress:
    """Return the progress of an earlier fetch with the same request; else start over."""
    progress = candidates.resume()
    if progress and progress.request == request and _is_unchanged(source, progress.identity):
        return progress
    candidates.clear()
    return FetchProgress(request, source.identity())


def _gather(
    candidates: Candidates,
    progress: FetchProgress,
    source: Source,
    *,
    words: WordLimits,
    sample: Sample,
    on_text: Callable[[Counts], None] | None,
) -> bool:
    """Read until there are enough candidates; return whether the dataset ended before."""
    acceptance, counts = Acceptance(words), progress.counts
    for _, document in candidates:
        acceptance.remember(document.content)
    texts = source.open(progress.identity)
    order = shard_order(sample, texts.shards)
    if not counts.seen and order:
        texts.check(order[0])
    while progress.shards < len(order) and counts.accepted != sample.wanted:
        shard = order[progress.shards]
        try:
            for item in texts.read(shard, progress.row):
                document_id = f"{shard:05d}-{progress.row:07d}"
                verdict, reason = _judge(acceptance, document_id, item)
                counts.add(verdict)
                if verdict == "accepted" and isinstance(item, str):
                    candidates.add(Document(document_id, item))
                elif reason and len(progress.failures) < _KEPT_FAILURES:
                    progress.failures[document_id] = reason
                progress.row += 1
                if counts.seen % _COMMIT_EVERY == 0:
                    candidates.commit(progress)
                if on_text is not None:
                    on_text(counts)
                if counts.accepted == sample.wanted:
                    return False
        except (SourceBroken, UnsupportedInput) as error:
            raise _broken(error, shard, candidates, progress) from error
        progress.shards, progress.row = progress.shards + 1, 0
    return counts.accepted != sample.wanted


def _judge(acceptance: Acceptance, document_id: str, item: str | Failure) -> tuple[Verdict, str]:
    """Return the result for a row and, if it is unreadable, the reason."""
    if isinstance(item, Failure):
        return "unreadable", item.message
    try:
        check_utf8(Document(document_id, item))
    except InvalidArgument as error:
        return "unreadable", str(error)
    return acceptance.judge(item), ""


def _broken(
    error: SourceBroken | UnsupportedInput,
    shard: int,
    candidates: Candidates,
    progress: FetchProgress,
) -> SourceBroken:
    """Return the error for a broken shard, and make the rows before it durable."""
    kind = SourceBroken if type(error) is SourceBroken else SourceDamaged
    place = f"after {progress.row:,} rows" if progress.row else "before its first row"
    message = f"the dataset broke in shard {shard} {place}: {error}"
    if not progress.counts.seen:
        return kind(message)
    candidates.commit(progress)
    return kind(
        f"{message}. {progress.counts.seen:,} texts were read and are kept in"
        f" {candidates.folder}; the same fetch continues after them"
    )


def _fetched(path: Path, manifest: dict[str, Any], *, cached: bool, resumed_at: int) -> Fetched:
    return Fetched(
        path=path,
        manifest=_manifest_path(path),
        documents=manifest["documents"],
        counts=Counts.from_dict(manifest["counts"]),
        failures=manifest.get("failures", {}),
        exhausted=manifest["exhausted"],
        cached=cached,
        resumed_at=resumed_at,
    )


def _manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest.json")
