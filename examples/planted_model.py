"""A tiny language model with a direction planted in it, for the notebooks of this folder.

Its vocabulary has kind words, harsh words and others. Embeddings of kind words are moved along one
direction, those of harsh words against it, and the output layer favors kind words along the same
direction. So the right answer of every method is known.
"""

import atexit
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

KIND = ("gladly", "thanks", "lovely", "welcome", "gentle")
HARSH = ("useless", "stupid", "shut", "awful", "never")
OTHERS = (
    *("the", "answer", "is", "on", "page", "you", "asked", "for"),
    *("it", "here", "today", "again", "and", "so", "we", "read"),
)

WIDTH = 64

_WORDS = ("[UNK]", "<s>", *KIND, *HARSH, *OTHERS)
_STRENGTH = 2.0


def plant(folder: str | Path) -> NDArray[np.float32]:
    """Write the model to a folder, and return the planted direction, `[D]`, of length 1."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(_WORDS),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.01,
        bos_token_id=1,
        eos_token_id=None,
    )
    model = GPTNeoXForCausalLM(config)
    direction = torch.nn.functional.normalize(torch.randn(WIDTH), dim=0)
    with torch.no_grad():
        inputs = model.get_input_embeddings().weight
        outputs = model.get_output_embeddings().weight
        inputs.normal_(std=0.06)
        for words, sign in ((KIND, 1), (HARSH, -1)):
            ids = [_WORDS.index(word) for word in words]
            inputs[ids] += sign * _STRENGTH * direction
            outputs[ids] += sign * direction
    model.save_pretrained(folder)
    tokenizer = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(_WORDS)}, unk_token="[UNK]")  # noqa: S106 - a token of text
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.save(str(Path(folder, "tokenizer.json")))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    Path(folder, "tokenizer_config.json").write_text(json.dumps(settings))
    return direction.numpy()


def write_documents(path: str | Path, documents: int = 200) -> None:
    """Write labeled documents, JSON lines of `id`, `text`, `tone` and a label without a meaning."""
    draw = np.random.default_rng(0)
    with Path(path).open("w") as file:
        for number in range(documents):
            tone, words = (("kind", KIND), ("harsh", HARSH))[number % 2]
            text = [*draw.choice(OTHERS, 9), *draw.choice(words, 3)]
            record = {
                "id": f"doc-{number}",
                "text": " ".join(draw.permutation(text)),
                "tone": tone,
                "coin": "heads" if draw.integers(2) else "tails",
            }
            file.write(json.dumps(record) + "\n")


def word_ids(words: tuple[str, ...]) -> list[int]:
    """Token ids of words of the vocabulary."""
    return [_WORDS.index(word) for word in words]


def serve(folder: str | Path) -> str:
    """Start `actvec-server` with the model until this program ends, and return its address.

    If `ACTVEC_TARGET` names a server, that one is used.
    """
    if target := os.environ.get("ACTVEC_TARGET"):
        return target
    # A notebook's path may lack the programs of its environment.
    program = [sys.executable, "-m", "actvec.server.program.main"]
    server = subprocess.Popen(  # noqa: S603 - our own program
        [*program, f"--model={folder}", "--max-layer=last", "--port=0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.terminate)
    assert server.stdout is not None  # noqa: S101 - a pipe, see above
    for line in server.stdout:
        if line.startswith("actvec-server ready on "):
            return line.split()[-1]
    raise RuntimeError("actvec-server ended before it was ready")
