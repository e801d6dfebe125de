"""Estimates the time and cost of a pass over a corpus, before anything starts."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.errors import InvalidArgument
from actvec.client.messages.documents import check_utf8
from actvec.client.planning.prices import CARDS, PRICES_FROM, Card, Shape, shape_of
from actvec.client.records.settings import Truncation
from actvec.client.records.vectors import Document, Failure

# Number of documents to tokenize at a time.
_BATCH = 64

# A cold start that reads the 18 GB of Pythia-12B; not measured.
_START_SECONDS = 120.0

# Assumed fraction of a card's peak that a pass over a corpus reaches.
FRACTION_OF_PEAK = 0.5

# The context of every Pythia, and of most models.
_CONTEXT = 2048


@dataclass(frozen=True)
class Load:
    """The work of a corpus for a server.

    Attributes:
        documents: Number of documents.
        unreadable: Documents that cannot be read or sent, or are blank: they fail, at no cost.
        over_context: Documents longer than the context.
        tokens: Tokens to compute.
        squares: Sum of the squares of the documents' tokens to compute.
        longest_tokens: Tokens of the longest document, in full.
    """

    documents: int = 0
    unreadable: int = 0
    over_context: int = 0
    tokens: int = 0
    squares: int = 0
    longest_tokens: int = 0


def measure_load(
    source: Iterable[Document | Failure],
    counter: TokenCounter,
    *,
    context: int,
    truncation: Truncation = "error",
) -> Load:
    """Measure a corpus.

    Args:
        source: The documents, from `open_documents`.
        counter: The model's tokenizer.
        context: The model's context in tokens, BOS included.
        truncation: How to treat longer documents: with `error` they fail, at no cost.
    """
    documents = unreadable = over = tokens = squares = longest = 0
    items = iter(source)
    while batch := list(itertools.islice(items, _BATCH)):
        readable = [item for item in batch if isinstance(item, Document) and _computable(item)]
        documents += len(batch)
        unreadable += len(batch) - len(readable)
        for count in counter.count_documents(readable):
            longest = max(longest, count)
            over += count > context
            computed = count if count <= context else 0 if truncation == "error" else context
            tokens += computed
            squares += computed**2
    return Load(documents, unreadable, over, tokens, squares, longest)


def _computable(document: Document) -> bool:
    """Whether a server computes its vector, however long it is."""
    try:
        check_utf8(document)
    except InvalidArgument:  # `stream` turns it into a failure
        return False
    return document.token_ids is not None or bool(document.content.strip())


@dataclass(frozen=True)
class Figure:
    """A number behind an estimate.

    Attributes:
        value: The number.
        origin: Its origin, in words.
        given: Whether the user gave it.
    """

    value: float
    origin: str = "given"
    given: bool = True


@dataclass(frozen=True)
class Estimate:
    """The time and cost of a pass over a corpus: machines share it evenly, each started once.

    Attributes:
        load: The corpus.
        workers: Number of machines.
        tokens_per_second: Rate of one machine.
        price_per_hour: Dollars per hour of one machine.
        start_seconds: Seconds from a machine's start until it computes.
    """

    load: Load
    workers: int
    tokens_per_second: Figure
    price_per_hour: Figure
    start_seconds: Figure

    @property
    def _computing(self) -> float:
        return self.load.tokens / self.tokens_per_second.value

    @property
    def seconds(self) -> float:
        """Seconds until everything is done."""
        return self.start_seconds.value + self._computing / self.workers

    @property
    def dollars(self) -> float:
        """Dollars for the GPUs, their starts included; other resources and idle time cost extra."""
        billed = self.workers * self.start_seconds.value + self._computing
        return billed / 3600 * self.price_per_hour.value


def price_figure(gpu: str, given: float | None) -> Figure:
    """The price of a card's hour, given or from the table.

    Raises:
        InvalidArgument: it is neither given nor in the table.
    """
    if given is not None:
        return Figure(given)
    if gpu not in CARDS:
        *names, last = CARDS
        raise InvalidArgument(
            f"the price of {gpu} is unknown, only those of {', '.join(names)} and "
            f"{last} are known; give it",
            setting="price_per_hour",
        )
    return Figure(CARDS[gpu].price_per_hour, PRICES_FROM, given=False)


def start_figure(given: float | None) -> Figure:
    """Seconds from the start of a worker until it computes, given or assumed."""
    if given is not None:
        return Figure(given)
    return Figure(_START_SECONDS, "assumed, not measured", given=False)


def context_figure(model: str, given: int | None) -> Figure:
    """The context of a model in tokens: given, known, or assumed."""
    if given is not None:
        return Figure(given)
    if (shape := shape_of(model)) is None:
        return Figure(_CONTEXT, f"assumed, {model} is unknown here", given=False)
    return Figure(shape.context, f"that of {model}", given=False)


def known_for_rate(gpu: str, model: str) -> tuple[Card, Shape]:
    """The facts from which `rate_figure` assumes a rate.

    Raises:
        InvalidArgument: the card or the model is unknown here, or the card is too small for it.
    """
    card, shape = CARDS.get(gpu), shape_of(model)
    if card is None or shape is None:
        what = f"the card {gpu}" if card is None else f"the model {model}"
        raise InvalidArgument(
            (f"the speed of {what} is unknown here; give what you measured"),
            setting="tokens_per_second",
        )
    if shape.weights > card.memory:
        raise InvalidArgument(
            f"{model} does not fit a {gpu}: {shape.weights / 1e9:.1f} GB of weights are loaded, and"
            f" it has {card.memory / 1e9:.0f} GB; take another card",
            setting="gpu",
        )
    return card, shape


def rate_figure(
    gpu: str, model: str, load: Load, *, given: float | None, fraction: float
) -> Figure:
    """Tokens per second of one card: given, or assumed from the card's peak.

    Args:
        gpu: The card.
        model: The model.
        load: The work to do.
        given: Measured tokens per second, if any.
        fraction: Otherwise, the assumed fraction of the card's peak.

    Raises:
        InvalidArgument: no rate is given, and the card or the model is unknown or does not fit.
    """
    if given is not None:
        return Figure(given)
    card, shape = known_for_rate(gpu, model)
    # If there is nothing to compute, the cost of any one token.
    tokens = max(load.tokens, 1)
    per_token = shape.flops(tokens, load.squares) / tokens
    return Figure(
        fraction * card.peak / per_token,
        (
            f"assumed, not measured: {fraction:g} of the {card.peak / 1e12:,.0f} "
            f"TFLOP/s of {gpu}, at {per_token / 1e9:.3g} GFLOP per token in the "
            f"{shape.blocks} blocks that run"
        ),
        given=False,
    )
