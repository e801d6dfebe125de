"""An app on Modal as a deployment: its `modal.Dict` of workers, and the method that starts one."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from actvec.client.errors import (
    FailedPrecondition,
    InvalidTarget,
    NotFound,
    ServerError,
    ServerUnavailable,
    Unauthenticated,
)
from actvec.client.extras import import_extra
from actvec.client.transport.address import MODAL

# The app's tag that names its present deployment; each `modal deploy` gives it another value.
_TAG = "actvec-deployment"
_CLASS = "Pythia12BActivationExtractor"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_TARGET = re.compile(rf"{MODAL}({_NAME})(?:/({_NAME}))?/?")

# Seconds in which Modal answers one request, or counts as away. Its own client tries for minutes.
_ANSWERS = 10.0


class ModalDeployment:
    """The workers of an app that `modal deploy -m actvec.modal.app` has put there.

    Keys of the app's `modal.Dict` begin with the deployment that they belong to, so that workers of
    an earlier one, which may have another model or token, are not seen.

    Args:
        app: Its name.
        environment: Modal's environment; None for the default one.

    Raises:
        MissingExtra: modal is not installed.
    """

    def __init__(self, app: str, environment: str | None = None) -> None:
        self._modal = import_extra("modal", "modal")
        self._app = app
        self._environment = environment
        # The app's containers make it too, but a client comes before the first of them: what it
        # starts, it finds there. It is made at the first use, and so for an app that exists.
        self._workers = self._modal.Dict.from_name(
            f"{app}-workers", environment_name=environment, create_if_missing=True
        )
        self._deployed = ""
        errors = self._modal.exception
        self._temporary = (errors.ConnectionError, errors.ServiceError, errors.InternalError)

    @classmethod
    def parse(cls, target: str) -> Self:
        """The deployment that `modal://APP` or `modal://APP/ENVIRONMENT` names.

        Raises:
            InvalidTarget: it is not of that form.
            MissingExtra: modal is not installed.
        """
        match = _TARGET.fullmatch(target.strip())
        if match is None:
            raise InvalidTarget(
                f"{target!r} does not name an app on Modal: write modal://APP or "
                "modal://APP/ENVIRONMENT, for example modal://actvec"
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{MODAL}{self._app}" + (f"/{self._environment}" if self._environment else "")

    async def entries(self) -> Mapping[str, bytes]:
        """See `Deployment.entries`.

        Raises:
            FailedPrecondition: the app is not ours, or of an earlier version.
        """
        async with self._asking():
            app = await self._modal.App.lookup.aio(self._app, environment_name=self._environment)
            self._deployed = (await app.get_tags.aio()).get(_TAG, "")
        if not self._deployed:
            raise FailedPrecondition(
                f"{self} was not deployed by this version of actvec: modal deploy -m"
                " actvec.modal.app"
            )
        async with self._asking():
            prefix = self._key("")
            return {
                key.removeprefix(prefix): value
                async for key, value in self._workers.items.aio()
                if isinstance(key, str) and key.startswith(prefix)
            }

    async def put(self, key: str, value: bytes, *, skip_if_exists: bool) -> bool:
        """See `Deployment.put`."""
        async with self._asking():
            return bool(
                await self._workers.put.aio(self._key(key), value, skip_if_exists=skip_if_exists)
            )

    async def pop(self, key: str) -> None:
        """See `Deployment.pop`."""
        async with self._asking():
            await self._workers.pop.aio(self._key(key), None)

    async def start(self, start_id: str) -> "ServeCall":
        """See `Deployment.start`."""
        async with self._asking():
            extractor = self._modal.Cls.from_name(
                self._app, _CLASS, environment_name=self._environment
            )()
            call = await extractor.serve.spawn.aio(
                start_id=start_id, deployed=self._deployed, deployed_as=self._app
            )
            return ServeCall(call, unanswered=(TimeoutError, *self._temporary))

    def _key(self, key: str) -> str:
        return f"{self._deployed}/{key}"

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Translate Modal's errors.

        Raises:
            NotFound: there is no such app.
            Unauthenticated: this machine has no account on Modal.
            ServerUnavailable: Modal does not answer for now.
            ServerError: it refuses.
        """
        errors = self._modal.exception
        try:
            async with asyncio.timeout(_ANSWERS):
                yield
        except TimeoutError:
            raise ServerUnavailable(
                f"Modal does not answer about {self} within {_ANSWERS:.0f} seconds"
            ) from None
        except errors.NotFoundError as error:
            raise NotFound(
                f"{self} is not deployed: modal deploy -m actvec.modal.app (Modal says: {error})"
            ) from error
        except errors.AuthError as error:
            raise Unauthenticated(
                f"Modal does not know this machine: modal setup (it says: {error})"
            ) from error
        except self._temporary as error:
            raise ServerUnavailable(f"Modal does not answer about {self}: {error}") from error
        except errors.Error as error:
            raise ServerError(f"Modal refuses the request about {self}: {error}") from error


class ServeCall:
    """A call of `serve`, which returns when the worker has ended.

    Args:
        call: The `modal.FunctionCall`.
        unanswered: The errors of its `get` while the outcome is open.
    """

    def __init__(self, call: Any, unanswered: tuple[type[Exception], ...]) -> None:
        self._call = call
        self._unanswered = unanswered

    async def error(self) -> str | None:
        """See `Starting.error`."""
        try:
            async with asyncio.timeout(_ANSWERS):
                await self._call.get.aio(timeout=0)
        except self._unanswered:
            return None
        except Exception as error:  # raised by `serve` there, or by the end of its container
            return f"{type(error).__name__}: {error} (modal container logs, call {self._id})"
        return f"it has ended already (call {self._id})"

    async def cancel(self) -> None:
        """See `Starting.cancel`."""
        # A caller that stopped waiting has its own error to report, or none.
        with suppress(Exception):
            async with asyncio.timeout(_ANSWERS):
                await self._call.cancel.aio()

    @property
    def _id(self) -> str:
        return str(self._call.object_id)
