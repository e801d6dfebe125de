"""Runs of `actvec local` in this process."""

from click.testing import CliRunner, Result

from actvec.shards.command import local

TEXTS = [f"In {year} the bridge was closed for repairs." for year in range(1700, 1730)]


def run(*arguments: object) -> Result:
    """Run the command; documents that fail are no error here."""
    ran = CliRunner().invoke(local, [str(argument) for argument in arguments])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran
