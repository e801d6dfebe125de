"""The workload: a model of random weights, documents of realistic lengths, and their cost."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from actvec.client.samples import sample_corpus
from actvec.server.config import ModelOptions
from actvec.server.model.demo import write_demo_model
from actvec.server.model.loading import LoadedModel, load_model
from actvec.server.model.stamp import Truncation
from actvec.server.model.text.tokenizer import Tokenizer

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """The shape of a GPT-NeoX, named after the Pythia model that has it."""

    name: str
    hidden: int
    blocks: int
    heads: int
    vocabulary: int = 50_304
    context: int = 2048

    def config(self) -> GPTNeoXConfig:
        """A configuration of this shape."""
        return GPTNeoXConfig(
            hidden_size=self.hidden,
            intermediate_size=4 * self.hidden,
            num_hidden_layers=self.blocks,
            num_attention_heads=self.heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=self.context,
            bos_token_id=0,
            eos_token_id=0,
        )


SHAPES = {
    "tiny": Shape("tiny", 64, 6, 4, vocabulary=2048),
    "70m": Shape("70m", 512, 6, 8),
    "160m": Shape("160m", 768, 12, 12),
    "12b": Shape("12b", 5120, 36, 40, vocabulary=50_688),
}


class Workload:
    """A saved model of random weights, and documents of log-normal length.

    Documents beyond the context are cut to it.

    Args:
        shape: The model's shape.
        documents: Number of documents.
        median: Approximate tokens of the median document.
        seed: Seed of weights, lengths and ids.
        dtype: dtype of the saved weights.
        device: The device to make them on.
    """

    def __init__(
        self,
        shape: Shape,
        documents: int,
        *,
        median: float = 250,
        seed: int = 0,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.shape = shape
        self._holder = tempfile.TemporaryDirectory(prefix="actvec-bench-")
        self.directory = Path(self._holder.name)
        torch.manual_seed(seed)
        # Keep the demo model's tokenizer; replace its weights and config.
        write_demo_model(self.directory)
        with torch.device(device):
            module = GPTNeoXForCausalLM._from_config(shape.config(), dtype=getattr(torch, dtype))
        module.save_pretrained(self.directory)
        del module
        random = np.random.default_rng(seed)
        words = " ".join(document.text or "" for document in sample_corpus()).split()
        demo = load_model(ModelOptions())
        tokenizer = Tokenizer(
            demo.tokenizer, shape.context, bos=demo.bos, vocabulary=shape.vocabulary
        )
        # Each word here counts with a BOS.
        tokens_per_word = np.mean([len(_tokenized(tokenizer, word)) for word in words]) - 1
        lengths = random.lognormal(np.log(median), 0.8, documents) / tokens_per_word
        self.texts = [" ".join(random.choice(words, max(1, int(n)))) for n in lengths]
        self.documents: list[Ids] = [_tokenized(tokenizer, text) for text in self.texts]

    def load(
        self, dtype: str = "float32", *, device: str = "auto", engine: str = "auto"
    ) -> LoadedModel:
        """Load the model as the server does."""
        return load_model(
            ModelOptions(str(self.directory), dtype=dtype, device=device, engine=engine)
        )

    def base_model(self, dtype: str) -> PreTrainedModel:
        """The whole model without an LM head, as transformers loads it."""
        return AutoModel.from_pretrained(
            self.directory, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        ).eval()


def flops(shape: Shape, layers: tuple[int, ...], lengths: Sequence[int]) -> float:
    """Floating-point operations that vectors of such documents need, without any waste.

    Per token and block up to the last target: `24 D^2` in the four linear layers, and `4 D` for
    each of the tokens that it attends to, itself included.
    """
    width = shape.hidden
    linear = 24 * width**2 * sum(lengths)
    attention = sum(4 * width * length * (length + 1) / 2 for length in lengths)
    return (layers[-1] + 1) * (linear + attention)


def random_documents(shape: Shape, count: int, *, median: float = 500, seed: int = 0) -> list[Ids]:
    """Make documents of random ids and log-normal lengths, cut to the context."""
    random = np.random.default_rng(seed)
    lengths = random.lognormal(np.log(median), 0.8, count).clip(1, shape.context).astype(int)
    return [random.integers(0, shape.vocabulary, length) for length in lengths]


def _tokenized(tokenizer: Tokenizer, text: str) -> Ids:
    return tokenizer(text, Truncation.KEEP_START, prepend_bos=True).ids
