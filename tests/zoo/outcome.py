"""The outcome of serving a model: right, refused in one line, or a fault."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from actvec.server.config import ModelOptions
from actvec.server.engine.load import load_engine
from actvec.server.engine.memory import step_budget
from actvec.server.engine.packed import Engine
from actvec.server.engine.runner import StepRunner
from actvec.server.engine.step import StepDocument
from actvec.server.errors import StartupError
from actvec.server.model.text.tokenizer import Tokenizer
from tests.server.reference import reference_pools, relative_error
from tests.zoo.entries import Entry
from tests.zoo.reference import NoReferenceError, reference_states
from tests.zoo.shrinking import CONTEXT

WORST = 1e-5
_SHORTER = (1, 2, 5, 70)
_TWICE = 40


@dataclass(frozen=True)
class Outcome:
    """The outcome of an entry of the zoo.

    Attributes:
        entry: The entry.
        engine: The engine's name; None without one.
        error: The worst relative L2 error of a document's pools; None if nothing was compared.
        context: The context in tokens.
        invariant: Whether each document alone gave the same bits as in the step.
        refusal: Why the server refused the model.
        fault: Why this outcome is a fault; None if it is not.
        seconds: How long building, serving and comparing took.
    """

    entry: Entry
    engine: str | None = None
    error: float | None = None
    context: int | None = None
    invariant: bool | None = None
    refusal: str | None = None
    fault: str | None = None
    seconds: float = 0.0


class OutOfTimeError(Exception):
    """An entry took too long."""


def outcome_of(entry: Entry, directory: Path, seconds: float = 90.0) -> Outcome:
    """Build the model, serve it in this process, and compare.

    Args:
        entry: The entry to build.
        directory: An existing, empty directory for the model.
        seconds: A limit after which the entry is given up (in the main thread only).
    """
    began = time.monotonic()
    try:
        with _limit(seconds):
            module = entry.build()
            entry.save(module, directory)
            found = _served(entry, module, directory)
    except Exception as error:
        found = {"fault": f"{type(error).__name__}: {_one_line(error)}"}
    return Outcome(entry, seconds=time.monotonic() - began, **found)


def _served(entry: Entry, module: PreTrainedModel, directory: Path) -> dict[str, object]:
    try:
        engine = start(entry, directory)
    except StartupError as refusal:
        text = str(refusal)
        fault = "a refusal of several lines" if "\n" in text else None
        if entry.must == "serve":
            fault = "refused, but it can be served"
        return {"refusal": _one_line(refusal), "fault": fault}
    found: dict[str, object] = {"engine": engine.name, "context": engine.card.context}
    if entry.must == "refuse":
        return found | {"fault": "served, but it must be refused"}
    documents = mixed_documents(engine.card.context, entry.vocabulary)
    step = _pools(engine, documents)
    found["invariant"] = all(
        np.array_equal(_pools(engine, [ids])[0], pools)
        for ids, pools in zip(documents, step, strict=True)
    )
    try:
        states = reference_states(module, documents, engine.card.layers)
    except NoReferenceError as error:
        return found | {"fault": f"served, though {error}"}
    found["error"] = worst = max(
        relative_error(pools, reference_pools(state))
        for pools, state in zip(step, states, strict=True)
    )
    if not worst <= WORST:
        found["fault"] = f"wrong by {worst:.1e}"
    return found


def start(entry: Entry, directory: Path) -> Engine:
    """The engine that `actvec-server` would use, after everything it does before it is ready.

    Raises:
        StartupError: it refuses the model.
    """
    asked = entry.options(directory)
    options = ModelOptions(model=str(directory), dtype="float32", device="cpu", **asked)
    engine, loaded = load_engine(options)
    context = engine.card.context
    Tokenizer(loaded.tokenizer, context, bos=loaded.bos, vocabulary=loaded.vocabulary)
    step_budget(engine, None, context)
    return engine


def mixed_documents(context: int, vocabulary: int) -> list[NDArray[np.int64]]:
    """Ids `[T]` of documents of mixed lengths: one of them the longest, one of them twice.

    The longest exceeds every window, chunk and threshold in the zoo's configs.
    """
    random = np.random.default_rng(5)
    longest = min(context, CONTEXT)
    lengths = [min(length, context) for length in (_TWICE, longest, *_SHORTER)]
    documents = [random.integers(3, vocabulary, length) for length in lengths]
    return [*documents, documents[0]]


def _pools(engine: Engine, documents: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
    """The pools `[K, D]` of each document of one step, in the order of mode `long`."""
    found = []
    for pools in StepRunner(engine)([StepDocument.of(ids, "long") for ids in documents]):
        if isinstance(pools, Exception):
            raise pools
        found.append(pools[0])
    return found


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in this thread after a time."""

    def give_up(_number: int, _frame: object) -> None:
        raise OutOfTimeError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
