"""vLLM's pooling runner, in an environment of its own: its pins differ from ours.

It gets a checkpoint of the blocks that our vectors need and no others, and packs documents into
steps of as many tokens. Behind the last block it applies the model's final norm, so its vectors are
compared with the mean of our states of that block behind the same norm.
"""

import copy
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import layer_norm
from transformers import PreTrainedTokenizerFast

from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.pools import Pools
from actvec.server.model.loading import LoadedModel
from actvec.server.model.target import RESID_POST, Point
from bench.agreement import check_agreement
from bench.workload import Ids

_PROGRAM = Path(__file__).with_name("vllm_program.py")
_ADVICE = 'bench/README.md, section "vLLM", tells how to make its environment'


@dataclass(frozen=True)
class CutModel:
    """A GPT-NeoX that ends after the last target block, with its final norm.

    Attributes:
        config: transformers' configuration of so many blocks.
        weights: Its tensors, by name.
        tokenizer: Any; vLLM wants one, though it gets token ids.
        dtype: The dtype of its arithmetic.
    """

    config: Any
    weights: dict[str, torch.Tensor]
    tokenizer: PreTrainedTokenizerFast
    dtype: str

    @classmethod
    def of(cls, loaded: LoadedModel) -> Self:
        """Take a loaded model's tensors, before an engine arranges them in its own way."""
        base = loaded.module.base_model
        config = copy.deepcopy(base.config)
        config.num_hidden_layers = loaded.card.layers[-1] + 1
        config.architectures = ["GPTNeoXModel"]
        return cls(config, base.state_dict(), loaded.tokenizer, loaded.card.dtype)

    def save(self, directory: Path) -> None:
        """Write it as transformers and vLLM load it."""
        self.config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        tensors = {name: tensor.contiguous() for name, tensor in self.weights.items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    def cache_bytes(self, step_tokens: int) -> int:
        """Memory for keys and values that never limits a step of documents of usual lengths."""
        size = getattr(torch, self.dtype).itemsize
        token = 2 * self.config.num_hidden_layers * self.config.hidden_size * size
        return int(max(1 << 30, 4 * step_tokens * token))

    @torch.inference_mode()
    def means(self, engine: PackedEngine, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the mean `[1, 1, D]` of each document's final states, by our engine."""
        last = Point(self.config.num_hidden_layers - 1, RESID_POST)
        means = []
        for ids in documents:
            (states,) = engine.layer_states([ids], [last])
            normed = layer_norm(
                states[: len(ids)],
                states.shape[1:],
                self.weights["final_layer_norm.weight"],
                self.weights["final_layer_norm.bias"],
                self.config.layer_norm_eps,
            )
            means.append(normed.float().mean(0)[None, None].cpu().numpy())
        return means


class VLLM:
    """A running vLLM, as a contender."""

    comparable = False

    def __init__(self, process: subprocess.Popen[bytes], log: Path, model: CutModel, rows: int):
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._requests: IO[bytes] = process.stdin
        self._answers: IO[bytes] = process.stdout
        self._log = log
        self._width = model.config.hidden_size
        version = self._answers.readline().decode().strip()
        if not version:
            raise SystemExit(f"{self._ended('before it was ready')}; {_ADVICE}")
        self.name = (
            f"vLLM {version}, pooling runner, mean of {model.config.num_hidden_layers} blocks, "
            f"steps of {rows} tokens"
        )

    def run(self, documents: Sequence[Ids]) -> list[Pools]:
        """Compute the mean of each document's last hidden states."""
        size = 4 * len(documents) * self._width
        try:
            self._requests.write(json.dumps([ids.tolist() for ids in documents]).encode() + b"\n")
            self._requests.flush()
            answer = self._answers.read(size)
        except BrokenPipeError:
            answer = b""
        if len(answer) < size:
            raise SystemExit(self._ended(f"with {len(documents)} documents at work"))
        vectors = np.frombuffer(answer, np.float32).reshape(len(documents), 1, 1, self._width)
        return list(vectors)

    def _ended(self, when: str) -> str:
        code = self._process.wait()
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line]
        # After an exception, vLLM's own processes may still print.
        errors = [line for line in lines if re.match(r"\w+(\.\w+)*(Error|Exception)\b", line)]
        last = (errors or lines or ["it printed nothing"])[-1]
        return f"vLLM ended {when}, exit code {code}: {last}"


@contextmanager
def vllm(
    python: str,
    model: CutModel,
    engine: PackedEngine,
    documents: Sequence[Ids],
    *,
    step_tokens: int,
) -> Iterator[VLLM]:
    """Start vLLM and compare its vectors with ours; it runs until the block ends.

    Args:
        python: The interpreter of an environment with vLLM.
        model: The model that it loads.
        engine: An engine of the same model.
        documents: The documents to compare.
        step_tokens: Tokens of its packed steps.

    Raises:
        SystemExit: vLLM does not start, ended, or computed other vectors.
    """
    with tempfile.TemporaryDirectory(prefix="actvec-bench-", ignore_cleanup_errors=True) as folder:
        checkpoint = Path(folder, "model")
        model.save(checkpoint)
        log = Path(folder, "log")
        command = [
            python,
            # The program's folder holds modules of ours that the environment must not import.
            "-P",
            str(_PROGRAM),
            str(checkpoint),
            f"--dtype={model.dtype}",
            f"--context={model.config.max_position_embeddings}",
            f"--step-tokens={step_tokens}",
            f"--cache-bytes={model.cache_bytes(step_tokens)}",
        ]
        try:
            with log.open("wb") as errors:
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=_environment(python, engine.card.device, folder),
                    # vLLM starts processes of its own, which end with it.
                    start_new_session=True,
                )
        except OSError as error:
            raise SystemExit(f"vLLM cannot run in {python}: {error.strerror}; {_ADVICE}") from None
        try:
            contender = VLLM(process, log, model, step_tokens)
            expected = model.means(engine, documents)
            check_agreement(contender.name, contender.run(documents), expected, model.dtype)
            yield contender
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(python: str, device: str, folder: str) -> dict[str, str]:
    """The variables of vLLM's process: our number of threads, no network, no files elsewhere."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": folder,
        "TMPDIR": folder,
    }
    if device != "cpu":
        return environment
    # By default vLLM computes in a process of its own, and leaves a processor to the one that
    # schedules: of two processors, half.
    environment |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    # Its documentation asks for Intel's OpenMP, which it requires on x86 and does not load itself.
    openmp = Path(python).absolute().parents[1] / "lib" / "libiomp5.so"
    if openmp.exists():
        # Its threads spin for 5 ms after their work, as vLLM has it, and not into our rounds.
        environment |= {"LD_PRELOAD": str(openmp), "KMP_BLOCKTIME": "5"}
    return environment
