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


@dataclass(frozen=True)
class Plan:
    """A pass over a corpus before it starts; a figure of None is looked up or assumed.

    Attributes:
        gpu: The card of each machine, in upper or lower case.
        model: The model.
        workers: Number of machines.
        tokenizer: What `TokenCounter` takes; None for the model's.
        context: The model's context in tokens, BOS included.
        truncation: How to treat longer documents.
        tokens_per_second: The measured rate of one machine.
        fraction: Without it, the assumed fraction of the card's peak.
        price_per_hour: Dollars per hour of one machine.
        start_seconds: Seconds from a machine's start until it computes.

    Examples:
        >>> estimate = Plan("H100", workers=4).estimate(open_documents("corpus.jsonl"))
        >>> estimate.dollars
    """

    gpu: str
    model: str = "EleutherAI/pythia-12b"
    workers: int = 1
    tokenizer: str | None = None
    context: int | None = None
    truncation: Truncation = "error"
    tokens_per_second: float | None = None
    fraction: float = FRACTION_OF_PEAK
    price_per_hour: float | None = None
    start_seconds: float | None = None

    @property
    def card(self) -> str:
        """The card, by its name in `CARDS` if it has one."""
        return next((name for name in CARDS if name.lower() == self.gpu.lower()), self.gpu)

    def estimate(self, documents: Iterable[Document | Failure]) -> Estimate:
        """Measure documents, as `open_documents` gives them, and estimate their time and cost.

        Raises:
            InvalidArgument: a figure is not given and unknown, or the model does not fit the card.
            UnsupportedInput: the tokenizer cannot be read.
        """
        price = self.price()
        if self.tokens_per_second is None:
            # Checked first: to count a large corpus takes a while.
            self._known()
        load = measure_load(
            documents,
            TokenCounter(self.tokenizer or self.model),
            context=int(self.model_context().value),
            truncation=self.truncation,
        )
        return Estimate(load, self.workers, self.rate(load), price, self.start())

    def price(self) -> Figure:
        """Dollars per hour of a machine.

        Raises:
            InvalidArgument: it is neither given nor in the table.
        """
        if self.price_per_hour is not None:
            return Figure(self.price_per_hour)
        if self.card not in CARDS:
            *names, last = CARDS
            raise InvalidArgument(
                f"the price of {self.card} is unknown, only those of {', '.join(names)} and "
                f"{last} are known; give it",
                setting="price_per_hour",
            )
        return Figure(CARDS[self.card].price_per_hour, PRICES_FROM, given=False)

    def start(self) -> Figure:
        """Seconds from the start of a machine until it computes."""
        if self.start_seconds is not None:
            return Figure(self.start_seconds)
        return Figure(_START_SECONDS, "assumed, not measured", given=False)

    def model_context(self) -> Figure:
        """The context of the model in tokens."""
        if self.context is not None:
            return Figure(self.context)
        if (shape := shape_of(self.model)) is None:
            return Figure(_CONTEXT, f"assumed, {self.model} is unknown here", given=False)
        return Figure(shape.context, f"that of {self.model}", given=False)

    def rate(self, load: Load) -> Figure:
        """Tokens per second of one machine, given or assumed from the card's peak.

        Raises:
            InvalidArgument: no rate is given, and the card or the model is unknown or does not fit.
        """
        if self.tokens_per_second is not None:
            return Figure(self.tokens_per_second)
        card, shape = self._known()
        # If there is nothing to compute, the cost of any one token.
        tokens = max(load.tokens, 1)
        per_token = shape.flops(tokens, load.squares) / tokens
        return Figure(
            self.fraction * card.peak / per_token,
            f"assumed, not measured: {self.fraction:g} of the {card.peak / 1e12:,.0f} TFLOP/s of"
            f" {self.card}, at {per_token / 1e9:.3g} GFLOP per token in the {shape.blocks} blocks"
            " that run",
            given=False,
        )

    def _known(self) -> tuple[Card, Shape]:
        """The facts from which `rate` assumes a rate."""
        card, shape = CARDS.get(self.card), shape_of(self.model)
        if card is None or shape is None:
            what = f"the card {self.card}" if card is None else f"the model {self.model}"
            raise InvalidArgument(
                f"the speed of {what} is unknown here; give what you measured",
                setting="tokens_per_second",
            )
        if shape.weights > card.memory:
            raise InvalidArgument(
                f"{self.model} does not fit a {self.card}: {shape.weights / 1e9:.1f} GB of weights"
                f" are loaded, and it has {card.memory / 1e9:.0f} GB; take another card",
                setting="gpu",
            )
        return card, shape
