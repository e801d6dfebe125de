"""The workers that a client has started and that do not serve yet."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from actvec.client.errors import ActvecError
from actvec.client.workers.directory import Deployment, Directory, Starting


@dataclass(frozen=True)
class _Start:
    id: str
    starting: Starting


class Starts:
    """The starts of all searches of one client, each under a claim until its worker serves.

    Args:
        deployment: What starts workers.
        directory: Where claims are.
        size: How many workers are to be there.
    """

    def __init__(self, deployment: Deployment, directory: Directory, size: int) -> None:
        self._deployment = deployment
        self._directory = directory
        self._size = size
        self._by_claim: dict[str, _Start] = {}
        self._searches = 0

    @asynccontextmanager
    async def search(self) -> AsyncIterator[None]:
        """A search that may wait for them. As the last one ends, what has not come is given up."""
        self._searches += 1
        failed = True
        try:
            yield
            failed = False
        finally:
            self._searches -= 1
            if not self._searches:
                await self._give_up(cancel=failed)

    async def settle(self, serving: set[str], claims: dict[str, str]) -> None:
        """Release the claims of the starts that serve now, and renew the others.

        Args:
            serving: The starts whose workers answer.
            claims: Those in force, as they were read; what is released is taken out.
        """
        for claim, start in list(self._by_claim.items()):
            if start.id in serving:
                del self._by_claim[claim]
                claims.pop(claim, None)
                # A claim that cannot be given up is void in a while, as nobody renews it.
                with suppress(ActvecError):
                    await self._directory.release(claim)
            elif claims.setdefault(claim, start.id) == start.id:
                await self._directory.renew(claim, start.id)
            else:
                # Another client took this one for killed, and has started a worker instead.
                del self._by_claim[claim]
                await start.starting.cancel()

    async def begin(self, claims: Mapping[str, str]) -> None:
        """Start a worker, unless others hold all claims."""
        beginning = asyncio.create_task(self._begin(claims))
        try:
            await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # Claims and starts must be known, or they could not be given up.
            await beginning
            raise

    async def _begin(self, claims: Mapping[str, str]) -> None:
        start_id = uuid.uuid4().hex
        claim = await self._directory.claim(self._size, claims, start_id)
        if claim is None:
            return
        try:
            starting = await self._deployment.start(start_id)
        except BaseException:
            with suppress(ActvecError):
                await self._directory.release(claim)
            raise
        self._by_claim[claim] = _Start(start_id, starting)

    async def error(self) -> str | None:
        """Why one of them will never serve; None while all may."""
        for start in list(self._by_claim.values()):
            if (error := await start.starting.error()) is not None:
                return error
        return None

    def describe(self) -> str:
        """Describes the wait."""
        if self._by_claim:
            return f"starting a worker of {self._deployment}"
        return f"waiting for a worker of {self._deployment}, which another client is starting"

    async def _give_up(self, *, cancel: bool) -> None:
        given_up, self._by_claim = self._by_claim, {}
        try:
            for claim in given_up:
                # That is no reason to report another error than the search's own. Without its
                # claim, a worker that comes later ends at once.
                with suppress(ActvecError):
                    await self._directory.release(claim)
        finally:
            # Nobody waits for them any more, and they would be paid for.
            if cancel:
                for start in given_up.values():
                    await start.starting.cancel()
