"""Access to the server: tokens, certificates, and a refusal to serve everybody by accident."""

import logging
from dataclasses import dataclass

from actvec.server.access.bearer import Tokens
from actvec.server.access.tls import ServerTls
from actvec.server.config import ServerConfig
from actvec.server.errors import StartupError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """Decides which callers may call.

    Attributes:
        tokens: The tokens that callers may bring.
        tls: The server's certificate; None for connections in the clear.
    """

    tokens: Tokens
    tls: ServerTls | None

    @classmethod
    def of(cls, config: ServerConfig) -> "Access":
        """The access that the options describe.

        Raises:
            StartupError: a file cannot be used; or other machines reach the address and nothing
                keeps them from calling.
        """
        _check_exposure(config)
        options = config.access
        files = (options.tls_cert, options.tls_key, options.tls_client_ca)
        return cls(Tokens(options), ServerTls(options) if any(files) else None)

    def reload(self) -> None:
        """Read the files again. If one cannot be used, log that and keep its old content."""
        parts: list[Tokens | ServerTls] = [self.tokens, *([self.tls] if self.tls else [])]
        for part in parts:
            try:
                part.reload()
            except StartupError as error:
                log.error("%s; the server keeps the tokens and certificates that it has", error)
        log.info("read tokens and certificates again; %d tokens", len(self.tokens))


def _check_exposure(config: ServerConfig) -> None:
    access = config.access
    guarded = access.token or access.token_file or access.tls_client_ca
    if not (config.is_loopback or guarded or access.insecure):
        raise StartupError(
            f"{config.host} can be reached by other machines, and everybody there could call",
            setting="host",
        )
