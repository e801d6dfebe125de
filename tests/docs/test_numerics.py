"""The pools of docs/numerics.md: each row's example is what the row's pool gives."""

import re
from pathlib import Path

import numpy as np
import pytest

from actvec.pooling import PRESETS, PoolTokens, pooling_matrix

PAGE = (Path(__file__).parents[2] / "docs/numerics.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| .* \| ([\d., ]+) \|$", PAGE, re.MULTILINE)
FOUR_TOKENS = PoolTokens(4, 0, True, {"answer": np.array([2, 3])})


def test_page_has_every_kind_of_pool():
    kinds = {name.partition(":")[0] for name, _ in ROWS}
    named = {pool.name for preset in PRESETS.values() for pool in preset}
    assert kinds == named | {"mean", "mean_no_bos", "exp", "exp_tokens", "position", "span"}


@pytest.mark.parametrize(("name", "weights"), ROWS)
def test_example_is_what_the_pool_gives(name, weights):
    expected = [float(weight) for weight in weights.split(", ")]
    assert pooling_matrix([name], FOUR_TOKENS)[0] == pytest.approx(expected, abs=5e-5)
