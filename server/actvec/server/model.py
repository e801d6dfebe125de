"""Loading: from a model's name to the blocks, tokenizer and facts that the engines need.

Only what is used is read: the blocks after the last target layer, the final norm and the
unembedding stay on the disk.
"""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from actvec.server.attention import PACKED, register_packed_attention
from actvec.server.demo import write_demo_model
from actvec.server.errors import StartupError
from actvec.server.revision import directory_revision
from actvec.server.tokenizer_loading import find_bos, load_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RESID_POST = "resid_post"


@dataclass(frozen=True)
class ModelCard:
    """What a vector depends on, and what a caller wants to know, about a loaded model.

    Attributes:
        model: Hub id, `demo`, or the name of a local directory.
        revision: The hub's commit, or `sha256:` and the hash of a local directory's files.
        architecture: transformers' class, for example `GPTNeoXForCausalLM`.
        n_layers: Blocks of the whole model.
        layers: Target layers, ascending.
        d_model: D, the residual width.
        context: Tokens that a document may have, BOS included.
        dtype: Of the weights: `float32`, `bfloat16` or `float16`.
        device: For example `cpu` or `cuda:0`.
        tokenizer_sha256: Of the tokenizer's canonical JSON.
        hook: TransformerLens' name of what is taken from the target blocks.
    """

    model: str
    revision: str
    architecture: str
    n_layers: int
    layers: tuple[int, ...]
    d_model: int
    context: int
    dtype: str
    device: str
    tokenizer_sha256: str
    hook: str = RESID_POST


@dataclass(frozen=True)
class LoadedModel:
    """A model's card, its transformers module in evaluation mode, and what makes its ids.

    Attributes:
        card: What a vector depends on.
        module: The module.
        tokenizer: The model's own.
        bos: Id of the BOS token; None for a model without one.
        vocabulary: Ids that the embedding has, from 0.
    """

    card: ModelCard
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    bos: int | None
    vocabulary: int


def default_layers(n_layers: int) -> tuple[int, ...]:
    """Three consecutive blocks ending at `floor(0.75 * n_layers)`: 25, 26, 27 of Pythia-12B's 36.

    Fewer where the model has fewer blocks before that one.
    """
    last = min(3 * n_layers // 4, n_layers - 1)
    return tuple(range(max(last - 2, 0), last + 1))


def load_model(
    model: str,
    *,
    revision: str | None = None,
    layers: tuple[int, ...] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    hook: str = RESID_POST,
    whole: bool = False,
) -> LoadedModel:
    """Load the blocks up to the last target layer.

    Args:
        model: `demo`, a hub id, or a local directory in transformers' layout.
        revision: Branch, tag or commit on the hub; None for its default branch.
        layers: Target layers; None for `default_layers`.
        dtype: `auto` (float32 on a CPU, bfloat16 elsewhere) or a name of `DTYPES`.
        device: `auto` (CUDA where there is one), or torch's name of a device.
        hook: What is taken from the target blocks; all but `resid_post` need the default bridge.
        whole: Load a spare block, the final norm and the unembedding too, with transformers' eager
            attention, as TransformerLens' default bridge wants it.

    Raises:
        StartupError: the model is not found, not readable, not a decoder that transformers and
            TransformerLens know, has no such layer, or lacks a fast tokenizer.
    """
    device = _usable(device)
    if dtype == "auto":
        dtype = "float32" if torch.device(device).type == "cpu" else "bfloat16"
    with _located(model) as (name, source):
        try:
            config = AutoConfig.from_pretrained(source, revision=revision)
        except (OSError, ValueError, KeyError, StrictDataclassError) as error:
            raise StartupError(f"cannot read model {model!r}: {_first_line(error)}") from error
        architecture = _causal_lm(config).__name__
        tokenizer = load_tokenizer(source, revision, model)
        bos = find_bos(tokenizer, source, revision)

        n_layers = _number(config, "num_hidden_layers")
        layers = _checked_layers(layers, n_layers)
        context = _number(config, "max_position_embeddings")
        blocks = min(layers[-1] + 2, n_layers) if whole else layers[-1] + 1
        # Of a large model the hash takes as long as the loading; neither holds Python's lock.
        with ThreadPoolExecutor(1) as beside:
            found = beside.submit(_revision, config, source)
            module = _load_module(
                source,
                config,
                revision=revision,
                blocks=blocks,
                dtype=dtype,
                device=device,
                whole=whole,
            )
        card = ModelCard(
            model=name,
            revision=found.result(),
            architecture=architecture,
            n_layers=n_layers,
            layers=layers,
            d_model=config.hidden_size,
            context=context,
            dtype=dtype,
            device=device,
            tokenizer_sha256=hashlib.sha256(
                tokenizer.backend_tokenizer.to_str().encode()
            ).hexdigest(),
            hook=hook,
        )
        vocabulary = module.get_input_embeddings().num_embeddings
    return LoadedModel(card, module, tokenizer, bos, vocabulary)


def _usable(device: str) -> str:
    """The device, where a tensor can be put on it."""
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StartupError(f"cannot use device {device!r}: {_first_line(error)}") from error
    return device


@contextmanager
def _located(model: str) -> Iterator[tuple[str, str]]:
    """The model's name in a stamp, and what transformers loads it from."""
    if model == "demo":
        with tempfile.TemporaryDirectory(prefix="actvec-demo-") as directory:
            write_demo_model(Path(directory))
            yield "demo", directory
        return
    path = Path(model).expanduser()
    if not path.exists() and _looks_like_hub_id(model):
        yield model, model
        return
    if not path.is_dir():
        raise StartupError(f"no model directory {model!r}")
    if not (path / "config.json").is_file():
        raise StartupError(f"{model!r} is not a model directory: it has no config.json")
    if not os.access(path / "config.json", os.R_OK):
        raise StartupError(f"cannot read {path / 'config.json'}: permission denied")
    yield path.resolve().name, str(path)


def _looks_like_hub_id(model: str) -> bool:
    return not model.startswith((".", "/", "~")) and model.count("/") <= 1


def _checked_layers(layers: tuple[int, ...] | None, n_layers: int) -> tuple[int, ...]:
    """The target layers, ascending and each once."""
    if layers is None:
        return default_layers(n_layers)
    unknown = [layer for layer in layers if not 0 <= layer < n_layers]
    if unknown or not layers:
        raise StartupError(
            f"no layer {', '.join(map(str, unknown))}: the model has blocks 0 to {n_layers - 1}"
        )
    return tuple(sorted(set(layers)))


def _number(config: Any, name: str) -> int:
    number = getattr(config, name, None)
    if not isinstance(number, int):
        raise StartupError(f"the model's config names no {name}")
    return number


def _causal_lm(config: Any) -> type[PreTrainedModel]:
    try:
        found: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        raise StartupError(f"{config.model_type!r} is not a causal language model") from None
    return found


def _load_module(
    source: str,
    config: Any,
    *,
    revision: str | None,
    blocks: int,
    dtype: str,
    device: str,
    whole: bool,
) -> PreTrainedModel:
    """The model of the first `blocks` blocks, in evaluation mode on its device."""
    config.num_hidden_layers = blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    causal_lm = _causal_lm(config)
    if not whole:
        register_packed_attention()
        config.tie_word_embeddings = False
        causal_lm = without_ends(causal_lm, config)
    try:
        module: PreTrainedModel
        module, report = causal_lm.from_pretrained(
            source,
            revision=revision,
            config=config,
            dtype=DTYPES[dtype],
            device_map=None if device == "cpu" else {"": device},
            attn_implementation="eager" if whole else PACKED,
            output_loading_info=True,
        )
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise StartupError(
            f"cannot load model {source!r}: its weights are damaged ({_first_line(error)}), by a "
            "download that was cut or without git-lfs; download it again"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise StartupError(f"cannot load model {source!r}: {_first_line(error)}") from error
    # transformers fills what a checkpoint lacks with random numbers, and only warns.
    if lacking := sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"])):
        raise StartupError(
            f"cannot load model {source!r}: its weights lack {', '.join(lacking[:3])}"
            + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        )
    return module.eval().requires_grad_(False)


def without_ends(causal_lm: type[PreTrainedModel], config: Any) -> type[PreTrainedModel]:
    """The same class, whose final norm and unembedding are identities: never read, held or run.

    Where they are in the tree of modules, TransformerLens' adapter of the architecture knows.
    """
    from actvec.server.bridge import end_paths  # noqa: PLC0415 - TransformerLens takes a second

    paths = end_paths(causal_lm.__name__, config)

    class WithoutEnds(causal_lm):  # type: ignore[misc]
        _tied_weights_keys = None

        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            for path in paths:
                self.set_submodule(path, nn.Identity())

    WithoutEnds.__name__ = causal_lm.__name__
    return WithoutEnds


def _revision(config: Any, source: str) -> str:
    """The hub's commit; of a directory `sha256:` and the hash over its files."""
    return getattr(config, "_commit_hash", None) or directory_revision(Path(source))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
