"""Which tables vectors are written to, and what each of them holds."""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from actvec.client.records.settings import Mode
from actvec.client.records.stamp import Stamp
from actvec.client.records.vectors import Vector
from actvec.pooling import pools

_MODES: tuple[Mode, ...] = ("short", "long")
_NAME = r"vectors_{}_mode_(raw|centered)\.csv"


@dataclass(frozen=True)
class TablePart:
    """The part of a vector that one table holds.

    Attributes:
        name: Stands in the file's name.
        layer: Which of the vector's layers, from 0; None for all that it has.
        pools: Which of its pools, from 0.
    """

    name: str
    layer: int | None
    pools: tuple[int, ...]

    def table_name(self, *, centered: bool) -> str:
        """The name of the file."""
        return f"vectors_{self.name}_{'centered' if centered else 'raw'}.csv"

    def of(self, vector: Vector) -> NDArray[np.float32]:
        """The part of a vector, flat."""
        layers = vector.array if self.layer is None else vector.array[[self.layer]]
        return layers[:, self.pools].reshape(-1)

    def stamp(self, stamp: Stamp) -> Stamp:
        """The stamp of the part."""
        layers = stamp.layers if self.layer is None else (stamp.layers[self.layer],)
        # One layer is the mean of itself.
        separate = stamp.separate_layers and self.layer is None
        return replace(stamp.pick(layers, self.pools), separate_layers=separate)


def parts_of(stamp: Stamp) -> list[TablePart]:
    """The tables that vectors of a stamp have: a preset's, or one for each layer and pool."""
    if stamp.mode is not None and not stamp.separate_layers:
        names = [pool.name for pool in stamp.pools]
        return [
            TablePart(f"{mode}_mode", None, tuple(names.index(pool.name) for pool in pools(mode)))
            for mode in _MODES
            if mode == "short" or stamp.mode == "long"
        ]
    pool_names = [pool.name.replace(":", "_") for pool in stamp.pools]
    if not stamp.separate_layers:
        return [TablePart(name, None, (at,)) for at, name in enumerate(pool_names)]
    return [
        TablePart(f"layer{layer}_{name}", number, (at,))
        for number, layer in enumerate(stamp.layers)
        for at, name in enumerate(pool_names)
    ]


def preset_of(name: str) -> Mode | None:
    """The preset of a table, if the name of its file is one of `TablePart.table_name`."""
    return next((mode for mode in _MODES if re.fullmatch(_NAME.format(mode), name)), None)
