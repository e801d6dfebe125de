"""A job over many workers, from its plan to its cost, as `modal run ...::corpus_mean` runs it."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict

from actvec.client.corpora.tokenizing import TokenCounter
from actvec.client.documents import Columns, open_documents
from actvec.client.errors import InvalidArgument, UnsupportedInput
from actvec.client.planning.estimate import (
    FRACTION_OF_PEAK,
    Estimate,
    Figure,
    context_figure,
    known_for_rate,
    measure_load,
    price_figure,
    rate_figure,
    start_figure,
)
from actvec.client.planning.prices import card_name
from actvec.client.records.settings import Truncation
from actvec.modal.sharding import columns_of, merge_means, run_shards, shards_of
from actvec.modal.volume import Site
from actvec.server.errors import RequestError
from actvec.server.means.naming import checked_name
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.shards.merging import describe_skipped


class ShardArguments(TypedDict):
    """The arguments of every shard of a job; see `sharding.ShardRunner`."""

    kind: str
    corpus: str
    name: str
    options: dict[str, Any]


# Computes shards in parallel, each by a worker; yields the result or error of each, in order.
Compute = Callable[[Sequence[str], ShardArguments], Iterable[dict[str, Any] | BaseException]]


@dataclass(frozen=True)
class Figures:
    """The numbers behind an estimate; None for those in the tables of `actvec plan`.

    Attributes:
        model: The model whose tokenizer counts.
        gpu: The card of a worker.
        tokens_per_second: The measured rate of one worker, if known.
        price_per_hour: Dollars per hour of one worker.
    """

    model: str
    gpu: str
    tokens_per_second: float | None = None
    price_per_hour: float | None = None

    @property
    def card(self) -> str:
        """The card, by its name in the table of prices."""
        return card_name(self.gpu)

    def price(self) -> Figure | None:
        """Dollars per hour of a worker; None if the card is in no table."""
        try:
            return price_figure(self.card, self.price_per_hour)
        except InvalidArgument:
            return None

    def plan(
        self, corpus: Path, columns: Columns, workers: int, truncation: Truncation
    ) -> Estimate:
        """Measure a corpus, and estimate its time and cost with a number of workers.

        Raises:
            InvalidArgument: a number is in no table, or the model does not fit the card.
            UnsupportedInput: the corpus or the tokenizer cannot be read.
        """
        gpu = self.card
        price = price_figure(gpu, self.price_per_hour)
        if self.tokens_per_second is None:
            # Checked first: to count a large corpus takes a while.
            known_for_rate(gpu, self.model)
        load = measure_load(
            open_documents(corpus, columns=columns),
            TokenCounter(_tokenizer_of(self.model)),
            context=int(context_figure(self.model, None).value),
            truncation=truncation,
        )
        rate = rate_figure(
            gpu, self.model, load, given=self.tokens_per_second, fraction=FRACTION_OF_PEAK
        )
        return Estimate(load, workers, rate, price, start_figure(None))


def _tokenizer_of(model: str) -> str:
    # The demo model's tokenizer is not on the hub.
    return str(files("actvec.server") / "model/demo") if model == "demo" else model


class Coordinator:
    """Plans a job, runs its shards, merges the results, and reports the cost.

    Args:
        site: The files of this machine.
        compute: Runs shards on workers.
        mean_id: Asks a worker for the present id of the mean with a name, or of `latest`.
        figures: The numbers behind the estimate.
        echo: Called with each line of output for people.
    """

    def __init__(
        self,
        site: Site,
        compute: Compute,
        mean_id: Callable[[str], str],
        figures: Figures,
        echo: Callable[[str], None] = print,
    ) -> None:
        self._site = site
        self._compute = compute
        self._mean_id = mean_id
        self._figures = figures
        self._echo = echo

    def mean(self, corpus: str, name: str, shards: int, options: Mapping[str, Any]) -> MeanRecord:
        """Compute the mean of a corpus and store it on the volume. Run it again to resume it.

        Args:
            corpus: Its name in `corpora/` on the volume.
            name: The mean's name.
            shards: Number of workers.
            options: `truncation`, `variance`, and the fields of the corpus (`column`, `id_column`),
                if they are not the defaults.

        Raises:
            RequestError: a name is invalid or taken, or the corpus has no usable document.
            InvalidArgument: the model does not fit the card.
            UnsupportedInput: the corpus cannot be read.
            NoShardsError: some shards failed.
            MeanNotFoundError: the volume lost a shard's mean; run it again.
        """
        self._check_free(name)
        documents = self._plan(corpus, shards, options)
        parts = shards_of(min(shards, documents))
        done = self._run("mean", parts, corpus, name, options)
        made = merge_means(self._site, name, dict(zip(parts, done, strict=True)))
        self._echo(
            f"mean {made.name} ({made.id}): {made.documents:,} documents of {made.tokens:,} tokens"
        )
        for line in describe_skipped(made.skipped):
            self._echo(line)
        self._price(done)
        return made

    def vectors(
        self, corpus: str, name: str, shards: int, options: Mapping[str, Any], center: str = ""
    ) -> list[dict[str, Any]]:
        """Compute the vectors of a corpus into `vectors/NAME` on the volume; list shards' results.

        Args:
            corpus: Its name in `corpora/` on the volume.
            name: The folder's name.
            shards: Number of workers.
            options: The `format` of the files, the settings of the vectors, and the fields of the
                corpus (`column`, `id_column`, and `keep`, a list), if they are not the defaults.
            center: The mean to subtract: an id, a name or `latest`; empty for raw vectors.

        Raises:
            RequestError: a name is invalid, or the corpus is empty.
            InvalidArgument: the model does not fit the card.
            UnsupportedInput: the corpus cannot be read.
            NoShardsError: some shards failed; the others are stored.
        """
        documents = self._plan(corpus, shards, options)
        parts = shards_of(min(shards, documents))
        if center:
            # All shards use the same mean, even if another is stored meanwhile.
            options = {**options, "center": self._mean_id(center)}
        done = self._run("vectors", parts, corpus, name, options)
        made, failed = sum(part["vectors"] for part in done), sum(part["failed"] for part in done)
        first = next((part["first_error"] for part in done if part["failed"]), "")
        because = f"; the first is {first}" if failed else ""
        self._echo(
            f"{made:,} vectors in vectors/{name} of the volume;"
            f" {failed:,} documents failed{because}"
        )
        self._price(done)
        return done

    def _check_free(self, name: str) -> None:
        """Check that the mean does not exist yet, before spending hours on it."""
        store = MeanStore(self._site.local / "means", replica=self._site.replica())
        for record in store.records():
            if record.name == checked_name(name):
                raise RequestError(
                    "name",
                    f"is {name!r}, the name of a mean already: {record.id} of"
                    f" {record.documents:,} documents. Give another name, or delete it first",
                )

    def _plan(self, corpus: str, shards: int, options: Mapping[str, Any]) -> int:
        """Print an estimate, or that there is none; return the number of documents."""
        shards_of(shards)
        path, columns = self._site.corpus(corpus), columns_of(options)
        try:
            truncation = options.get("truncation", "error")
            plan = self._figures.plan(path, columns, shards, truncation)
        except (InvalidArgument, UnsupportedInput) as error:
            if error.setting == "gpu":
                raise
            documents = sum(1 for _ in open_documents(path, columns=columns))
            self._echo(f"plan: {documents:,} documents; no estimate is available: {error}")
        else:
            documents = plan.load.documents
            self._report(plan)
        if not documents:
            raise RequestError("corpus", f"{corpus!r} holds no document")
        sys.stdout.flush()
        return documents

    def _report(self, plan: Estimate) -> None:
        load, rate, price = plan.load, plan.tokens_per_second, plan.price_per_hour
        self._echo(
            f"plan: {load.documents:,} documents, {load.tokens:,} tokens;"
            f" {plan.workers} x {self._figures.card} at {rate.value:,.0f} tokens/s"
            f" ({'given' if rate.given else 'assumed'}) and ${price.value:.2f} an hour:"
            f" {_duration(plan.seconds)}, ${plan.dollars:.2f} for GPUs"
        )
        if load.unreadable or load.over_context:
            self._echo(
                f"plan: {load.unreadable:,} documents are unreadable or blank,"
                f" {load.over_context:,} over the context"
            )

    def _run(
        self, kind: str, parts: Sequence[str], corpus: str, name: str, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        began = time.monotonic()
        arguments: ShardArguments = {
            "kind": kind,
            "corpus": corpus,
            "name": name,
            "options": dict(options),
        }
        done = run_shards(parts, lambda left: self._compute(left, arguments))
        self._echo(f"{len(parts)} shards in {_duration(time.monotonic() - began)}")
        return done

    def _price(self, done: Sequence[Mapping[str, Any]]) -> None:
        seconds = sum(part["worker_seconds"] for part in done)
        price = self._figures.price()
        cost = ""
        if price is not None:
            cost = f": ${seconds / 3600 * price.value:.2f} at ${price.value:.2f} an hour"
        self._echo(
            f"workers computed for {_duration(seconds)} together{cost}; starts, idle time and"
            " attempts that failed come on top"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
