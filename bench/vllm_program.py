"""vLLM in a process of its own. Another interpreter runs this file, so it imports nothing of ours.

It serves a model's directory with vLLM's pooling runner. When that is ready it writes a line with
vLLM's version. Then it reads one line of JSON per request, a list of documents' token ids, and
answers with the mean `[D]` of each document's last hidden states, float32, as bytes.
"""

import argparse
import json
import os
import sys

import numpy as np


def main() -> None:
    """Answer until the requests end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", help="of the model, as transformers saves it")
    parser.add_argument("--dtype", required=True, help="of the weights")
    parser.add_argument("--context", type=int, required=True, help="tokens of the longest document")
    parser.add_argument("--step-tokens", type=int, required=True, help="tokens of a forward pass")
    parser.add_argument("--cache-bytes", type=int, required=True, help="of keys and values")
    options = parser.parse_args()
    # vLLM and its libraries print what they like on the standard output.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import vllm  # noqa: PLC0415 - after the standard output is out of its reach
    from vllm.config import PoolerConfig  # noqa: PLC0415

    model = vllm.LLM(
        options.directory,
        runner="pooling",
        convert="embed",
        pooler_config=PoolerConfig(pooling_type="MEAN", use_activation=False),
        dtype=options.dtype,
        max_model_len=options.context,
        max_num_batched_tokens=options.step_tokens,
        # A step is full when its tokens are: no other limit on its documents.
        max_num_seqs=options.step_tokens,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=options.cache_bytes,
    )
    answers.write(f"{vllm.__version__}\n".encode())
    answers.flush()
    for request in sys.stdin:
        prompts = [{"prompt_token_ids": ids} for ids in json.loads(request)]
        outputs = model.embed(prompts, use_tqdm=False)
        vectors = np.array([output.outputs.embedding for output in outputs], dtype=np.float32)
        answers.write(vectors.tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
