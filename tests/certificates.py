"""A certificate authority of the tests, and the certificates it signs."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate chain and its private key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.pem = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def issue(self, name: str, *identities: str) -> Certificate:
        """Issue a certificate for host names, addresses or mail addresses, in files `name`."""
        leaf = self._ca.issue_cert(*identities)
        issued = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        leaf.private_key_pem.write_to_path(issued.key)
        issued.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return issued
