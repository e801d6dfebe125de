"""Loading: from a model's name to the blocks, tokenizer and facts that the engines need.

It reads only what it uses: blocks after the last layer on offer and the unembedding stay on disk.
"""

import hashlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast

from actvec.server.config import ModelOptions
from actvec.server.errors import StartupError, first_line
from actvec.server.model.adapter import find_adapter, merge_adapter
from actvec.server.model.card import ModelCard
from actvec.server.model.hub import ADAPTER
from actvec.server.model.positions import (
    fixed_positions,
    named_positions,
    row_thresholds,
    thresholds,
)
from actvec.server.model.source import located
from actvec.server.model.text.chat import ChatTemplate
from actvec.server.model.text.tokenizer_loading import find_bos, load_tokenizer
from actvec.server.model.weights import causal_lm, load_blocks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model's card, its transformers module in evaluation mode, and its tokenizer.

    Attributes:
        card: The model's card.
        module: The text decoder's blocks up to the last layer on offer, or the whole model.
        tokenizer: The model's own.
        bos: Id of the BOS token; None for a model without one.
        vocabulary: Number of ids in the embedding.
        thresholds: Lengths, ascending, beyond which the model's behavior changes.
        row_thresholds: Lengths that divide documents: those on different sides cannot share a
            forward pass.
        attention: transformers' implementation of attention that the model was loaded with.
        parts: Paths of attention and MLP within each block, by hook; empty if unknown.
    """

    card: ModelCard
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    bos: int | None
    vocabulary: int
    attention: str = "sdpa"
    thresholds: list[int] = field(default_factory=list)
    row_thresholds: list[int] = field(default_factory=list)
    parts: Mapping[str, str] = field(default_factory=dict)


def default_layers(n_layers: int) -> tuple[int, ...]:
    """Three consecutive blocks ending at `floor(0.75 * n_layers)`: 25, 26, 27 of Pythia-12B's 36.

    Fewer if the model has fewer blocks before that one.
    """
    last = min(3 * n_layers // 4, n_layers - 1)
    return tuple(range(max(last - 2, 0), last + 1))


def load_model(options: ModelOptions) -> LoadedModel:
    """Load the blocks up to the last layer on offer.

    For the engine `lens`, which uses TransformerLens' default bridge, load the whole model: a spare
    block, the final norm and the unembedding too, with transformers' eager attention.

    Raises:
        StartupError: the model does not exist, cannot be read, is not a decoder that transformers
            knows, has no such layer, or lacks a fast tokenizer; `max_layer` is before the last
            target layer; or the adapter does not exist or does not fit.
    """
    model, device, dtype = options.model, _usable(options.device), options.dtype
    if dtype == "auto":
        dtype = "float32" if torch.device(device).type == "cpu" else "bfloat16"
    with located(model, options.revision) as source:
        try:
            # Otherwise transformers would ask on a terminal, and a user might run a stranger's
            # code.
            config = AutoConfig.from_pretrained(source.directory, trust_remote_code=False)
        except Exception as error:
            raise StartupError(f"cannot read model {model!r}: {first_line(error)}") from error
        architecture = causal_lm(config).__name__
        if any(name.startswith("AutoModel") for name in getattr(config, "auto_map", None) or {}):
            log.warning(
                "model %s brings code of its own, which never runs: transformers' %s is used",
                *(model, architecture),
            )
        tokenizer = load_tokenizer(source.directory, model)
        if (Path(source.directory) / ADAPTER.config).exists():
            raise StartupError(
                f"model {model!r} holds an adapter beside its weights, which would be ignored: move"
                f" {ADAPTER.config} and the adapter's weights to a directory of their own",
                setting="adapter",
            )
        text = config.get_text_config()
        n_layers = _number(text, "num_hidden_layers")
        layers = _checked_layers(options.layers, n_layers)
        highest = _checked_highest(options.max_layer, layers, n_layers)
        context = _served(options.context or _context(text), text)
        whole = options.engine == "lens"
        blocks = min(highest + 2, n_layers) if whole else highest + 1
        added = find_adapter(options.adapter, options.adapter_revision) if options.adapter else None
        # For a large model the hash takes as long as the loading; neither holds Python's lock.
        with ThreadPoolExecutor(1) as beside:
            found = beside.submit(source.revision)
            module = load_blocks(
                source.directory, config, blocks=blocks, whole=whole, dtype=dtype, device=device
            )
            if added:
                merge_adapter(module, added, module.removed)
        template = ChatTemplate.of(tokenizer)
        card = ModelCard(
            model=_both(source.name, added.name if added else None),
            revision=_both(found.result(), added.revision if added else None),
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
            hook=options.hook,
            n_layers_loaded=highest + 1,
            chat_template_sha256=template.sha256 if template else "",
            chat_template_date=template.date if template else "",
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
    """Return the device, after a test that it can hold a tensor."""
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise StartupError(f"cannot use device {device!r}: {first_line(error)}") from error
    return device


def _checked_layers(layers: tuple[int, ...] | None, n_layers: int) -> tuple[int, ...]:
    """Check the target layers; return them ascending, each once."""
    if layers is None:
        return default_layers(n_layers)
    unknown = [layer for layer in layers if not 0 <= layer < n_layers]
    if unknown or not layers:
        raise StartupError(
            f"no layer {', '.join(map(str, unknown))}: the model has blocks 0 to {n_layers - 1}"
        )
    return tuple(sorted(set(layers)))


def _checked_highest(max_layer: int | None, layers: tuple[int, ...], n_layers: int) -> int:
    """Return the last layer on offer."""
    if max_layer is None:
        return layers[-1]
    highest = n_layers - 1 if max_layer == -1 else max_layer
    _checked_layers((highest,), n_layers)
    if highest < layers[-1]:
        raise StartupError(
            f"the highest layer on offer is {highest}, below {layers[-1]}, a layer that requests "
            "use by default"
        )
    return highest


def _number(config: Any, name: str) -> int:
    number = getattr(config, name, None)
    if not isinstance(number, int):
        raise StartupError(f"the model's config names no {name}")
    return number


def _context(config: Any) -> int:
    """The context that the model was made for, in tokens."""
    if (number := named_positions(config)) is not None:
        return number
    raise StartupError(
        (
            f"the config of this {config.model_type!r} model does not name its context, the most "
            "tokens of a document"
        ),
        setting="context",
    )


def _served(context: int, config: Any) -> int:
    """The longest document to serve, in tokens."""
    fixed = fixed_positions(config)
    if fixed is None or context <= fixed:
        return context
    log.warning(
        "documents of more than %d tokens are not served: beyond it the model's rotary embeddings "
        "depend on the documents before",
        fixed,
    )
    return fixed


def _both(model: str, adapter: str | None) -> str:
    """Combine the model's part of a stamp with that of a merged adapter."""
    return f"{model} + {adapter}" if adapter else model
