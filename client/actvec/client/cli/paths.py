"""Paths and URLs that options name."""

import os
from pathlib import Path
from typing import Any

import click

from actvec.client.bulk.remote import is_remote

# The stores that take a job, for the help of options.
URLS = "s3://BUCKET/PATH, gs://BUCKET/PATH or hf://datasets/OWNER/NAME/PATH"


class OutPath(click.Path):
    """A path to write to. A URL is refused, because it would name a folder of this machine."""

    def __init__(self, *, dir_okay: bool = True, file_okay: bool = True) -> None:
        super().__init__(dir_okay=dir_okay, file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path that a text names."""
        if is_remote(value):
            self.fail(
                f"{value} is a URL; only --out of `actvec stream`, `actvec local` and `actvec ray`"
                " may be one",
                param,
                ctx,
            )
        return super().convert(_local(self, value, param, ctx), param, ctx)


class PathOrUrl(click.Path):
    """A path, or the URL of a store; a URL stays a string.

    Args:
        exists: Whether a path must exist.
        dir_okay: Whether a path may be one of a folder.
        file_okay: Whether a path may be one of a file.
    """

    def __init__(
        self, *, exists: bool = False, dir_okay: bool = True, file_okay: bool = True
    ) -> None:
        super().__init__(exists=exists, dir_okay=dir_okay, file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path or the URL that a text names."""
        if is_remote(value):
            return value
        return super().convert(_local(self, value, param, ctx), param, ctx)


def _local(
    kind: click.Path, value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> Any:
    """A written path with a leading `~` as the home directory; an empty one is refused.

    A shell does not replace `~` in `--out=~/vectors`, and `rm -r ~` would not remove a folder of
    that name. The value of an unset variable is empty, and would stand for this folder. The home
    of an unknown user stays as written.
    """
    if value == "":
        kind.fail("it is empty; name a path, or . for this folder", param, ctx)
    return os.path.expanduser(value)


safetensors_option = click.option(
    "--out",
    type=OutPath(dir_okay=False),
    required=True,
    help="The safetensors file to write.",
)
