"""Optional packages, imported on use."""

import importlib
from typing import Any

from actvec.client.errors import MissingExtra


def import_extra(module: str, extra: str) -> Any:
    """A module of a package that an extra of ours installs.

    Raises:
        MissingExtra: it is not installed, or it cannot be imported, as one that was built for
            another version of numpy.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        problem = "is not installed" if missing else f"cannot be imported ({error})"
        raise MissingExtra(
            f"this needs {package}, which {problem}: pip install 'actvec[{extra}]'"
        ) from error
