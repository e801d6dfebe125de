"""From files to a transformers module: loads, refuses and reports weights."""

import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, AutoHfQuantizer
from transformers.utils import logging as transformers_logging

from actvec.server.errors import StartupError, first_line
from actvec.server.model.pruning import pruned, text_decoder

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_NAMED = 3

# Names of the factors of quantized weights, beside weights that have the shapes of others.
_SCALE = re.compile(r"\.(weight_scale(_inv)?|SCB)$")

# transformers' names for attention to the states of an encoder.
_CROSS = re.compile(r"cross_?att(n|ention)|encoder_attn")


def causal_lm(config: Any) -> type[PreTrainedModel]:
    """Return transformers' class for a config: a language model, or one of text and images.

    Raises:
        StartupError: there is none, or it is the decoder of a checkpoint with an encoder.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise StartupError(
            f"this {config.model_type!r} model is an encoder and a decoder: without what its "
            "encoder reads, its decoder has other states"
        )
    for mapping in (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        if type(config) in mapping:
            found: type[PreTrainedModel] = mapping[type(config)]
            return found
    raise StartupError(f"{config.model_type!r} is not a causal language model")


def load_blocks(
    source: str, config: Any, *, blocks: int, whole: bool, dtype: str, device: str
) -> PreTrainedModel:
    """Load the text decoder's first `blocks` blocks, in evaluation mode on its device.

    Args:
        source: The model's directory.
        config: Its config.
        blocks: How many blocks.
        whole: Whether to load all around the blocks too, with transformers' eager attention:
            TransformerLens' default bridge needs the model in this form.
        dtype: A key of `DTYPES`.
        device: For example `cpu` or `cuda:0`.

    Raises:
        StartupError: the weights are damaged, incomplete, or have other shapes than the config, or
            transformers does not know their quantization, or lacks a library for it.
    """
    _check_quantization(config)
    try:
        # It would list every unread tensor, in colors.
        with _quiet_transformers():
            module, report = pruned(causal_lm(config), blocks, whole=whole).from_pretrained(
                source,
                config=config,
                dtype=DTYPES[dtype],
                device_map=None if device == "cpu" else {"": device},
                attn_implementation="eager" if whole else None,
                # Mismatched shapes come back in the report, by name.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise StartupError(
            f"cannot load model {source!r}: its weights are damaged ({first_line(error)}), by a "
            "download that was cut or without git-lfs; download it again"
        ) from error
    except FileNotFoundError as error:
        raise StartupError(
            f"cannot load model {source!r}: a file of its weights is missing "
            f"({Path(error.filename or str(error)).name}); download it again"
        ) from error
    except ImportError as error:  # a library for quantized weights is missing
        raise StartupError(f"cannot load model {source!r}: {first_line(error)}") from error
    _check_complete(source, report)
    _check_scales(source, config, report)
    _report_unused(report, module)
    _report_cross_attention(module)
    return module.eval().requires_grad_(False)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _check_quantization(config: Any) -> None:
    # transformers skips a quantization that it does not know, with a warning.
    quantization = _quantization(config)
    if not quantization:
        return
    try:
        with _quiet_transformers():
            known = AutoHfQuantizer.supports_quant_method(quantization)
    except ValueError:  # it names no method
        known = False
    if not known:
        raise StartupError(
            f"the weights are quantized by {quantization.get('quant_method')!r}, which "
            f"transformers does not know; it knows {', '.join(sorted(AUTO_QUANTIZER_MAPPING))}"
        )


def _quantization(config: Any) -> Any:
    text = config.get_text_config(decoder=True)
    return getattr(config, "quantization_config", None) or getattr(
        text, "quantization_config", None
    )


def _check_scales(source: str, config: Any, report: dict[str, Any]) -> None:
    # Without them transformers takes the weights for numbers of the model, and only warns.
    scales = sorted(key for key in report["unexpected_keys"] if _SCALE.search(key))
    if scales and not _quantization(config):
        raise StartupError(
            f"cannot load model {source!r}: its weights are quantized, with {_some(scales)}, and "
            "its config.json has no quantization_config; copy that from the original"
        )


def _check_complete(source: str, report: dict[str, Any]) -> None:
    # transformers fills missing weights with random numbers, and only warns.
    if lacking := sorted(report["missing_keys"]):
        raise StartupError(f"cannot load model {source!r}: its weights lack {_some(lacking)}")
    if others := [
        f"{name} (is {list(found)}, should be {list(expected)})"
        for name, found, expected in sorted(report["mismatched_keys"])
    ]:
        raise StartupError(
            f"cannot load model {source!r}: its weights are not of its config's shapes: "
            f"{_some(others)}"
        )


def _report_unused(report: dict[str, Any], module: Any) -> None:
    """Warn about the decoder's tensors in the checkpoint that have no place in the model."""
    removed = tuple(f"{path}." for path in module.removed)
    if unused := sorted(
        key
        for key in report["unexpected_keys"]
        if key.startswith(f"{module.decoder_path}.") and not key.startswith(removed)
    ):
        log.warning(
            "%d tensors of the checkpoint have no place in the model of its config and are not "
            "used: %s",
            *(len(unused), _some(unused)),
        )


def _report_cross_attention(module: Any) -> None:
    """Warn about attention to an encoder's states: a document has none, and transformers skips it.

    A decoder has it if it was a part of another model, or was made for one.
    """
    text = text_decoder(module)
    names = [
        name
        for block in text.get_submodule(module.block_list).children()
        for name, part in block.named_modules()
        if _CROSS.fullmatch(name.rpartition(".")[2]) and any(True for _ in part.parameters())
    ]
    if names:
        log.warning(
            "the %s of this %r model's blocks is not used: it reads the states of an encoder, and "
            "a document has none",
            *(names[0], module.config.model_type),
        )


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
