"""A model with a chat template, and the positions of tokens in a text."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers

from actvec.server.config import ModelOptions
from actvec.server.engine.load import load_engine
from actvec.server.engine.packed import Engine
from actvec.server.model.loading import LoadedModel
from tests.server.conftest import random_llama, save_model

BOS = "<|endoftext|>"

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message.role }}|>\n{{ message.content | trim }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def chat_model(directory: Path, template: str = TEMPLATE) -> tuple[Engine, LoadedModel]:
    """A Llama-like model of random weights with a chat template, every layer on offer."""
    model = save_chat_model(directory, template)
    return load_engine(ModelOptions(model=str(model), max_layer=-1))


def save_chat_model(directory: Path, template: str = TEMPLATE) -> Path:
    """Write it in the hub's layout."""
    model = save_model(directory, random_llama())
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return model


def write_sentence_pieces(model: Path, *, prepends: bool) -> None:
    """Replace a model's tokenizer by one that was SentencePiece's: `▁` for a space, bytes for rest.

    Args:
        model: The model's directory.
        prepends: Whether a text begins with `▁`, as Llama 2's does and Gemma's does not.
    """
    pieces = [BOS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [chr(code) for code in range(33, 127)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    bpe = models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(bpe)
    spaces = normalizers.Replace(" ", "▁")
    first = [normalizers.Prepend("▁")] if prepends else []
    tokenizer.normalizer = normalizers.Sequence([*first, spaces])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([BOS])
    tokenizer.save(str(model / "tokenizer.json"))


def overlapping(
    text: str, offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """The tokens whose characters, without surrounding white space, overlap spans."""
    found = []
    for number, (first, last) in enumerate(offsets):
        piece = text[first:last]
        start = first + len(piece) - len(piece.lstrip()) if piece.strip() else last
        end = start + len(piece.strip())
        if any(
            (start < stop and end > begin) if end > start else begin < start <= stop
            for begin, stop in spans
        ):
            found.append(number)
    return found
