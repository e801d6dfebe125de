"""Whether a contender computed the vectors that it should: its speed would mean nothing else."""

from collections.abc import Sequence

import numpy as np

from actvec.server.engine.pools import Pools

# The largest difference of a document's vector, as a fraction of its norm: each of the two may
# differ from the reference by 1e-5, or by a cosine of 0.9999, which is 1.4% (docs/numerics.md).
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.028, "float16": 0.028}


def check_agreement(
    name: str, pools: Sequence[Pools], expected: Sequence[Pools], dtype: str
) -> None:
    """End the program if a contender's vectors differ from the expected ones.

    Args:
        name: The contender's name.
        pools: Its pools of each document.
        expected: What they should be.
        dtype: The dtype of the arithmetic, which decides the tolerance.
    """
    for number, (theirs, ours) in enumerate(zip(pools, expected, strict=True)):
        if theirs.shape != ours.shape:
            raise SystemExit(f"{name}: pools of {theirs.shape} where {ours.shape} are right")
        difference = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
        # Also if it is not a number.
        if not difference <= TOLERANCE[dtype]:
            raise SystemExit(
                f"{name}: the vector of document {number} differs by {difference:.1e} of its norm; "
                f"in {dtype} at most {TOLERANCE[dtype]} is allowed"
            )
