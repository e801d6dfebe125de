"""`python -m bench.cpu`: tokens per second of the engine, on this machine's CPU.

It races other programs (the peers) with the same weights and documents, and compares the engine
with the limit: the time that the fastest matrix products alone would take.
"""

from contextlib import ExitStack

from actvec.server.engine.memory import DEFAULT_STEP_TOKENS
from actvec.server.engine.packed import PackedEngine
from actvec.server.heap import keep_freed_memory
from bench.arguments import add_rounds, add_shape, arguments
from bench.contenders import Contender, Lens, Packed, Padded, Served
from bench.peers import installed_peers
from bench.profiling import print_profile
from bench.race import race
from bench.serving import serving
from bench.vllm_peer import CutModel, vllm
from bench.workload import SHAPES, Workload


def main() -> None:
    """Measure and print a Markdown table."""
    parser = arguments("cpu", __doc__)
    add_shape(parser, ["tiny", "70m", "160m"])
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the weights and of the arithmetic",
    )
    parser.add_argument("--documents", type=int, default=48, help="documents per round")
    add_rounds(parser, 3)
    parser.add_argument(
        "--step-tokens",
        type=int,
        default=DEFAULT_STEP_TOKENS["cpu"],
        help="tokens of one packed forward pass",
    )
    parser.add_argument("--only-packed", action="store_true", help="skip the peers")
    parser.add_argument("--vllm", metavar="PYTHON", help="also measure vLLM, with this interpreter")
    parser.add_argument(
        "--profile", action="store_true", help="only print where a step's time goes"
    )
    options = parser.parse_args()
    keep_freed_memory()

    workload = Workload(SHAPES[options.shape], options.documents)
    loaded = workload.load(options.dtype)
    # Before the engine arranges its tensors.
    cut = CutModel.of(loaded)
    engine = PackedEngine(loaded)
    if options.profile:
        print_profile(engine, workload.documents, options.step_tokens)
        return
    layers = engine.card.layers
    contenders: list[Contender] = [
        Packed(engine, options.step_tokens),
        Packed(engine, options.step_tokens, mean=True),
    ]
    if not options.only_packed:
        whole = workload.load(options.dtype, engine="lens").module
        base = workload.base_model(options.dtype)
        contenders += [
            Padded(base, layers, batch=8, by_length=True),
            Padded(base, layers, batch=8),
            Lens(whole, layers, filtered=True),
            Lens(whole, layers, filtered=False),
            *installed_peers(workload, base, layers),
        ]
    serve = (f"--dtype={options.dtype}", f"--step-tokens={options.step_tokens}")
    with ExitStack() as running:
        if options.vllm:
            peer = vllm(
                options.vllm, cut, engine, workload.documents, step_tokens=options.step_tokens
            )
            contenders.append(running.enter_context(peer))
        server = running.enter_context(serving(workload.directory, *serve))
        race(
            [*contenders, Served(server, workload.texts)],
            workload.documents,
            shape=workload.shape,
            layers=layers,
            dtype=options.dtype,
            device="cpu",
            rows=options.step_tokens,
            rounds=options.rounds,
        )


if __name__ == "__main__":
    main()
