"""The contenders: each turns the same documents into the same vectors, as a user might."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from actvec.client import Client, Vector
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.pools import Pools, StepPooling
from actvec.server.engine.step import DeviceSums, StepDocument
from actvec.server.extraction.scheduler import Scheduler
from actvec.server.model.bridge import default_bridge
from actvec.server.model.target import Target
from bench.serving import ServerProcess
from bench.workload import Ids


class Contender(Protocol):
    """A program that computes vectors.

    Attributes:
        name: Its name in the table.
        comparable: Whether its vectors equal ours.
    """

    name: str
    comparable: bool

    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the pools `[1, K, D]` of each document."""
        ...


class Packed:
    """This project's engine under its scheduler, with all documents queued in one bulk lane."""

    comparable = True

    def __init__(self, engine: PackedEngine, step_tokens: int, *, mean: bool = False) -> None:
        also = ", corpus mean too" if mean else ""
        self.name = f"actvec, packed steps of {step_tokens} tokens{also}"
        self._step_tokens = step_tokens
        self._engine = engine
        card = engine.card
        self._sums = (
            DeviceSums(card.d_model, card.device, variance=False, longest=card.context)
            if mean
            else None
        )

    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the pools of each document."""
        results = asyncio.run(self._schedule(documents))
        return [result for result in results if not isinstance(result, Exception)]

    async def _schedule(self, documents: Sequence[Ids]) -> list[Pools | Exception]:
        scheduler = Scheduler[StepDocument, Pools](
            step_tokens=self._step_tokens, queued_tokens=sum(map(len, documents))
        )
        results: dict[int, Pools | Exception] = {}
        lane = scheduler.lane()
        for index, ids in enumerate(documents):
            document = StepDocument.of(ids, "long", sums=self._sums)
            await lane.put(document, len(ids), partial(results.__setitem__, index))
        scheduler.refuse()
        scheduler.start(_ThisThread(), self._engine.run)
        await scheduler.drain()
        return [results[index] for index in range(len(documents))]


class _ThisThread(Executor):
    """Runs each function at once. A second thread of torch would keep OpenMP's from spinning."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


class Served:
    """This project's server of the same model, in one `StreamVectors` call."""

    comparable = True

    def __init__(self, server: ServerProcess, texts: Sequence[str]) -> None:
        self.name = "actvec, StreamVectors over a local connection"
        self._texts = texts
        self._client = Client(server.target)

    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the pools of each document; `documents` are the ids of its texts."""
        results = list(
            self._client.stream(self._texts, mode="long", truncation="start", ordered=True)
        )
        assert len(results) == len(documents)
        return [result.matrix[None] for result in results if isinstance(result, Vector)]


class Lens:
    """TransformerLens' default bridge, one document at a time.

    Args:
        module: A model loaded `whole`.
        layers: The layers whose residual streams are pooled.
        filtered: Whether to cache only these, and to stop the model after them.
    """

    comparable = True

    def __init__(self, module: PreTrainedModel, layers: tuple[int, ...], *, filtered: bool) -> None:
        self.name = "TransformerLens per document, " + (
            "names_filter and stop_at_layer" if filtered else "run_with_cache of everything"
        )
        self._device = module.device
        self._hooks = [f"blocks.{layer}.hook_resid_post" for layer in layers]
        self._bridge = default_bridge(module, len(module.base_model.layers))
        self._options = (
            {"names_filter": self._hooks, "stop_at_layer": layers[-1] + 1} if filtered else {}
        )

    @torch.inference_mode()
    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the pools of each document."""
        return [self._run_one(ids) for ids in documents]

    def _run_one(self, ids: Ids) -> Pools:
        _, cache = self._bridge.run_with_cache(
            torch.from_numpy(ids)[None].to(self._device), **self._options
        )
        return pool_document([cache[hook][0] for hook in self._hooks], ids)


class Padded:
    """A transformers model with `output_hidden_states`, in padded batches.

    Args:
        model: The model, with or without an LM head.
        layers: The layers whose residual streams are pooled.
        batch: Documents per batch.
        by_length: Whether to sort documents by length.
        label: Its name in the table.
    """

    comparable = True

    def __init__(
        self,
        model: PreTrainedModel,
        layers: tuple[int, ...],
        *,
        batch: int,
        by_length: bool = False,
        label: str = "transformers",
    ) -> None:
        order = "sorted by length" if by_length else "in arrival order"
        self.name = f"{label}, batches of {batch} padded {order}"
        self._layers = layers
        self._batch = batch
        self._by_length = by_length
        self._model = model

    @torch.inference_mode()
    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the pools of each document, in arrival order."""
        order = list(range(len(documents)))
        if self._by_length:
            order.sort(key=lambda index: len(documents[index]))
        results: dict[int, Pools] = {}
        for start in range(0, len(order), self._batch):
            batch = order[start : start + self._batch]
            pools = self._run_batch([documents[index] for index in batch])
            results.update(zip(batch, pools, strict=True))
        return [results[index] for index in range(len(documents))]

    def _run_batch(self, documents: Sequence[Ids]) -> list[Pools]:
        longest = max(map(len, documents))
        ids = torch.zeros(len(documents), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, document in enumerate(documents):
            ids[row, : len(document)] = torch.from_numpy(document)
            mask[row, : len(document)] = 1
        states = self._model(
            ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        return [
            pool_document(
                [states[layer + 1][row, : len(document)] for layer in self._layers], document
            )
            for row, document in enumerate(documents)
        ]


def pool_document(states: list[torch.Tensor], ids: Ids) -> Pools:
    """Pool one document, as the engine does."""
    target = Target(tuple(range(len(states))))
    pooling = StepPooling([StepDocument.of(ids, "long")], target, states[0].device)
    for point, layer in zip(pooling.points, states, strict=True):
        pooling.take(point, layer)
    (pools,) = pooling.results()
    if isinstance(pools, Exception):
        raise pools
    return pools
