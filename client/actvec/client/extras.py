"""Optional packages, imported on use."""

import importlib
from typing import Any

from actvec.client.errors import MissingExtra


def import_extra(module: str, extra: str) -> Any:
    """A module of a package that an extra of ours installs.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtra(
            f"this needs {package}, which is not installed: pip install 'actvec[{extra}]'"
        ) from error
