"""`python -m bench.attention`: blocks against torch's fused attention, by length of a document.

Measures the CPU time of one thread, which a busy machine disturbs least, and the relative error of
both against the same attention in float64.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from actvec.server.heap import keep_freed_memory
from actvec.server.model.packed.blocked import Blocks
from bench.arguments import add_rounds, arguments

# The fewest score computations of one measurement.
_LEAST = 1 << 18


def _seconds(work: Callable[[], None], repeats: int) -> float:
    began = time.thread_time()
    for _ in range(repeats):
        work()
    return (time.thread_time() - began) / repeats


@torch.inference_mode()
def compare(
    tokens: int, dtype: torch.dtype, heads: int, width: int, rounds: int
) -> tuple[float, float, float, float]:
    """One causal document: useful FLOP/s fused and by blocks, and the error of each."""
    states = torch.randn(1, tokens, heads, 3 * width).to(dtype).transpose(1, 2)
    # As in a GPT-NeoX: queries and keys are rotated, and so copied.
    query, key, value = states.chunk(3, dim=-1)
    query, key = query.contiguous(), key.contiguous()
    out = query.new_empty(1, tokens, heads, width)
    blocks = Blocks(dtype)

    def fused() -> None:
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        out.copy_(attended.transpose(1, 2))

    def blocked() -> None:
        blocks.attend(query[0], key[0], value[0], out[0])

    repeats = max(1, _LEAST // tokens**2)
    times = [(_seconds(fused, repeats), _seconds(blocked, repeats)) for _ in range(rounds)]
    work = 2 * heads * width * tokens * (tokens + 1)
    first, second = (work / statistics.median(column) for column in zip(*times, strict=True))
    exact = scaled_dot_product_attention(
        query.double(), key.double(), value.double(), is_causal=True
    ).transpose(1, 2)
    errors = []
    for attend in (fused, blocked):
        attend()
        errors.append(float((out.double() - exact).norm() / exact.norm()))
    return first, second, errors[0], errors[1]


def main() -> None:
    """Measure and print a Markdown table per dtype."""
    parser = arguments("attention", __doc__)
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        default=[64, 96, 128, 192, 256, 512, 1024, 2048],
        help="tokens of a document, each measured",
    )
    parser.add_argument("--heads", type=int, default=8, help="heads of the attention")
    parser.add_argument("--width", type=int, default=64, help="width of a head")
    add_rounds(parser, 21)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        print(f"\n{dtype}, {options.heads} heads of {options.width}, GFLOP/s of one thread\n")
        print("| tokens | fused | blocks | blocks are faster by | error, fused | error, blocks |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for tokens in options.lengths:
            fused, blocked, *errors = compare(
                tokens, dtype, options.heads, options.width, options.rounds
            )
            print(
                f"| {tokens} | {fused / 1e9:.0f} | {blocked / 1e9:.0f} | {blocked / fused:.2f}"
                f" | {errors[0]:.1e} | {errors[1]:.1e} |"
            )


if __name__ == "__main__":
    main()
