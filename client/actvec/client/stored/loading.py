"""Finds out which of our formats a folder or file has, and reads it."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actvec.client.errors import FailedPrecondition, UnsupportedInput
from actvec.client.files import given_path
from actvec.client.records.differences import differences
from actvec.client.records.stamp import Stamp
from actvec.client.stored.complete import check_complete, check_numbers, recorded
from actvec.client.stored.parts import Part, Record, damage, read_parquet, read_shard, read_single
from actvec.client.stored.shard_folders import check_disjoint, shard_names
from actvec.client.stored.vectors import Parts, StoredVectors

_INDEX = re.compile(r"vectors-\d{5,}\.jsonl")
_METADATA = re.compile(r"activation_vector_.*_metadata\.json", re.DOTALL)

# Characters of a text in an array of texts, which takes 4 bytes per text for each character of the
# longest, and drops NULs at the end.
_WIDEST = 256


def load(path: str | Path, *more: str | Path) -> StoredVectors:
    """Load vectors that `actvec stream`, `actvec local` or a sink wrote, or files of them.

    Examples:
        >>> vectors = load("vectors")  # shards, Parquet or single files
        >>> vectors = load("part-1", "part-2")  # the parts of several machines
        >>> vectors = load("out")  # out/1-of-2 and out/2-of-2, as `actvec local` leaves them
        >>> vectors.array.shape, vectors.columns["label"], vectors.stamp.layers

    Args:
        path: A folder, or one of the folders `1-of-N` to `N-of-N`; or a `.parquet` file, the
            `.safetensors` file of a shard or of a single vector, or the JSON beside it.
        more: Further ones, whose documents follow.

    Raises:
        UnsupportedInput: there are no vectors of ours, a folder holds several formats, or a file is
            named twice.
        FailedPrecondition: the vectors are of different stamps, and the message names the fields;
            or folders hold documents of one corpus twice, or lack one of N shards.
        DataLoss: a file is damaged, missing or there twice.
        MissingExtra: the files are Parquet, and pyarrow is not installed.
    """
    given = [given_path(one) for one in (path, *more)]
    places = [place for one in given for place in _places(one)]
    written = [recorded(place) for place in places]
    found = [_parts(place) for place in places]
    # Ray leaves files in which all documents failed.
    parts = [part for some in found for part in some if part.facts]
    if not parts:
        raise UnsupportedInput(f"{path} holds no vectors: each of its documents failed")
    _check_different(parts)
    stamp = _one_stamp(parts)
    check_disjoint(places)
    for place, some, count in zip(places, found, written, strict=True):
        check_complete(place, some, count)
    facts = list(chain.from_iterable(part.facts for part in parts))
    columns = list(chain.from_iterable(part.columns for part in parts))
    return StoredVectors(
        Parts([partial(_shaped, part, stamp) for part in parts]),
        [str(record["id"]) for record in facts],
        _by_name(columns),
        stamp,
        _by_name(facts),
        given[0],
    )


def _places(path: Path) -> list[Path]:
    """The folders of a corpus' shards in a folder; the path itself if it holds none."""
    if not path.is_dir():
        return [path]
    folders = [one.name for one in path.iterdir() if one.is_dir()]
    return [path / name for name in shard_names(folders, path)] or [path]


def _parts(path: Path) -> list[Part]:
    if path.is_dir():
        return _parts_of_folder(path)
    if not path.is_file():
        raise UnsupportedInput(f"cannot read {path}: there is no such folder or file")
    if path.suffix == ".parquet":
        return [read_parquet(path)]
    index = path.with_suffix(".jsonl")
    if _INDEX.fullmatch(index.name) and path.suffix in {".jsonl", ".safetensors"}:
        return [read_shard(index)]
    name = path.name.removesuffix(".safetensors").removesuffix("_metadata.json")
    metadata = path.with_name(f"{name}_metadata.json")
    if _METADATA.fullmatch(metadata.name) and metadata.is_file():
        return read_single([metadata])
    raise UnsupportedInput(f"{path} is no file of vectors: a shard, a Parquet file or a single one")


def _parts_of_folder(folder: Path) -> list[Part]:
    names = sorted(path.name for path in folder.iterdir())
    shards = [folder / name for name in names if _INDEX.fullmatch(name)]
    single = [folder / name for name in names if _METADATA.fullmatch(name)]
    tables = folder / "vectors.parquet" if "vectors.parquet" in names else folder
    parquet = sorted(tables.glob("*.parquet"))
    formats = {"shards": shards, "Parquet files": parquet, "single files": single}
    there = [name for name, paths in formats.items() if paths]
    if not there:
        raise UnsupportedInput(
            f"{folder} holds no vectors: no vectors-00000.jsonl, vectors.parquet or"
            " activation_vector_*_metadata.json"
        )
    if len(there) > 1:
        raise UnsupportedInput(f"{folder} holds {' and '.join(there)}; name the files to read")
    check_numbers(folder, (path.name for path in (*shards, *parquet)))
    return [*map(read_shard, shards), *map(read_parquet, parquet), *read_single(single)]


def _check_different(parts: Sequence[Part]) -> None:
    """Check that no file is read twice: a copy of a held-out document would not be held out.

    Raises:
        UnsupportedInput: one is.
    """
    if len(parts) == 1:
        return
    counts = Counter(path.resolve() for part in parts for path in part.paths)
    if twice := [path for path, count in counts.items() if count > 1]:
        raise UnsupportedInput(f"{twice[0]} is named twice; name each folder or file once")


def _one_stamp(parts: Sequence[Part]) -> Stamp:
    """The stamp that all parts have.

    Raises:
        FailedPrecondition: they have several.
    """
    first = parts[0]
    for other in parts[1:]:
        reasons = differences(Stamp.complete(first.stamp), Stamp.complete(other.stamp))
        if reasons:
            raise FailedPrecondition(
                f"the vectors are of different stamps: between {first.paths[0]} (there) and"
                f" {other.paths[0]} (here), {reasons}; load those of one stamp"
            )
    try:
        return Stamp.parse(first.stamp)
    except (TypeError, LookupError, ValueError) as error:
        raise UnsupportedInput(
            f"the stamp in {first.paths[0]} is none that this version reads: {error}"
        ) from error


def _shaped(part: Part, stamp: Stamp) -> NDArray[Any]:
    with damage(part.paths[0]):
        numbers = part.read()
        return numbers.reshape(len(numbers), *stamp.shape, -1)


def _by_name(records: Sequence[Record]) -> dict[str, NDArray[Any]]:
    names = dict.fromkeys(chain.from_iterable(records))
    return {name: _array([one.get(name) for one in records]) for name in names}


def _array(values: list[Any]) -> NDArray[Any]:
    """An array of one type if the values have one that holds them; of Python's objects if not."""
    kinds = {type(value) for value in values}
    if kinds in ({int}, {float}, {bool}):
        array = np.array(values)
        # Integers beyond 64 bits would be rounded to floats.
        if kinds != {int} or array.dtype.kind == "i":
            return array
    elif kinds == {str} and all(len(one) <= _WIDEST and one[-1:] != "\0" for one in values):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
