"""Where texts come from: a dataset of the hub, files of its kinds, or a pickled list.

Each is a number of shards, and any shard can be read from any row on, which is what sampling and
resuming need. The datasets are read by the `datasets` package, streaming.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from actvec.client.corpora.pickles import read_pickled_texts
from actvec.client.errors import UnsupportedInput
from actvec.client.extras import import_extra

if TYPE_CHECKING:
    from datasets import IterableDataset

# How the names of files that `datasets` reads for us end, and its name for their kind.
_KINDS = (
    ((".json", ".jsonl", ".json.gz", ".jsonl.gz"), "json"),
    ((".parquet",), "parquet"),
)

Identity = dict[str, Any]


class Texts(Protocol):
    """Texts in shards."""

    @property
    def shards(self) -> int:
        """How many."""

    def read(self, shard: int, start: int) -> Iterator[str | None]:
        """The texts of one shard from row `start` on; None where a row has none.

        Raises:
            Exception: whatever `datasets` raises where it cannot read on.
        """


class Source(Protocol):
    """A dataset that texts can be read from."""

    def request(self) -> dict[str, Any]:
        """What was asked for, as JSON takes it."""

    def identity(self) -> Identity:
        """What that is now, as JSON takes it: the same dataset has the same identity.

        Raises:
            UnsupportedInput: there is no such dataset, or it cannot be reached.
        """

    def unchanged(self, identity: Identity) -> bool:
        """Whether an earlier identity still holds, as far as this machine can tell by itself."""

    def open(self, identity: Identity) -> Texts:
        """The texts of the dataset of that identity.

        Raises:
            UnsupportedInput: there is no such dataset, or no such column.
            MissingExtra: `datasets` is not installed.
        """


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub, or a folder that is laid out as one.

    Attributes:
        dataset: Its id, or the folder.
        config: One of its configurations; None for the only or the default one.
        split: One of its splits.
        revision: A branch, tag or commit; None for the newest. What it stands for when a fetch
            begins is kept to the end of it.
        column: The column of texts.
    """

    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    column: str = "text"

    def request(self) -> dict[str, Any]:
        """See `Source.request`."""
        return asdict(self)

    def identity(self) -> Identity:
        """See `Source.identity`: the hub's commit, or the files of the folder."""
        folder = Path(self.dataset)
        if folder.is_dir():
            return {"files": _stamps(path for path in folder.rglob("*") if path.is_file())}
        hub = import_extra("huggingface_hub", "data").HfApi()
        try:
            return {"commit": hub.dataset_info(self.dataset, revision=self.revision).sha}
        except Exception as error:  # of the hub, of HTTP, of the network: all mean this
            raise UnsupportedInput(
                f"cannot find the dataset {self.dataset} on the hub: {one_line(error)}"
            ) from error

    def unchanged(self, identity: Identity) -> bool:
        """See `Source.unchanged`: a commit does not change, and the hub is not asked."""
        return "commit" in identity or self.identity() == identity

    def open(self, identity: Identity) -> "Texts":
        """See `Source.open`."""
        revision = identity.get("commit")
        return _load(self.column, self.dataset, self.config, split=self.split, revision=revision)


@dataclass(frozen=True)
class DataFiles:
    """JSON lines or Parquet files, on disk or by URL.

    Attributes:
        patterns: Paths with wildcards (`**` for folders of any depth), or URLs without.
        column: The column of texts.
    """

    patterns: tuple[str, ...]
    column: str = "text"

    def request(self) -> dict[str, Any]:
        """See `Source.request`."""
        return {"files": list(self.patterns), "column": self.column}

    def identity(self) -> Identity:
        """See `Source.identity`: sizes and times of the files; of a URL the URL alone."""
        files = self._files()
        return {
            "files": _stamps(Path(file) for file in files if not _is_url(file)),
            "urls": [file for file in files if _is_url(file)],
        }

    def unchanged(self, identity: Identity) -> bool:
        """See `Source.unchanged`."""
        return self.identity() == identity

    def open(self, identity: Identity) -> "Texts":  # noqa: ARG002 - of the protocol
        """See `Source.open`."""
        files = self._files()
        return _load(self.column, _kind(files), split="train", data_files={"train": files})

    def _files(self) -> list[str]:
        found: list[str] = []
        for pattern in self.patterns:
            matches = [pattern] if _is_url(pattern) else glob.glob(pattern, recursive=True)
            if not matches:
                raise UnsupportedInput(f"no file matches {pattern}")
            # Absolute: `datasets` would take a relative one for a name on the hub.
            found += [m if _is_url(m) else str(Path(m).resolve()) for m in matches]
        return sorted(set(found))


@dataclass(frozen=True)
class PickledTexts:
    """A pickle of a list of strings, read without unpickling it. It is held in memory.

    Attributes:
        path: The file.
    """

    path: str

    def request(self) -> dict[str, Any]:
        """See `Source.request`."""
        return {"pickle": self.path}

    def identity(self) -> Identity:
        """See `Source.identity`."""
        return {"files": _stamps([Path(self.path)])}

    def unchanged(self, identity: Identity) -> bool:
        """See `Source.unchanged`."""
        return self.identity() == identity

    def open(self, identity: Identity) -> "Texts":  # noqa: ARG002 - of the protocol
        """See `Source.open`."""
        return _ListedTexts(read_pickled_texts(self.path))


class _DatasetTexts:
    """Texts that `datasets` streams."""

    def __init__(self, dataset: "IterableDataset", column: str) -> None:
        self._dataset = dataset
        self._column = column

    @property
    def shards(self) -> int:
        return int(self._dataset.num_shards)

    def read(self, shard: int, start: int) -> Iterator[str | None]:
        one = self._dataset.shard(num_shards=self.shards, index=shard)
        for row in one.select_columns([self._column]).skip(start):
            text = row[self._column]
            if text is not None and not isinstance(text, str):
                raise ValueError(f"{self._column} is {type(text).__name__}, and no text")
            yield text


class _ListedTexts:
    """Texts in memory, as one shard."""

    shards = 1

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def read(self, shard: int, start: int) -> Iterator[str | None]:  # noqa: ARG002 - there is one
        return islice(self._texts, start, None)


def _load(column: str, path: str, config: str | None = None, **options: Any) -> Texts:
    datasets = import_extra("datasets", "data")
    # What goes wrong is raised too, and told by whoever catches it.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        dataset = datasets.load_dataset(path, config, streaming=True, **options)
        columns = dataset.column_names
    except Exception as error:  # each kind of file and each way to reach it has errors of its own
        raise UnsupportedInput(f"cannot open {_title(path, options)}: {one_line(error)}") from error
    if columns is not None and column not in columns:
        raise UnsupportedInput(
            f"no column {column!r} in {_title(path, options)}; there are: {', '.join(columns)}"
        )
    return _DatasetTexts(dataset, column)


def _title(path: str, options: dict[str, Any]) -> str:
    files = options.get("data_files", {}).get("train")
    if files:
        return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
    return f"the dataset {path}"


def _kind(files: list[str]) -> str:
    kinds = set()
    for file in files:
        kind = next((kind for ends, kind in _KINDS if file.lower().endswith(ends)), None)
        if kind is None:
            raise UnsupportedInput(
                f"{file} is of no supported kind; give .json, .jsonl, .json.gz, .jsonl.gz or"
                " .parquet files"
            )
        kinds.add(kind)
    if len(kinds) > 1:
        raise UnsupportedInput("give JSON lines or Parquet files, not both at a time")
    return kinds.pop()


def _is_url(name: str) -> bool:
    return "://" in name


def _stamps(paths: Iterable[Path]) -> list[list[str | int]]:
    """Name, bytes and time of change (in nanoseconds) of each file."""
    stamps: list[list[str | int]] = []
    for path in sorted(paths):
        try:
            status = os.stat(path)
        except OSError as error:
            raise UnsupportedInput(f"cannot read {path}: {error.strerror}") from error
        stamps.append([str(path), status.st_size, status.st_mtime_ns])
    return stamps


def one_line(error: BaseException) -> str:
    """An error on one line: some are long, and some say nothing but their name."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
