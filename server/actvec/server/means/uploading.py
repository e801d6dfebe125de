"""Checks of a mean made elsewhere: its record must agree with its tensors."""

import re
from dataclasses import replace

import numpy as np

from actvec.pooling import MeanAccumulator
from actvec.server.errors import InputError
from actvec.server.means.format import MOST_DOCUMENTS, MeanTensors
from actvec.server.means.record import MeanRecord

_SHA256 = re.compile(r"(?:[0-9a-f]{64})?")

# How far below 0 rounding may push a variance, as a fraction of the mean square.
_ROUNDING = 1e-6


def uploaded_record(tensors: MeanTensors) -> MeanRecord:
    """Return the record of an uploaded mean: its file's own, checked against its tensors.

    Documents and tokens come from the counts, 0 without them. `corpus_sha256` is dropped: this
    server has not seen the documents.

    Raises:
        InputError: the file's record contradicts its tensors, or a number in it is impossible.
    """
    claimed = tensors.record
    if not _SHA256.fullmatch(claimed.corpus_sha256):
        raise InputError("file", "has a record whose corpus_sha256 is not 64 hexadecimal digits")
    _check_layers(tensors)
    _check_documents(tensors)
    _check_variance(tensors)
    if tensors.accumulator is not None:
        _check_squares(tensors.accumulator)
    mean, counts, sums = tensors.mean, tensors.counts, tensors.accumulator
    max_tokens, d_model = mean.shape[-2:]
    return replace(
        claimed,
        documents=0 if counts is None else int(counts[0]),
        tokens=0 if counts is None else int(counts.sum()),
        d_model=d_model,
        max_tokens=max_tokens,
        has_counts=counts is not None,
        has_variance=sums is not None and sums.squares is not None,
        corpus_sha256="",
    )


def _check_layers(tensors: MeanTensors) -> None:
    """Check that the record names the layers of a mean of separate layers, and of no other.

    Raises:
        InputError: its record and its tensors differ.
    """
    model = tensors.record.model
    named = len(model.layers) if model is not None and model.separate_layers else None
    found = len(tensors.mean) if tensors.mean.ndim == 3 else None
    if named != found:
        raise InputError(
            "file",
            f"has a corpus_mean {list(tensors.mean.shape)} of {_kind(found)}, and a record of "
            f"{_kind(named)}; the record names the layers of a mean of separate ones",
        )


def _kind(layers: int | None) -> str:
    return "averaged layers" if layers is None else f"{layers} separate layers"


def _check_documents(tensors: MeanTensors) -> None:
    """Check the documents and tokens of the record against the counts.

    Raises:
        InputError: they differ, or exceed the limit.
    """
    claimed, counts = tensors.record, tensors.counts
    numbers = [claimed.documents, *(entry.documents for entry in claimed.skipped)]
    if max(numbers) > MOST_DOCUMENTS:
        raise InputError(
            "file",
            (f"has a record of {max(numbers)} documents; a mean has at most {MOST_DOCUMENTS}"),
        )
    if counts is None:
        return
    for name, says, shown in (
        ("documents", claimed.documents, int(counts[0])),
        ("tokens", claimed.tokens, int(counts.sum())),
    ):
        # 0 means unknown.
        if says not in {0, shown}:
            raise InputError(
                "file", f"has a record of {says} {name}, and counts of {shown}: it was altered"
            )


def _check_variance(tensors: MeanTensors) -> None:
    """Check that `corpus_variance` can be a variance: nothing here reads it, but other tools do.

    Raises:
        InputError: it cannot.
    """
    variance, shape = tensors.variance, np.swapaxes(tensors.mean, -1, -2).shape
    if variance is None:
        return
    if (
        variance.dtype != np.float32
        or variance.shape != shape
        or not np.isfinite(variance).all()
        or (variance < 0).any()
    ):
        raise InputError(
            "file",
            (
                "has a corpus_variance that is not finite numbers of at least 0, "
                f"float32 {list(shape)}"
            ),
        )


def _check_squares(sums: MeanAccumulator) -> None:
    """Check that sums of squares are possible for these sums.

    Raises:
        InputError: they are not.
    """
    if sums.squares is None:
        return
    counts = sums.counts[:, None]
    with np.errstate(over="ignore"):  # overflows only if square_sums are too small
        spread = sums.squares / counts - (sums.sums / counts) ** 2
    if not (spread >= -_ROUNDING * sums.squares / counts).all():
        raise InputError(
            "file", "has square_sums that are negative, or smaller than its sums and counts allow"
        )
