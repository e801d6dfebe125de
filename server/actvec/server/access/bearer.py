"""Bearer tokens, of a file and of the environment."""

import hashlib
import hmac
from collections.abc import Sequence

from actvec.server.config import AccessOptions
from actvec.server.errors import StartupError, UnauthenticatedError

Metadata = Sequence[tuple[str, str | bytes]]
"""The metadata of a call, as gRPC hands it over."""

# Its `Watch` has no end, and watching strangers would take the places of streams.
_HEALTH = "/grpc.health.v1.Health/Check"
_SCHEME = "bearer "


class Tokens:
    """The tokens that callers may bring. Only their hashes are kept, and nothing logs them.

    Raises:
        StartupError: the file cannot be read, or has no token.
    """

    def __init__(self, options: AccessOptions) -> None:
        self._options = options
        self._digests = self._read()

    def __len__(self) -> int:
        return len(self._digests)

    def reload(self) -> None:
        """Read the file again, whole or not at all: tokens that are gone count no more.

        Raises:
            StartupError: as at the start; the tokens are as they were before.
        """
        self._digests = self._read()

    def check(self, method: str, metadata: Metadata) -> str:
        """Let a call pass, and return an identifier of its caller, empty without tokens.

        Raises:
            UnauthenticatedError: it brings no token, or an unknown one.
        """
        if not self._digests or (self._options.open_health and method == _HEALTH):
            return ""
        header = next((value for key, value in metadata if key == "authorization"), "")
        text = header.decode("latin-1") if isinstance(header, bytes) else header
        if not text.lower().startswith(_SCHEME):
            raise UnauthenticatedError(
                "this server needs a token: send metadata `authorization: Bearer TOKEN`"
            )
        digest = _digest(text[len(_SCHEME) :].strip())
        # All are compared, so that the time taken does not tell which one was near.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise UnauthenticatedError(
                "this server does not know the token; ask its operator for a valid one"
            )
        return digest.hex()

    def _read(self) -> tuple[bytes, ...]:
        tokens = set()
        if self._options.token is not None:
            tokens.add(self._options.token)
        path = self._options.token_file
        if path is not None:
            try:
                # Editors on Windows begin a file with a mark.
                text = path.read_text(encoding="utf-8-sig")
            except OSError as error:
                raise StartupError(
                    f"cannot read the token file {path}: {error.strerror}", setting="token_file"
                ) from error
            except UnicodeDecodeError as error:
                raise StartupError(
                    f"the token file {path} is not text in UTF-8", setting="token_file"
                ) from error
            lines = (line.strip() for line in text.splitlines())
            found = {line for line in lines if line and not line.startswith("#")}
            if not found:
                raise StartupError(
                    f"the token file {path} has no token: write one per line", setting="token_file"
                )
            tokens |= found
        for token in tokens:
            # A token that cannot travel in a header would lock its owner out without a reason.
            if not (token.isascii() and token.isprintable() and " " not in token):
                raise StartupError(
                    "a token has spaces, or characters other than printable ASCII; correct it in "
                    "the token file, or in ACTVEC_TOKEN"
                )
        return tuple(sorted(map(_digest, tokens)))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
