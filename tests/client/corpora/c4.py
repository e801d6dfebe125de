"""Files in the shape of C4's, for `datasets` to read."""

import gzip
import json
import random

SHARDS = 3
ROWS = 60


def c4_rows(shard, rows=ROWS, most=30):
    """Rows like C4's: of all lengths, some empty, and one that every shard has."""
    chance = random.Random(shard)  # noqa: S311 - no secret
    for row in range(rows):
        words = [f"word{chance.randrange(100)}" for _ in range(chance.randrange(1, most))]
        text = "" if row % 20 == 7 else f"{shard} {row} " + " ".join(words)
        if row == 11:
            text = "the same text of ten words in every single shard"
        yield {
            "text": text,
            "timestamp": "2019-04-25T12:57:54Z",
            "url": f"https://example.org/{shard}/{row}",
        }


def write_shards(folder, shards=SHARDS, rows=ROWS, most=30):
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        lines = "".join(json.dumps(row) + "\n" for row in c4_rows(shard, rows, most))
        path = folder / f"c4-train.{shard:05d}-of-{shards:05d}.json.gz"
        path.write_bytes(gzip.compress(lines.encode()))
    return folder
