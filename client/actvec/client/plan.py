"""What a pass over a corpus takes and costs, reckoned before anything is started."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.errors import InvalidArgument
from actvec.client.prices import CARDS, PRICES_FROM, Card, Shape, shape_of
from actvec.client.vectors import Document, Failure, Truncation
from actvec.client.wire import encode_text

# Documents whose tokens are counted at a time.
_BATCH = 64

# A cold start that reads the 18 GB of Pythia-12B. Nobody has measured one.
_START_SECONDS = 120.0

# Of most models, as of every Pythia.
_CONTEXT = 2048


@dataclass(frozen=True)
class Load:
    """What a corpus gives a server to do.

    Attributes:
        documents: All documents.
        unreadable: Those that cannot be read or sent, or are blank: they fail, and cost nothing.
        over_context: Those that are longer than the context.
        tokens: Tokens that are computed.
        squares: The sum of the squares of the documents' computed tokens.
        longest_tokens: Tokens of the longest document, all of it.
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
    """Count a corpus.

    Args:
        source: The documents, as `open_documents` gives them.
        counter: The model's tokenizer.
        context: Tokens that the model takes, BOS included.
        truncation: What happens to longer documents: with `error` they fail, and cost nothing.
    """
    documents = unreadable = over = tokens = squares = longest = 0
    items = iter(source)
    while batch := list(itertools.islice(items, _BATCH)):
        texts = [item.text for item in batch if isinstance(item, Document) and _computable(item)]
        documents += len(batch)
        unreadable += len(batch) - len(texts)
        for count in counter.count(texts):
            longest = max(longest, count)
            over += count > context
            computed = count if count <= context else 0 if truncation == "error" else context
            tokens += computed
            squares += computed**2
    return Load(documents, unreadable, over, tokens, squares, longest)


def _computable(document: Document) -> bool:
    """Whether a server makes a vector of it, however long it is."""
    try:
        encode_text(document)
    except InvalidArgument:  # `stream` makes a failure of it
        return False
    return bool(document.text.strip())


@dataclass(frozen=True)
class Figure:
    """A number that an estimate stands on.

    Attributes:
        value: The number.
        origin: Where it is from, in words.
        given: Whether whoever asks has given it.
    """

    value: float
    origin: str
    given: bool


@dataclass(frozen=True)
class Estimate:
    """What a pass over a corpus takes.

    Attributes:
        workers: Machines that share it.
        tokens_per_second: Of one of them.
        price_per_hour: Dollars for one of them.
        start_seconds: From the start of a machine until it computes.
        seconds: Until all is done.
        dollars: For the GPUs, their starts included; other resources and idle time come on top.
    """

    workers: int
    tokens_per_second: Figure
    price_per_hour: Figure
    start_seconds: Figure
    seconds: float
    dollars: float


def estimate(
    load: Load,
    *,
    workers: int,
    tokens_per_second: Figure,
    price_per_hour: Figure,
    start_seconds: Figure,
) -> Estimate:
    """Reckon: machines that share the work evenly, each started once."""
    computing = load.tokens / tokens_per_second.value
    billed = workers * start_seconds.value + computing
    return Estimate(
        workers=workers,
        tokens_per_second=tokens_per_second,
        price_per_hour=price_per_hour,
        start_seconds=start_seconds,
        seconds=start_seconds.value + computing / workers,
        dollars=billed / 3600 * price_per_hour.value,
    )


def price_figure(gpu: str, given: float | None) -> Figure:
    """The price of a card's hour, given or from the table.

    Raises:
        InvalidArgument: neither is there.
    """
    if given is not None:
        return Figure(given, "given", given=True)
    card = CARDS.get(gpu)
    if card is None:
        raise InvalidArgument(
            f"no price of {gpu} is known here, only of {_names(list(CARDS))}; give --price-per-hour"
        )
    return Figure(card.price_per_hour, PRICES_FROM, given=False)


def start_figure(given: float | None) -> Figure:
    """Seconds from the start of a worker until it computes, given or assumed."""
    if given is not None:
        return Figure(given, "given", given=True)
    return Figure(_START_SECONDS, "assumed, not measured; --start-seconds", given=False)


def context_figure(model: str, given: int | None) -> Figure:
    """Tokens of a document that a model takes: given, known, or assumed."""
    if given is not None:
        return Figure(given, "given", given=True)
    shape = shape_of(model)
    if shape is None:
        return Figure(_CONTEXT, f"assumed, {model} is not known here; give --context", given=False)
    return Figure(shape.context, f"that of {model}", given=False)


def known_for_rate(gpu: str, model: str) -> tuple[Card, Shape]:
    """What `rate_figure` assumes a rate from.

    Raises:
        InvalidArgument: the card or the model is not known here, or the card is too small for it.
    """
    card, shape = CARDS.get(gpu), shape_of(model)
    if card is None or shape is None:
        what = f"the card {gpu}" if card is None else f"the model {model}"
        raise InvalidArgument(
            f"the speed of {what} is not known here; give --tokens-per-second, as `actvec stream`"
            " shows it"
        )
    if shape.weights > card.memory:
        raise InvalidArgument(
            f"{model} does not fit a {gpu}: {shape.weights / 1e9:.1f} GB of weights are loaded, and"
            f" it has {card.memory / 1e9:.0f} GB; take another --gpu"
        )
    return card, shape


def rate_figure(
    gpu: str, model: str, load: Load, *, given: float | None, fraction: float
) -> Figure:
    """Tokens per second of one card: given, or assumed from what the card can do at most.

    Args:
        gpu: The card.
        model: The model.
        load: What it is to do.
        given: Tokens per second that were measured, where there are.
        fraction: Of the card's peak, that is assumed to be reached otherwise.

    Raises:
        InvalidArgument: nothing is given, and `known_for_rate` knows nothing either.
    """
    if given is not None:
        return Figure(given, "given", given=True)
    card, shape = known_for_rate(gpu, model)
    # Where nothing is left to compute, what any token would take.
    tokens = max(load.tokens, 1)
    per_token = shape.flops(tokens, load.squares) / tokens
    return Figure(
        fraction * card.peak / per_token,
        f"assumed, not measured: --fraction {fraction:g} of the {card.peak / 1e12:,.0f} TFLOP/s of"
        f" {gpu}, at {per_token / 1e9:.3g} GFLOP a token in the {shape.blocks} blocks that run",
        given=False,
    )


def _names(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
