"""Paths and URLs that arguments and options name."""

from pathlib import Path
from typing import Any

import click

from actvec.client.bulk.remote import is_remote
from actvec.client.files import given_path

# The stores that take a job, for the help of options.
URLS = "s3://BUCKET/PATH, gs://BUCKET/PATH or hf://datasets/OWNER/NAME/PATH"


class AnyPath(click.Path):
    """A path on this machine, or the URL of a store.

    A leading `~` is the home directory (`given_path`): a shell does not replace it in
    `--out=~/vectors`. An empty path is refused: the value of an unset variable is empty, and would
    stand for this folder.

    Args:
        url_okay: Whether it may be a URL, which stays a string. Otherwise one is refused: it would
            name a folder of this machine.
        exists: Whether a path must exist.
        dir_okay: Whether a path may be one of a folder.
        file_okay: Whether a path may be one of a file.
    """

    def __init__(
        self,
        *,
        url_okay: bool = False,
        exists: bool = False,
        dir_okay: bool = True,
        file_okay: bool = True,
    ) -> None:
        super().__init__(exists=exists, dir_okay=dir_okay, file_okay=file_okay, path_type=Path)
        self._url_okay = url_okay

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path or the URL that a text names."""
        if value == "":
            self.fail("it is empty; name a path, or . for this folder", param, ctx)
        if not is_remote(value):
            return super().convert(given_path(value), param, ctx)
        if not self._url_okay:
            self.fail(
                f"{value} is a URL; only --out of `actvec stream`, `actvec local` and `actvec ray`,"
                " and --to and --center of `actvec local`, may be one",
                param,
                ctx,
            )
        return value


safetensors_option = click.option(
    "--out",
    type=AnyPath(dir_okay=False),
    required=True,
    help="The safetensors file to write.",
)
