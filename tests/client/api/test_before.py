"""Vectors of a version from before requests named pools and layers: what is stored of it agrees."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.client.api.before.presets import STORED, TEXTS


@pytest.mark.parametrize("mode", ["short", "long"])
def test_presets_agree_with_the_version_before(client, mode):
    before = load_file(STORED)
    for number, text in enumerate(TEXTS):
        expected = before[f"{mode}-{number}"]
        found = client.extract(text, mode=mode).values
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
