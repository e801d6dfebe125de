"""Trains the demo model's tokenizer: `python -m actvec.server.model.demo.train_tokenizer TEXT...`.

A byte-level BPE with the normalizer, pre-tokenizer and special token of GPT-NeoX-20B's, small
enough to ship. `tokenizer.json` beside this file was trained on the sample corpus.
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from actvec.server.model.demo import VOCABULARY


def train(paths: list[str]) -> Tokenizer:
    """Train a tokenizer of `VOCABULARY` ids, `<|endoftext|>` first, on text files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train(sorted(paths), trainer)
    return tokenizer


if __name__ == "__main__":
    train(sys.argv[1:]).save(str(Path(__file__).parent / "tokenizer.json"), pretty=False)
