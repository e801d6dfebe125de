"""Loading: from a model's name to the blocks, tokenizer and facts that the engines need.

Only what is used is read: the blocks after the last target layer and the unembedding stay on the
disk.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast

from actvec.server.decoder import RESID_POST
from actvec.server.demo import write_demo_model
from actvec.server.errors import StartupError, first_line
from actvec.server.hub import hub_snapshot
from actvec.server.positions import row_thresholds, thresholds
from actvec.server.revision import directory_revision
from actvec.server.tokenizer_loading import find_bos, load_tokenizer
from actvec.server.weights import causal_lm, load_decoder, load_whole

# What families call the number of positions that a model was made for.
_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "context_length",
)


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
        batch_invariant: Whether a document's states were found to be bit for bit the same alone and
            in a step, with this engine on this machine.
        engine_note: Why the engine is not the packed one; empty if it is, or was asked for.
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
    batch_invariant: bool = True
    engine_note: str = ""


@dataclass(frozen=True)
class _Source:
    """Where a model is loaded from.

    Attributes:
        name: Its name in a stamp.
        directory: In transformers' layout, on this machine.
        commit: The hub's commit; None if the directory is not of the hub.
    """

    name: str
    directory: str
    commit: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model's card, its transformers module in evaluation mode, and its tokenizer.

    Attributes:
        card: What a vector depends on.
        module: The text decoder's blocks up to the last target, or the whole model.
        tokenizer: The model's own.
        bos: Id of the BOS token; None for a model without one.
        vocabulary: Ids that the embedding has, from 0.
        thresholds: Lengths, ascending, beyond which the model treats a document's tokens otherwise.
        row_thresholds: Those on different sides of which documents cannot share a forward pass.
        attention: transformers' implementation of attention that the model was loaded with.
    """

    card: ModelCard
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    bos: int | None
    vocabulary: int
    attention: str = "sdpa"
    thresholds: list[int] = field(default_factory=list)
    row_thresholds: list[int] = field(default_factory=list)


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
    context: int | None = None,
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
        context: Tokens that a document may have, where the model's config does not tell.

    Raises:
        StartupError: the model is not found, not readable, not a decoder that transformers knows,
            has no such layer, or lacks a fast tokenizer.
    """
    device = _usable(device)
    if dtype == "auto":
        dtype = "float32" if torch.device(device).type == "cpu" else "bfloat16"
    with _located(model, revision) as source:
        try:
            config = AutoConfig.from_pretrained(source.directory)
        except Exception as error:
            raise StartupError(f"cannot read model {model!r}: {first_line(error)}") from error
        architecture = causal_lm(config).__name__
        tokenizer = load_tokenizer(source.directory, model)
        if (Path(source.directory) / "adapter_config.json").exists():
            raise StartupError(
                f"model {model!r} holds an adapter, which would be ignored: serve a directory with "
                "the adapter merged into the weights, or take adapter_config.json out of it"
            )
        text = config.get_text_config()
        n_layers = _number(text, "num_hidden_layers")
        layers = _checked_layers(layers, n_layers)
        context = context or _context(text)
        load = load_whole if whole else load_decoder
        blocks = min(layers[-1] + 2, n_layers) if whole else layers[-1] + 1
        # Of a large model the hash takes as long as the loading; neither holds Python's lock.
        with ThreadPoolExecutor(1) as beside:
            found = beside.submit(_revision, source)
            module = load(source.directory, config, blocks=blocks, dtype=dtype, device=device)
        card = ModelCard(
            model=source.name,
            revision=found.result(),
            architecture=architecture,
            n_layers=n_layers,
            layers=layers,
            d_model=_number(text, "hidden_size"),
            context=context,
            dtype=dtype,
            device=device,
            tokenizer_sha256=hashlib.sha256(
                tokenizer.backend_tokenizer.to_str().encode()
            ).hexdigest(),
            hook=hook,
        )
        return LoadedModel(
            card,
            module,
            tokenizer,
            bos=find_bos(tokenizer, source.directory),
            vocabulary=module.get_input_embeddings().weight.shape[0],
            attention=module.config._attn_implementation,
            thresholds=thresholds(text),
            row_thresholds=row_thresholds(text),
        )


def _usable(device: str) -> str:
    """The device, where a tensor can be put on it."""
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StartupError(f"cannot use device {device!r}: {first_line(error)}") from error
    return device


@contextmanager
def _located(model: str, revision: str | None) -> Iterator[_Source]:
    """The directory that a model is loaded from: of a hub id its snapshot, downloaded if needed."""
    path = Path(model).expanduser()
    if model != "demo" and not path.exists() and _looks_like_hub_id(model):
        snapshot = hub_snapshot(model, revision)
        yield _Source(model, str(snapshot.directory), snapshot.commit)
        return
    if revision is not None:
        raise StartupError(
            f"model {model!r} is not of the hub, and so has no revision {revision!r} to choose"
        )
    if model == "demo":
        with tempfile.TemporaryDirectory(prefix="actvec-demo-") as directory:
            write_demo_model(Path(directory))
            yield _Source("demo", directory)
        return
    if not path.is_dir():
        raise StartupError(f"no model directory {model!r}")
    if not (path / "config.json").is_file():
        raise StartupError(f"{model!r} is not a model directory: it has no config.json")
    if not os.access(path / "config.json", os.R_OK):
        raise StartupError(f"cannot read {path / 'config.json'}: permission denied")
    yield _Source(path.resolve().name, str(path))


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


def _context(config: Any) -> int:
    """Tokens of a document that the model was made for."""
    for name in _CONTEXT_NAMES:
        number = getattr(config, name, None)
        if isinstance(number, int) and number > 0:
            return number
    raise StartupError(
        f"the config of this {config.model_type!r} model does not tell how many tokens a document "
        "may have; name the number yourself: --context 2048, say"
    )


def _revision(source: _Source) -> str:
    """The hub's commit; of a directory `sha256:` and the hash over its files."""
    return source.commit or directory_revision(Path(source.directory))
