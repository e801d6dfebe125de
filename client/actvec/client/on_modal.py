"""An app on Modal as a deployment: its `modal.Dict` of workers, and the method that starts one."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from actvec.client.channel import MODAL
from actvec.client.errors import (
    InvalidTarget,
    NotFound,
    ServerError,
    ServerUnavailable,
    Unauthenticated,
)
from actvec.client.extras import import_extra

_CLASS = "Pythia12BActivationExtractor"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_TARGET = re.compile(rf"{MODAL}({_NAME})(?:/({_NAME}))?/?")


class ModalDeployment:
    """The workers of an app that `modal deploy -m actvec.server.modal_app` has put there.

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
        # starts, it finds there.
        self._workers = self._modal.Dict.from_name(
            f"{app}-workers", environment_name=environment, create_if_missing=True
        )
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
                f"{target!r} names no app on Modal: write modal://APP or modal://APP/ENVIRONMENT,"
                " for example modal://actvec"
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{MODAL}{self._app}" + (f"/{self._environment}" if self._environment else "")

    async def entries(self) -> Mapping[str, bytes]:
        """See `Deployment.entries`."""
        async with self._asking():
            return {key: value async for key, value in self._workers.items.aio()}

    async def put(self, key: str, value: bytes, *, skip_if_exists: bool) -> bool:
        """See `Deployment.put`."""
        async with self._asking():
            return bool(await self._workers.put.aio(key, value, skip_if_exists=skip_if_exists))

    async def pop(self, key: str) -> None:
        """See `Deployment.pop`."""
        async with self._asking():
            await self._workers.pop.aio(key, None)

    async def start(self) -> "ServeCall":
        """See `Deployment.start`."""
        async with self._asking():
            extractor = self._modal.Cls.from_name(
                self._app, _CLASS, environment_name=self._environment
            )()
            call = await extractor.serve.spawn.aio()
            return ServeCall(call, unanswered=(TimeoutError, *self._temporary))

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Say what Modal's errors mean here.

        Raises:
            NotFound: there is no such app.
            Unauthenticated: this machine has no account on Modal.
            ServerUnavailable: Modal does not answer for now.
            ServerError: it refuses.
        """
        errors = self._modal.exception
        try:
            yield
        except errors.NotFoundError as error:
            raise NotFound(
                f"{self} is not deployed: modal deploy -m actvec.server.modal_app (Modal says:"
                f" {error})"
            ) from error
        except errors.AuthError as error:
            raise Unauthenticated(
                f"Modal does not know this machine: modal setup (it says: {error})"
            ) from error
        except self._temporary as error:
            raise ServerUnavailable(f"Modal does not answer about {self}: {error}") from error
        except errors.Error as error:
            raise ServerError(f"Modal refuses what is asked about {self}: {error}") from error


class ServeCall:
    """A call of `serve`, which returns when the worker has ended.

    Args:
        call: The `modal.FunctionCall`.
        unanswered: What its `get` raises where nothing is known yet.
    """

    def __init__(self, call: Any, unanswered: tuple[type[Exception], ...]) -> None:
        self._call = call
        self._unanswered = unanswered

    async def error(self) -> str | None:
        """See `Starting.error`."""
        try:
            await self._call.get.aio(timeout=0)
        except self._unanswered:
            return None
        except Exception as error:  # what `serve` raised there, or what became of its container
            return f"{type(error).__name__}: {error} (modal container logs, call {self._id})"
        return f"it has ended already (call {self._id})"

    async def cancel(self) -> None:
        """See `Starting.cancel`."""
        # Whoever waits no more has an error of his own to tell, or none.
        with suppress(Exception):
            await self._call.cancel.aio()

    @property
    def _id(self) -> str:
        return str(self._call.object_id)
