"""A job over many workers, from its plan to its cost, as `modal run ...::corpus_mean` runs it."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, TypedDict

from actvec.client.cli.progress import duration
from actvec.client.documents import open_documents
from actvec.client.errors import InvalidArgument, UnsupportedInput
from actvec.client.planning.estimate import Estimate, Plan
from actvec.modal.sharding import columns_of, merge_means, run_shards, shards_of
from actvec.modal.volume import Site
from actvec.server.errors import RequestError
from actvec.server.means.naming import checked_name
from actvec.server.means.record import MeanRecord
from actvec.server.means.store import MeanStore
from actvec.shards.merging import describe_skipped
from actvec.shards.places import MEANS


class ShardArguments(TypedDict):
    """The arguments of every shard of a job; see `sharding.ShardRunner`."""

    kind: str
    corpus: str
    name: str
    options: dict[str, Any]


# Computes shards in parallel, each by a worker; yields the result or error of each, in order.
Compute = Callable[[Sequence[str], ShardArguments], Iterable[dict[str, Any] | BaseException]]


class Coordinator:
    """Plans a job, runs its shards, merges the results, and reports the cost.

    Args:
        site: The files of this machine.
        compute: Runs shards on workers.
        mean_id: Asks a worker for the present id of the mean with a name, or of `latest`.
        plan: The pass of any corpus: the model, the card, and their known figures.
        echo: Called with each line of output for people.
    """

    def __init__(
        self,
        site: Site,
        compute: Compute,
        mean_id: Callable[[str], str],
        plan: Plan,
        echo: Callable[[str], None] = print,
    ) -> None:
        self._site = site
        self._compute = compute
        self._mean_id = mean_id
        if plan.model == "demo":
            # The demo model's tokenizer is not on the hub.
            plan = replace(plan, tokenizer=str(files("actvec.server") / "model/demo"))
        self._plan = plan
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
        documents = self._announce(corpus, shards, options)
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
        documents = self._announce(corpus, shards, options)
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
        store = MeanStore(self._site.local / MEANS, replica=self._site.replica())
        for record in store.records():
            if record.name == checked_name(name):
                raise RequestError(
                    "name",
                    f"is {name!r}, the name of a mean already: {record.id} of"
                    f" {record.documents:,} documents. Give another name, or delete it first",
                )

    def _announce(self, corpus: str, shards: int, options: Mapping[str, Any]) -> int:
        """Print an estimate, or that there is none; return the number of documents."""
        shards_of(shards)
        path, columns = self._site.corpus(corpus), columns_of(options)
        try:
            plan = replace(
                self._plan, workers=shards, truncation=options.get("truncation", "error")
            )
            estimate = plan.estimate(open_documents(path, columns=columns))
        except (InvalidArgument, UnsupportedInput) as error:
            if error.setting == "gpu":
                raise
            documents = sum(1 for _ in open_documents(path, columns=columns))
            self._echo(f"plan: {documents:,} documents; no estimate is available: {error}")
        else:
            documents = estimate.load.documents
            self._report(estimate)
        if not documents:
            raise RequestError("corpus", f"{corpus!r} holds no document")
        sys.stdout.flush()
        return documents

    def _report(self, estimate: Estimate) -> None:
        load, rate, price = estimate.load, estimate.tokens_per_second, estimate.price_per_hour
        self._echo(
            f"plan: {load.documents:,} documents, {load.tokens:,} tokens;"
            f" {estimate.workers} x {self._plan.card} at {rate.value:,.0f} tokens/s"
            f" ({'given' if rate.given else 'assumed'}) and ${price.value:.2f} an hour:"
            f" {duration(estimate.seconds)}, ${estimate.dollars:.2f} for GPUs"
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
        self._echo(f"{len(parts)} shards in {duration(time.monotonic() - began)}")
        return done

    def _price(self, done: Sequence[Mapping[str, Any]]) -> None:
        seconds = sum(part["worker_seconds"] for part in done)
        try:
            price = self._plan.price().value
            cost = f": ${seconds / 3600 * price:.2f} at ${price:.2f} an hour"
        except InvalidArgument:
            cost = ""
        self._echo(
            f"workers computed for {duration(seconds)} together{cost}; starts, idle time and"
            " attempts that failed cost extra"
        )
