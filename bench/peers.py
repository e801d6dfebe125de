"""Other projects' engines, if they are installed: `pip install 'actvec[bench]'`."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from actvec.server.engine.pools import Pools
from bench.contenders import Contender, pool_document
from bench.workload import Ids, Workload


def installed_peers(
    workload: Workload, base: PreTrainedModel, layers: tuple[int, ...]
) -> list[Contender]:
    """Return the peers whose packages are installed; name the others on standard error."""
    peers: list[Contender] = []
    if find_spec("nnsight"):
        peers.append(NNsight(base, layers))
    if find_spec("sentence_transformers"):
        peers.append(SentenceTransformers(workload, base))
    missing = [name for name in ("nnsight", "sentence_transformers") if not find_spec(name)]
    if missing:
        print(f"not installed, so not measured: {', '.join(missing)}", file=sys.stderr)
    return peers


class SentenceTransformers:
    """sentence-transformers with a mean pool over the same model, in its own sorted batches.

    It pools the last hidden state, so its vectors differ from ours: each is checked against the
    mean of transformers' hidden state for its document.
    """

    name = "sentence-transformers, mean pool, batches of 8 sorted by length"
    comparable = False

    def __init__(self, workload: Workload, base: PreTrainedModel) -> None:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from sentence_transformers.sentence_transformer.modules import (  # noqa: PLC0415
            Pooling,
            Transformer,
        )

        transformer = Transformer(
            str(workload.directory),
            model_kwargs={"dtype": base.dtype, "attn_implementation": "sdpa"},
        )
        transformer.tokenizer.pad_token = transformer.tokenizer.eos_token
        pooling = Pooling(transformer.get_embedding_dimension(), "mean")
        self._model = SentenceTransformer(modules=[transformer, pooling], device=str(base.device))
        self._model.max_seq_length = workload.shape.context
        self._texts = workload.texts
        self._check(base)

    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the mean of each document's last hidden state; `documents` are the workload's."""
        assert len(documents) == len(self._texts)
        means: Pools = self._model.encode(self._texts, batch_size=8, show_progress_bar=False)
        return list(means)

    @torch.inference_mode()
    def _check(self, base: PreTrainedModel) -> None:
        ids = self._model.tokenizer(self._texts[0], return_tensors="pt").input_ids
        expected = base(ids).last_hidden_state[0].float().mean(0).numpy()
        (mean,) = self._model.encode(self._texts[:1])
        cosine = np.dot(mean, expected) / (np.linalg.norm(mean) * np.linalg.norm(expected))
        if cosine < 0.999:
            raise SystemExit(f"sentence-transformers does not run the same model: {cosine:.5f}")


class NNsight:
    """nnsight, one document at a time; it saves only the target layers and stops after them."""

    name = "nnsight per document, target layers saved, stopped behind them"
    comparable = True

    def __init__(self, base: PreTrainedModel, layers: tuple[int, ...]) -> None:
        from nnsight import NNsight as Traced  # noqa: PLC0415 - not everybody has it

        self._model: Any = Traced(base)
        self._layers = layers

    @torch.inference_mode()
    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the pools of each document."""
        return [self._run_one(ids) for ids in documents]

    def _run_one(self, ids: Ids) -> Pools:
        with self._model.trace(torch.from_numpy(ids)[None]) as tracer:
            outputs = list().save()  # type: ignore[attr-defined]  # noqa: C408 - nnsight's
            for layer in self._layers:
                outputs.append(self._model.layers[layer].output)
            tracer.stop()
        states = [output[0] if isinstance(output, tuple) else output for output in outputs]
        return pool_document([state[0] for state in states], ids)
