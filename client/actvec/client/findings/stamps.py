"""Whether something that was fitted to vectors may be applied to others."""

from dataclasses import replace

from actvec.client.errors import FailedPrecondition
from actvec.client.records.differences import differences
from actvec.client.records.stamp import Stamp


def stamp_differences(fitted: Stamp, given: Stamp) -> str:
    """How a stamp (here) differs from another (there); the version of actvec does not matter."""
    given = replace(given, actvec_version=fitted.actvec_version)
    return differences(fitted.to_dict(), given.to_dict())


def check_stamps(fitted: Stamp, given: Stamp, what: str) -> None:
    """Hold vectors to those that something was fitted to.

    Args:
        fitted: The stamp of the vectors that it was fitted to.
        given: The stamp of those that it is applied to.
        what: Names it in the error.

    Raises:
        FailedPrecondition: the stamps differ; the message names the fields.
    """
    if reasons := stamp_differences(fitted, given):
        raise FailedPrecondition(f"{what} was made of vectors of another stamp: {reasons}")
