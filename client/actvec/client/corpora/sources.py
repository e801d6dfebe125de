"""Sources of texts: a dataset of the hub, or files of JSON lines or Parquet.

Each has a number of shards, and any shard can be read from any row, as sampling and resuming
require. The readers of `actvec.client.documents` read files, and only their column of texts, so
that other columns cannot interfere. The `datasets` package finds the files of a dataset, and reads
other formats, such as CSV.
"""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from actvec.client.corpora.remote import is_url, one_line, open_url, retried
from actvec.client.documents import Columns, DocumentSource, LinesSource, ParquetSource
from actvec.client.documents.opening import compression_of, decompressed
from actvec.client.errors import SourceBroken, UnsupportedInput
from actvec.client.extras import import_extra
from actvec.client.records.vectors import Failure

Identity = dict[str, Any]

# A hub that cannot be reached at all is reported within seconds, before any text is read.
_LOOK_AGAIN = 3


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub, or a folder with the layout of one.

    Attributes:
        dataset: Its id, or the folder.
        config: The configuration; None for the only or default one.
        split: The split.
        revision: A branch, tag or commit; None for the newest. A fetch resolves it to a commit at
            its start, and reads that commit to the end.
        column: The column of texts.
    """

    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    column: str = "text"

    def request(self) -> dict[str, Any]:
        """The request, as JSON values."""
        return asdict(self)

    def identity(self) -> Identity:
        """Its present identity, as JSON values: the hub's commit, or the files of the folder.

        Raises:
            UnsupportedInput: the dataset does not exist, or cannot be reached.
        """
        folder = Path(self.dataset)
        if folder.is_dir():
            return {"files": _stamps(path for path in folder.rglob("*") if path.is_file())}
        hub = import_extra("huggingface_hub", "data").HfApi()
        try:
            info = retried(
                lambda: hub.dataset_info(self.dataset, revision=self.revision), again=_LOOK_AGAIN
            )
        except Exception as error:  # of the hub, of HTTP, of the network: all mean this
            raise UnsupportedInput(
                f"cannot find the dataset {self.dataset} on the hub: {one_line(error)}"
            ) from error
        return {"commit": info.sha}

    def open(self, identity: Identity) -> "Texts":
        """Open the texts of the dataset with that identity.

        Raises:
            UnsupportedInput: the dataset, configuration, split or column does not exist.
            MissingExtra: `datasets` is not installed.
        """
        datasets = import_extra("datasets", "data")
        # It also raises what it logs, and the caller reports it.
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)
        commit = identity.get("commit")
        try:
            builder = retried(
                lambda: datasets.load_dataset_builder(self.dataset, self.config, revision=commit),
                again=_LOOK_AGAIN,
            )
            files = list(map(str, (builder.config.data_files or {}).get(self.split, [])))
            if files and _has_own_reader(builder, files):
                return FileTexts(files, self.column)
            stream = builder.as_streaming_dataset(self.split)
            columns = stream.column_names
        except Exception as error:  # each kind of dataset has its own errors
            raise UnsupportedInput(
                f"cannot open the dataset {self.dataset}: {one_line(error)}"
            ) from error
        if columns is not None and self.column not in columns:
            raise UnsupportedInput(
                f"no column {self.column!r} in the dataset {self.dataset}; there are:"
                f" {', '.join(columns)}"
            )
        return StreamedTexts(stream, self.column)


@dataclass(frozen=True)
class DataFiles:
    """JSON lines, CSV or Parquet files, local or remote.

    Attributes:
        patterns: File names, paths with wildcards (`**` for folders of any depth), which match
            files only, or URLs. An existing name is a file, whatever characters it has.
        column: The column of texts.
    """

    patterns: tuple[str, ...]
    column: str = "text"

    def request(self) -> dict[str, Any]:
        """The request, as JSON values."""
        return {"files": list(self.patterns), "column": self.column}

    def identity(self) -> Identity:
        """Its present identity: sizes and times of local files; of a URL only the URL.

        Raises:
            UnsupportedInput: a file does not exist.
        """
        files = self._files()
        return {
            "files": _stamps(Path(file) for file in files if not is_url(file)),
            "urls": [file for file in files if is_url(file)],
        }

    def open(self, identity: Identity) -> "Texts":  # noqa: ARG002 - as `HubDataset` has it
        """Open the texts of the files.

        Raises:
            UnsupportedInput: a file does not exist, or has an unsupported format.
        """
        files = self._files()
        for file in files:
            if not _is_supported(file):
                raise UnsupportedInput(
                    f"{file} is of no supported kind; give .json, .jsonl, .ndjson, .csv or .tsv"
                    " files, also with .gz, .zst, .xz or .bz2, or .parquet files"
                )
        return FileTexts(files, self.column)

    def _files(self) -> list[str]:
        found: set[str] = set()
        for pattern in self.patterns:
            if is_url(pattern) and not os.path.exists(pattern):
                found.add(pattern)
                continue
            if os.path.exists(pattern):
                matches = [pattern]
            else:
                names = glob.glob(pattern, recursive=True)
                matches = [name for name in names if not os.path.isdir(name)]
            if not matches:
                raise UnsupportedInput(f"no file matches {pattern}")
            found.update(str(Path(match).resolve()) for match in matches)
        return sorted(found)


Source = HubDataset | DataFiles


class _TextColumn(Columns):
    """A column of texts, and not the other columns that `text` may stand for."""

    def sources(self) -> tuple[str, ...]:
        return (self.text,)


class FileTexts:
    """Texts in files, one shard per file; reads only the column of texts."""

    def __init__(self, files: Sequence[str], column: str) -> None:
        self._files = files
        self._columns = _TextColumn(column, id=None)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self._files)

    def check(self, shard: int) -> None:
        """Look at the first rows of a shard.

        Raises:
            UnsupportedInput: they lack the column.
        """
        self._source(shard).check()

    def read(self, shard: int, start: int) -> Iterator[str | Failure]:
        """Yield the texts of a shard from row `start`; a failure for a row without one.

        Raises:
            SourceBroken: it cannot be read to its end.
            UnsupportedInput: it does not have its format.
        """
        for located in self._source(shard).scan(range(start)):
            item = located.document
            if isinstance(item, Failure):
                yield item
            elif item.text is None:
                reason = f"`{self._columns.text}` holds {item.source}, not a text"
                yield Failure("", "INVALID_ARGUMENT", reason, "text")
            else:
                yield item.text

    def _source(self, shard: int) -> DocumentSource:
        name = self._files[shard]
        path, opener = _located(name)
        if path.suffix.lower() == ".parquet":
            return ParquetSource(path, self._columns, name=name, opener=opener)
        compression = compression_of(path.name) or ""
        return LinesSource(path, compression, self._columns, name=name, opener=opener)


class StreamedTexts:
    """Texts that `datasets` streams; see `FileTexts`."""

    def __init__(self, dataset: Any, column: str) -> None:
        self._dataset = dataset
        self._column = column

    @property
    def shards(self) -> int:
        """Number of shards."""
        return int(self._dataset.num_shards)

    def check(self, shard: int) -> None:
        """Do nothing: `HubDataset.open` has checked the columns."""

    def read(self, shard: int, start: int) -> Iterator[str | Failure]:
        """See `FileTexts.read`."""
        try:
            one = self._dataset.shard(num_shards=self.shards, index=shard)
            for row in one.select_columns([self._column]).skip(start):
                text = row[self._column]
                if not isinstance(text, str):
                    reason = f"`{self._column}` is {type(text).__name__}, not a string"
                    text = Failure("", "INVALID_ARGUMENT", reason, "text")
                yield text
        except Exception as error:  # of the network, of Arrow, of each format
            raise SourceBroken(one_line(error)) from error


Texts = FileTexts | StreamedTexts


def _located(name: str) -> tuple[Path, Callable[[], BinaryIO] | None]:
    """A path whose suffix shows the format, and an opener if the file is remote."""
    if not is_url(name):
        return Path(name), None
    return Path(urlsplit(name).path), lambda: open_url(name)


def _is_supported(name: str) -> bool:
    path, _ = _located(name)
    return path.suffix.lower() == ".parquet" or compression_of(path.name) is not None


def _has_own_reader(builder: Any, files: Sequence[str]) -> bool:
    """Whether a dataset is JSON lines or Parquet, and not, for example, a single JSON array."""
    kind = type(builder).__module__.rpartition(".")[2]
    if not all(map(_is_supported, files)):
        return False
    if kind == "json" and not builder.config.field:
        path, opener = _located(files[0])
        with (opener or (lambda: path.open("rb")))() as raw:
            start = decompressed(raw, compression_of(path.name) or "").read(4096)
        return not start.lstrip().startswith(b"[")
    return kind == "parquet"


def _stamps(paths: Iterable[Path]) -> list[list[str | int]]:
    """Name, bytes and modification time (in nanoseconds) of each file."""
    stamps: list[list[str | int]] = []
    for path in sorted(paths):
        try:
            status = os.stat(path)
        except OSError as error:
            raise UnsupportedInput(f"cannot read {path}: {error.strerror}") from error
        stamps.append([str(path), status.st_size, status.st_mtime_ns])
    return stamps
