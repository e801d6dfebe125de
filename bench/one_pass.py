"""`python -m bench.one_pass`: what more layers, more pools, short documents and a span cost.

Ratios of CPU time of one thread, of work done in turn: another program on the machine changes them
little.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from actvec.pooling import Pools, as_pools
from actvec.server.engine.memory import DEFAULT_STEP_TOKENS
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.extraction.contents import Span, TextContent
from actvec.server.extraction.reading import Reader
from actvec.server.extraction.recipe import Recipe
from actvec.server.extraction.settings import Settings
from actvec.server.heap import keep_freed_memory
from actvec.server.model.stamp import Truncation
from actvec.server.model.target import Target
from actvec.server.model.text.tokenized import TokenizedDocument
from actvec.server.model.text.tokenizer import Tokenizer
from bench.arguments import add_rounds, add_shape, arguments
from bench.workload import SHAPES, Ids, Workload, random_documents

FOUR_POOLS = ("last", "mean", "exp:0.1", "exp_933")
STEP = DEFAULT_STEP_TOKENS["cpu"]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Seconds of the CPU that a call takes of this thread."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def ratios(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Each work's CPU time as a multiple of the first one's: the median over the rounds.

    Args:
        works: By name; each is done once before it is timed.
        rounds: How often each is timed, one after the other.
    """
    for work in works.values():
        work()
    seconds = [{name: cpu_seconds(work) for name, work in works.items()} for _ in range(rounds)]
    first = next(iter(works))
    return {name: statistics.median(one[name] / one[first] for one in seconds) for name in works}


class Bench:
    """An engine, and steps for it.

    Args:
        shape: The model's, by name.
    """

    def __init__(self, shape: str) -> None:
        self.shape = SHAPES[shape]
        self.workload = Workload(self.shape, 48)
        self.loaded = self.workload.load("float32")
        self.engine = PackedEngine(self.loaded)

    def layers(self) -> dict[str, Callable[[], object]]:
        """The default, and everything that is loaded."""
        some = _steps(random_documents(self.shape, 40, median=250))
        card = self.engine.card
        everything = Target(tuple(card.layers_on_offer), separate=True)
        return {
            "three layers averaged, short": lambda: self._run(some, "short", card.target),
            f"{len(everything.layers)} layers separate, 4 pools": lambda: self._run(
                some, FOUR_POOLS, everything
            ),
        }

    def lengths(self) -> dict[str, Callable[[], object]]:
        """As many tokens in documents of each length."""

        def of(length: int) -> Callable[[], object]:
            steps = _steps([np.ones(length, dtype=np.int64)] * (4 * STEP // length))
            return lambda: self._run(steps, "long", self.engine.card.target)

        return {f"documents of {length} tokens": of(length) for length in (256, 64, 32, 16)}

    def spans(self) -> dict[str, Callable[[], object]]:
        """From texts to vectors, with a pool of all tokens and with one of a span's."""
        loaded = self.loaded
        tokenizer = Tokenizer(
            loaded.tokenizer, self.shape.context, bos=loaded.bos, vocabulary=loaded.vocabulary
        )
        read = Reader(tokenizer, 1 << 22)
        texts = [text for text in self.workload.texts if len(text) < 1 << 12]

        def of(pools: Sequence[str]) -> Callable[[], object]:
            target = self.engine.card.target
            settings = Settings(as_pools(pools), target, Truncation.KEEP_START, "", True)
            recipe = Recipe(settings, None)

            def run() -> None:
                documents = []
                for text in texts:
                    content = TextContent(text, (Span("half", 0, len(text) // 2),))
                    document = read(content, settings)
                    assert isinstance(document, TokenizedDocument)
                    documents.append(recipe.step_document(document))
                for step in _steps(documents):
                    self.engine.run(step)

            return run

        return {"texts, pool mean": of(["mean"]), "texts, pool span:half": of(["span:half"])}

    def _run(self, steps: Sequence[Sequence[Ids]], pools: Pools, target: Target) -> None:
        for step in steps:
            self.engine.run([StepDocument.of(ids, pools, target=target) for ids in step])


def _steps(documents: Sequence[Any]) -> list[list[Any]]:
    """Documents in their order, as many as fit a step."""
    steps: list[list[Any]] = [[]]
    for document in documents:
        if steps[-1] and sum(_tokens(one) for one in [*steps[-1], document]) > STEP:
            steps.append([])
        steps[-1].append(document)
    return steps


def _tokens(document: Ids | StepDocument) -> int:
    return document.tokens if isinstance(document, StepDocument) else len(document)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = arguments("one_pass", __doc__)
    add_shape(parser, ["tiny", "70m", "160m"])
    add_rounds(parser, 7)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    bench = Bench(options.shape)
    print("| steps of 2048 tokens, one thread | CPU time |")
    print("| --- | ---: |")
    for works in (bench.layers(), bench.lengths(), bench.spans()):
        for name, ratio in ratios(works, options.rounds).items():
            print(f"| {name} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
