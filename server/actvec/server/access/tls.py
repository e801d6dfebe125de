"""The server's certificate, and whose certificates its callers need."""

import ssl

import grpc

from actvec.server.config import AccessOptions
from actvec.server.errors import StartupError


class ServerTls:
    """TLS from the files of the options, which are read again on `reload`.

    Raises:
        StartupError: a file is missing, is not PEM, or does not go with the others.
    """

    def __init__(self, options: AccessOptions) -> None:
        self._options = options
        self._first = self._read()
        self._renewed: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of a port; new connections get the files as last read."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._take_renewed,  # type: ignore[arg-type]  # None: no change
            require_client_authentication=self._options.tls_client_ca is not None,
        )

    def reload(self) -> None:
        """Read the files again; connections that stand keep their certificate.

        Raises:
            StartupError: as at the start; the certificate is as it was before.
        """
        self._renewed = self._read()

    def _take_renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake, on a thread of its own; None for no change."""
        renewed, self._renewed = self._renewed, None
        return renewed

    def _read(self) -> grpc.ServerCertificateConfiguration:
        cert, key, ca = (
            self._options.tls_cert,
            self._options.tls_key,
            self._options.tls_client_ca,
        )
        if cert is None or key is None:
            raise StartupError(
                "a certificate and its private key belong together, and checking the certificates "
                "of callers needs them",
                setting="tls_cert",
            )
        try:
            configuration = grpc.ssl_server_certificate_configuration(
                [(key.read_bytes(), cert.read_bytes())],
                root_certificates=None if ca is None else ca.read_bytes(),
            )
            # gRPC accepts anything and then fails every handshake; OpenSSL names the fault.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key, password=_refuse_password)
            if ca is not None:
                context.load_verify_locations(ca)
        except ssl.SSLError as error:
            files = ", ".join(str(path) for path in (cert, key, ca) if path is not None)
            raise StartupError(
                f"cannot use {files} for TLS: {error.reason or error}. Give PEM files, "
                "and the key that belongs to the certificate"
            ) from error
        except OSError as error:
            raise StartupError(f"cannot read {error.filename}: {error.strerror}") from error
        return configuration


def _refuse_password() -> str:
    raise StartupError(
        "the private key is encrypted with a password; give a key that is not", setting="tls_key"
    )
