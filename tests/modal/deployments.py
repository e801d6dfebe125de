"""Modal's control plane on this machine, as far as `modal deploy` of our app calls it over gRPC."""
# ruff: noqa: ARG002, N802 - the contract is Modal's

import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2 as api
from modal_proto.api_pb2_grpc import ModalClientServicer, add_ModalClientServicer_to_server

ROOT = Path(__file__).parents[2]
# The checkout's packages.
ROOTS = [ROOT / name for name in ("proto", "pooling", "client", "server", "distributed")]

# Objects of these kinds have ids that begin so.
_PREFIXES = {"secret": "st", "volume": "vo", "dict": "di"}


class Deployments(ModalClientServicer):
    """A workspace, and what was deployed to it."""

    def __init__(self) -> None:
        self.deployed: dict[str, str] = {}
        self.tags: dict[str, Mapping[str, str]] = {}
        self.layouts: dict[str, api.AppLayout] = {}
        self.functions: dict[str, api.Function] = {}
        self.images: dict[str, api.Image] = {}
        self.mounts: dict[str, set[str]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.volumes: dict[str, api.VolumeGetOrCreateRequest] = {}
        self._named: dict[tuple[str, str], str] = {}
        self._numbers = count(1)
        self._server = grpc.server(ThreadPoolExecutor(32))
        add_ModalClientServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.stop(None).wait()

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a machine with an account."""
        account = {"MODAL_TOKEN_ID": "ak-1", "MODAL_TOKEN_SECRET": "as-1"}
        nobody = {"MODAL_CONFIG_PATH": "/nonexistent", "HOME": "/nonexistent"}
        return {"MODAL_SERVER_URL": f"http://127.0.0.1:{self._port}", **account, **nobody}

    def deploy(self, *options: str, **environment: str) -> str:
        """Run `modal deploy` on this checkout, as if nothing else were installed from one."""
        installed = next(path for path in sys.path if path.endswith("site-packages"))
        path = ":".join([*map(str, ROOTS), installed])
        run = subprocess.run(
            [sys.executable, "-S", "-W", "ignore", "-m", "modal", "deploy", "-m", *options],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path} | self.environment | environment,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def add_secret(self, name: str, **variables: str) -> None:
        """Do what `modal secret create` does."""
        self.secrets[self._id("secret", name)] = variables

    def function(self, name: str, app: str = "actvec") -> api.Function:
        """The function that was deployed under a name."""
        return self.functions[self.layouts[self.deployed[app]].function_ids[name]]

    def environment_of(self, function: api.Function) -> dict[str, str]:
        """The variables of a function's containers."""
        found = self._variables(function.image_id)
        for secret_id in function.secret_ids:
            found |= self.secrets[secret_id]
        return found

    def _variables(self, image_id: str) -> dict[str, str]:
        image, found = self.images[image_id], {}
        for base in image.base_images:
            found |= self._variables(base.image_id)
        for line in image.dockerfile_commands:
            if line.startswith("ENV "):
                found |= dict([shlex.split(line)[1].split("=", 1)])
        return found

    def _new(self, prefix: str) -> str:
        return f"{prefix}-{next(self._numbers)}"

    def _id(self, kind: str, name: str) -> str:
        return self._named.setdefault((kind, name), self._new(_PREFIXES[kind]))

    # What a deployment calls.

    def EnvironmentGetOrCreate(self, request: Any, context: Any) -> Any:
        settings = api.EnvironmentSettings(image_builder_version="2025.06")
        metadata = api.EnvironmentMetadata(name="main", settings=settings)
        return api.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)

    def AppGetByDeploymentName(self, request: Any, context: Any) -> Any:
        return api.AppGetByDeploymentNameResponse(app_id=self.deployed.get(request.name, ""))

    def AppCreate(self, request: Any, context: Any) -> Any:
        return api.AppCreateResponse(app_id=self._new("ap"))

    def AppGetLayout(self, request: Any, context: Any) -> Any:
        return api.AppGetLayoutResponse(app_layout=self.layouts[request.app_id])

    def AppPublish(self, request: Any, context: Any) -> Any:
        functions = [self.functions[one] for one in request.function_ids.values()]
        needed = {one.object_id for each in functions for one in each.object_dependencies}
        objects = [api.Object(object_id=one) for one in needed]
        objects += [
            api.Object(object_id=one, function_handle_metadata=self._handle(one))
            for one in request.function_ids.values()
        ]
        objects += [
            api.Object(object_id=one, class_handle_metadata=api.ClassHandleMetadata())
            for one in request.class_ids.values()
        ]
        self.layouts[request.app_id] = api.AppLayout(
            objects=objects, function_ids=request.function_ids, class_ids=request.class_ids
        )
        self.tags[request.app_id] = request.tags
        self.deployed[request.name] = request.app_id
        return api.AppPublishResponse(url="https://modal.test", deployed_at=1.0)

    def SecretGetOrCreate(self, request: Any, context: Any) -> Any:
        if ("secret", request.deployment_name) not in self._named:
            if request.deployment_name:
                context.abort(grpc.StatusCode.NOT_FOUND, f"no secret {request.deployment_name!r}")
            secret_id = self._new("st")
            self.secrets[secret_id] = dict(request.env_dict)
            return api.SecretGetOrCreateResponse(secret_id=secret_id)
        found = self._id("secret", request.deployment_name)
        return api.SecretGetOrCreateResponse(secret_id=found)

    def VolumeGetOrCreate(self, request: Any, context: Any) -> Any:
        self.volumes[request.deployment_name] = request
        found = self._id("volume", request.deployment_name)
        metadata = api.VolumeMetadata(name=request.deployment_name, version=request.version)
        return api.VolumeGetOrCreateResponse(volume_id=found, metadata=metadata)

    def MountGetOrCreate(self, request: Any, context: Any) -> Any:
        mount_id = self._new("mo")
        self.mounts[mount_id] = {one.filename for one in request.files}
        return api.MountGetOrCreateResponse(mount_id=mount_id)

    def MountBatchedCheckExistence(self, request: Any, context: Any) -> Any:
        return api.MountBatchedCheckExistenceResponse()

    def ImageGetOrCreate(self, request: Any, context: Any) -> Any:
        image_id = self._new("im")
        self.images[image_id] = request.image
        built = api.GenericResult(status=api.GenericResult.GENERIC_STATUS_SUCCESS)
        return api.ImageGetOrCreateResponse(image_id=image_id, result=built)

    def FunctionPrecreate(self, request: Any, context: Any) -> Any:
        function_id = request.existing_function_id or self._new("fu")
        self.functions[function_id] = api.Function(function_name=request.function_name)
        return api.FunctionPrecreateResponse(
            function_id=function_id, handle_metadata=self._handle(function_id)
        )

    def FunctionCreate(self, request: Any, context: Any) -> Any:
        function_id = request.existing_function_id
        self.functions[function_id] = request.function
        return api.FunctionCreateResponse(
            function_id=function_id,
            function_data=self._data(function_id),
            handle_metadata=self._handle(function_id),
        )

    def ClassCreate(self, request: Any, context: Any) -> Any:
        return api.ClassCreateResponse(class_id=self._new("cs"))

    def _data(self, function_id: str) -> api.FunctionData:
        ranked = api.FunctionData.RankedFunction(function=self.functions[function_id])
        return api.FunctionData(ranked_functions=[ranked])

    def _handle(self, function_id: str) -> api.FunctionHandleMetadata:
        function = self.functions[function_id]
        formats = [api.DATA_FORMAT_PICKLE]
        methods = {
            name: api.FunctionHandleMetadata(
                function_name=one.function_name,
                function_type=one.function_type,
                is_method=True,
                use_method_name=name,
                supported_input_formats=formats,
                supported_output_formats=formats,
            )
            for name, one in function.method_definitions.items()
        }
        return api.FunctionHandleMetadata(
            function_name=function.function_name,
            function_type=function.function_type,
            definition_id=f"de-{function_id}",
            method_handle_metadata=methods,
            supported_input_formats=formats,
            supported_output_formats=formats,
        )

    def AppHeartbeat(self, request: Any, context: Any) -> Any:
        return Empty()

    AppClientDisconnect = AppHeartbeat
