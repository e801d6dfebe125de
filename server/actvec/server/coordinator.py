"""A job over many workers, from its plan to its price: what `modal run ...::corpus_mean` does."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from actvec.server.errors import RequestError
from actvec.server.fanout import merge_means, run_shards, shards_of, told
from actvec.server.means.store import MeanStore, checked_name
from actvec.server.programs import ProgramError, actvec_command
from actvec.server.site import Site
from actvec.v1.means_pb2 import CorpusMean


class ShardArguments(TypedDict):
    """What every shard of a job is told; see `fanout.ShardRunner`."""

    kind: str
    corpus: str
    name: str
    options: dict[str, Any]


# Computes shards at the same time, each by a worker; gives the result or error of each, in order.
Compute = Callable[[Sequence[str], ShardArguments], Iterable[dict[str, Any] | BaseException]]


@dataclass(frozen=True)
class Figures:
    """What a plan is reckoned with; None where the table of `actvec plan` is to say it.

    Attributes:
        model: Whose tokenizer counts.
        gpu: The card of a worker.
        tokens_per_second: Of one worker, where it was measured.
        price_per_hour: Of one worker, in dollars.
        tokenizer: Another tokenizer than the model's.
    """

    model: str
    gpu: str
    tokens_per_second: float | None = None
    price_per_hour: float | None = None
    tokenizer: str | None = None


class Coordinator:
    """Plans a job, has its shards computed, puts them together, and says what it took.

    Args:
        site: The files of the machine that coordinates.
        compute: The workers.
        mean_id: Asks one of them for the id of the mean that a name, or `latest`, is now.
        figures: What the plan is reckoned with.
        echo: Told what people are to see, a line at a time.
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

    def mean(self, corpus: str, name: str, shards: int, options: Mapping[str, Any]) -> CorpusMean:
        """The mean of a corpus, stored on the volume. Run again, it goes on where it was cut short.

        Args:
            corpus: Its name in `corpora/` of the volume.
            name: Names the mean.
            shards: How many workers compute it.
            options: Further ones of `actvec mean compute`.

        Raises:
            RequestError: a name is none or taken, or the corpus has no document that can be used.
            ProgramError: the plan cannot be reckoned; it says what to give.
            NoShardsError: some could not be computed.
            MeanNotFoundError: the volume lost what one had computed; run again.
        """
        self._check_free(name)
        plan = self._plan(corpus, shards, options)
        parts = shards_of(min(shards, plan["documents"]))
        done = self._run("mean", parts, corpus, name, options)
        made = merge_means(self._site, name, dict(zip(parts, done, strict=True)))
        self._echo(
            f"mean {made.name} ({made.id}): {made.documents:,} documents of {made.tokens:,} tokens"
        )
        for line in told(made.skipped):
            self._echo(line)
        self._price(done, plan)
        return made

    def vectors(
        self, corpus: str, name: str, shards: int, options: Mapping[str, Any], center: str = ""
    ) -> list[dict[str, Any]]:
        """The vectors of a corpus, in `vectors/NAME` of the volume; what each shard says.

        Args:
            corpus: Its name in `corpora/` of the volume.
            name: Names the folder.
            shards: How many workers compute them.
            options: Further ones of `actvec stream`.
            center: The mean to subtract: an id, a name or `latest`; empty for raw vectors.

        Raises:
            RequestError: a name is none, or the corpus is empty.
            ProgramError: the plan cannot be reckoned; it says what to give.
            NoShardsError: some could not be computed; the others are there.
        """
        plan = self._plan(corpus, shards, options)
        parts = shards_of(min(shards, plan["documents"]))
        if center:
            # The same for all shards, though another mean be stored while they compute.
            options = {**options, "center": self._mean_id(center)}
        done = self._run("vectors", parts, corpus, name, options)
        made, failed = sum(part["vectors"] for part in done), sum(part["failed"] for part in done)
        self._echo(f"{made:,} vectors in vectors/{name} of the volume; {failed:,} documents failed")
        self._price(done, plan)
        return done

    def _check_free(self, name: str) -> None:
        """See that no hours are spent on a mean that is there."""
        store = MeanStore(self._site.local / "means", replica=self._site.replica())
        for record in store.records():
            if record.name == checked_name("name", name):
                raise RequestError(
                    "name",
                    f"is {name!r}: there is a mean of it already, {record.id} of"
                    f" {record.documents:,} documents. Give another, or delete that first",
                )

    def _plan(self, corpus: str, shards: int, options: Mapping[str, Any]) -> dict[str, Any]:
        figures = self._figures
        shards_of(shards)
        command = actvec_command(
            *("plan", str(self._site.corpus(corpus))),
            model=figures.model,
            tokenizer=figures.tokenizer,
            gpu=figures.gpu,
            workers=shards,
            truncation=options.get("truncation", "error"),
            tokens_per_second=figures.tokens_per_second,
            price_per_hour=figures.price_per_hour,
            json=True,
        )
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program, without a shell
        if ended.returncode not in {0, 1}:
            raise ProgramError(ended.stderr.strip())
        plan: dict[str, Any] = json.loads(ended.stdout)
        if not plan["documents"]:
            raise RequestError("corpus", f"{corpus!r} holds no document")
        self._echo(
            f"plan: {plan['documents']:,} documents, {plan['tokens']:,} tokens;"
            f" {plan['workers']} x {plan['gpu']} at {plan['tokens_per_second']:,.0f} tokens/s"
            f" ({plan['tokens_per_second_from']}) and ${plan['price_per_hour']:.2f} an hour:"
            f" {_duration(plan['seconds'])}, ${plan['dollars']:.2f} for GPUs"
        )
        failing = plan["unreadable"] + plan["over_context"]
        if failing:
            self._echo(
                f"plan: {plan['unreadable']:,} documents are unreadable or blank,"
                f" {plan['over_context']:,} over the context"
            )
        sys.stdout.flush()
        return plan

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

    def _price(self, done: Sequence[Mapping[str, Any]], plan: Mapping[str, Any]) -> None:
        seconds = sum(part["worker_seconds"] for part in done)
        self._echo(
            f"workers computed for {_duration(seconds)} together:"
            f" ${seconds / 3600 * plan['price_per_hour']:.2f} at ${plan['price_per_hour']:.2f} an"
            " hour; starts, idle time and attempts that failed come on top"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
