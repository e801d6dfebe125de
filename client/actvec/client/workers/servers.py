"""The servers of one client: one at an address, or the workers of a deployment."""

from collections.abc import Mapping

from actvec.client.errors import InvalidArgument
from actvec.client.transport.address import MODAL, Address, FixedPlace, Resolver, Waking
from actvec.client.transport.channel import TlsFiles, call_metadata
from actvec.client.transport.connection import Connection
from actvec.client.transport.seconds import TimeLeft
from actvec.client.workers.directory import Deployment
from actvec.client.workers.fleet import Fleet
from actvec.v1 import model_pb2

# Seconds in which a worker answers that is there.
_PROBE = 10.0

# A worker that does not answer is gone, not asleep: only a search finds another one.
_NEVER_ASLEEP = Waking(seconds=0)


class Servers:
    """Connections to them, made as they are needed.

    Attributes:
        first: The one for calls that need a single server.
    """

    def __init__(
        self,
        target: str | Deployment,
        *,
        token: str | None,
        headers: Mapping[str, str] | None,
        tls: TlsFiles,
        workers: int | None,
        waking: Waking,
    ) -> None:
        """Remember the target and the credentials; nothing is sent.

        Raises:
            InvalidTarget: `target` is no address.
            InvalidArgument: an argument does not go with the target.
            InsecureToken: the token or a header would travel in the clear to another machine.
            MissingExtra: `target` is on Modal, and modal is not installed.
        """
        if workers is not None and workers < 1:
            raise InvalidArgument(f"workers is 1 or more, not {workers}")
        self._tls = tls
        deployment = _deployment(target)
        self._fleet: Fleet | None = None
        if deployment is not None:
            if not token:
                raise InvalidArgument(
                    f"the workers of {deployment} need a token: give the one of the secret "
                    "actvec-token",
                    setting="token",
                )
            self._metadata = call_metadata(token, headers, None)
            self._fleet = Fleet(deployment, workers or 1, self._probe, waking)
            self.first = self._to_worker(self._fleet.place())
        else:
            if workers is not None:
                raise InvalidArgument(
                    f"{target} is one server; workers need a deployment, such as modal://APP"
                )
            address = Address.parse(str(target))
            if tls and not address.encrypted:
                raise InvalidArgument(
                    f"certificates are for TLS; write the target as https://{address}"
                )
            self._metadata = call_metadata(token, headers, address)
            self.first = Connection(FixedPlace(address), self._metadata, tls, waking)
        self._others: list[Connection] = []

    async def lanes(self) -> list[Connection]:
        """Connections to all servers that bulk work is spread over.

        Raises:
            ActvecError: a worker refuses this client.
        """
        if self._fleet is None:
            return [self.first]
        count = await self._fleet.count()
        while len(self._others) < count - 1:
            self._others.append(self._to_worker(self._fleet.place()))
        return [self.first, *self._others[: count - 1]]

    async def close(self) -> None:
        """Cancel calls in flight and disconnect."""
        for connection in (self.first, *self._others):
            await connection.close()

    def _to_worker(self, place: Resolver) -> Connection:
        return Connection(place, self._metadata, self._tls, _NEVER_ASLEEP)

    async def _probe(self, target: Address) -> None:
        probing = self._to_worker(FixedPlace(target))
        try:
            await probing.unary(
                lambda stub: stub.GetModelInfo,
                model_pb2.GetModelInfoRequest(),
                TimeLeft(_PROBE),
                repeatable=False,
            )
        finally:
            await probing.close()


def _deployment(target: str | Deployment) -> Deployment | None:
    if not isinstance(target, str):
        return target
    if not target.strip().startswith(MODAL):
        return None
    from actvec.client.workers.modal import ModalDeployment  # noqa: PLC0415 - only on request

    return ModalDeployment.parse(target)
