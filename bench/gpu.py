"""`python -m bench.gpu`: Pythia-12B's exact shape on a GPU, with random weights and no network.

`--served` also saves the whole model (24 GB of temporary space), loads it as a server does, and
measures a server on the same card. `--shape tiny --device cpu` runs every part of it anywhere.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from transformers import GPTNeoXForCausalLM, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from actvec.server.config import ModelOptions
from actvec.server.engine.memory import token_bytes
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.step import StepDocument
from actvec.server.heap import keep_freed_memory
from actvec.server.model.card import ModelCard
from actvec.server.model.loading import LoadedModel, default_layers, load_model
from actvec.server.model.packed.attention import PACKED, register_packed_attention
from actvec.server.model.pruning import pruned
from bench.arguments import add_rounds, add_shape, arguments
from bench.contenders import Contender, Lens, Packed, Padded, Served
from bench.race import race
from bench.serving import serving
from bench.vllm_peer import CutModel, vllm
from bench.workload import SHAPES, Ids, Shape, Workload, random_documents

Weights = dict[str, torch.Tensor]


def truncated_model(shape: Shape, layers: tuple[int, ...], dtype: str, device: str) -> LoadedModel:
    """Make the blocks up to the last target, with random weights, on the device."""
    register_packed_attention()
    config = shape.config()
    model = pruned(GPTNeoXForCausalLM, layers[-1] + 1)
    with torch.device(device):
        module = model._from_config(config, dtype=getattr(torch, dtype), attn_implementation=PACKED)
    card = ModelCard(
        model=f"random {shape.name}",
        revision="",
        architecture="GPTNeoXForCausalLM",
        n_layers=shape.blocks,
        n_layers_loaded=layers[-1] + 1,
        layers=layers,
        d_model=shape.hidden,
        context=shape.context,
        dtype=dtype,
        device=device,
        tokenizer_sha256="",
    )
    demo = load_model(ModelOptions())
    return LoadedModel(
        card, module.eval().requires_grad_(False), demo.tokenizer, demo.bos, shape.vocabulary
    )


def whole_model(shape: Shape, card: ModelCard, weights: Weights, attention: str) -> PreTrainedModel:
    """Make the whole model with its LM head; it shares the weights of the truncated one."""
    with torch.device(card.device):
        module: PreTrainedModel = GPTNeoXForCausalLM._from_config(
            shape.config(), dtype=getattr(torch, card.dtype), attn_implementation=attention
        )
    unknown = module.load_state_dict(weights, strict=False, assign=True).unexpected_keys
    assert not unknown, unknown
    return module.eval().requires_grad_(False)


def peers(shape: Shape, card: ModelCard, weights: Weights, batch: int) -> list[Contender]:
    """The usual alternatives, with all layers and LM head, on the same weights."""
    layers = card.layers
    attentions = ["sdpa"]
    if card.device.startswith("cuda") and is_flash_attn_2_available():
        attentions.append("flash_attention_2")
    contenders: list[Contender] = []
    for attention in attentions:
        whole = whole_model(shape, card, weights, attention)
        label = f"transformers with LM head, {attention}"
        contenders += [
            Padded(whole, layers, batch=batch, by_length=True, label=label),
            Padded(whole, layers, batch=batch, label=label),
        ]
    whole = whole_model(shape, card, weights, "eager")
    contenders.append(Lens(whole, layers, filtered=True))
    contenders.append(Lens(whole, layers, filtered=False))
    return contenders


def neighbors(engine: PackedEngine, documents: Sequence[Ids]) -> None:
    """Print how far vectors depend on the rest of the step."""
    together = engine.run([StepDocument.of(ids, "long") for ids in documents])
    same, least = 0, 1.0
    for ids, pools in zip(documents, together, strict=True):
        (alone,) = engine.run([StepDocument.of(ids, "long")])
        assert not isinstance(pools, Exception)
        assert not isinstance(alone, Exception)
        same += np.array_equal(alone, pools)
        cosine = np.vdot(alone, pools) / (np.linalg.norm(alone) * np.linalg.norm(pools))
        least = min(least, float(cosine))
    print(
        f"\n{same} of {len(documents)} documents have bit for bit the vector alone that they have "
        f"in one step of {sum(map(len, documents))} tokens; the least cosine is 1 - {1 - least:.0e}"
    )


def step_memory(engine: PackedEngine, lengths: Sequence[int]) -> None:
    """Print the memory of a step of one document, as counted and, on a GPU, as allocated."""
    device = engine.card.device
    each = token_bytes(engine)
    print("\n| tokens of the document | estimate at the start, GiB | allocated at the peak, GiB |")
    print("| ---: | ---: | ---: |")
    for length in lengths:
        document = [StepDocument.of(np.zeros(length, dtype=np.int64), "long")]
        shown = "not measured on a CPU"
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            engine.run(document)
            shown = f"{(torch.cuda.max_memory_allocated(device) - before) / 2**30:.3g}"
        print(f"| {length} | {each * engine.rows(length) / 2**30:.3g} | {shown} |")


def saved_model(workload: Workload, dtype: str, device: str) -> LoadedModel:
    """Load the blocks up to the last target as a server does, and print how long it takes."""
    size = sum(path.stat().st_size for path in workload.directory.glob("*.safetensors"))
    start = time.perf_counter()
    loaded = workload.load(dtype, device=device)
    seconds = time.perf_counter() - start
    print(
        f"loaded to {device} in {seconds:.1f} s, from a file of {size / 1e9:.2f} GB, just written"
    )
    return loaded


def measure(shape: Shape, dtype: str, options: argparse.Namespace) -> None:
    """Measure one dtype and print Markdown tables."""
    layers = default_layers(shape.blocks)
    device = options.device
    print(f"\n## {shape.name}, {dtype}\n")
    with ExitStack() as running:
        served: list[Contender] = []
        if options.served:
            workload = Workload(shape, options.documents, median=500, dtype=dtype, device=device)
            documents = workload.documents
            serve = (
                f"--dtype={dtype}",
                f"--device={device}",
                f"--step-tokens={options.budgets[0]}",
            )
            server = running.enter_context(serving(workload.directory, *serve))
            served.append(Served(server, workload.texts))
            loaded = saved_model(workload, dtype, device)
        else:
            documents = random_documents(shape, options.documents)
            loaded = truncated_model(shape, layers, dtype, device)
        # Before TransformerLens wraps the modules and renames them.
        weights = loaded.module.state_dict()
        cut = CutModel.of(loaded)
        engine = PackedEngine(loaded)
        size = sum(value.nbytes for value in weights.values())
        print(f"{layers[-1] + 1} blocks and the embedding: {size / 1e9:.2f} GB of weights\n")
        contenders: list[Contender] = [Packed(engine, budget) for budget in options.budgets]
        contenders += [Packed(engine, options.budgets[0], mean=True), *served]
        if not options.only_packed:
            contenders += peers(shape, loaded.card, weights, options.batch)
        if options.vllm:
            peer = vllm(options.vllm, cut, engine, documents, step_tokens=options.budgets[0])
            contenders.append(running.enter_context(peer))
        race(
            contenders,
            documents,
            shape=shape,
            layers=layers,
            dtype=dtype,
            device=device,
            rows=options.budgets[0],
            rounds=options.rounds,
        )
        neighbors(engine, documents[:24])
        step_memory(engine, [shape.context // 4, shape.context, 4 * shape.context])


def main() -> None:
    """Measure and print Markdown tables."""
    parser = arguments("gpu", __doc__)
    add_shape(parser, SHAPES, default="12b")
    parser.add_argument("--device", default="cuda:0", help="the device to measure")
    parser.add_argument(
        "--dtype", nargs="+", default=["bfloat16", "float16"], help="of the weights, each in turn"
    )
    parser.add_argument("--documents", type=int, default=128, help="documents per round")
    parser.add_argument(
        "--budgets",
        type=int,
        nargs="+",
        default=[8192, 512, 2048, 4096, 16_384],
        help="tokens of a packed step, each measured; the first for all else",
    )
    parser.add_argument("--batch", type=int, default=8, help="documents of a peer's padded batch")
    add_rounds(parser, 3)
    parser.add_argument("--only-packed", action="store_true", help="skip the peers")
    parser.add_argument("--vllm", metavar="PYTHON", help="also measure vLLM, with this interpreter")
    parser.add_argument("--served", action="store_true", help="also measure a server")
    options = parser.parse_args()
    keep_freed_memory()
    for dtype in options.dtype:
        measure(SHAPES[options.shape], dtype, options)
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
