"""Modal's control plane on this machine, with containers.

Programs that call Modal, and containers, talk to it over gRPC. A container is a process that runs
the entry point of the installed `modal`; its volumes are folders, and it has no GPU.
"""
# ruff: noqa: ARG002, N802 - the contract is Modal's

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2 as api

from tests.modal.deployments import Deployments
from tests.warm import WarmProcess, warm_start

_CONTAINER = """
import pathlib, runpy, sys
from actvec.modal import resources
resources.DATA, resources.LOCAL = map(pathlib.Path, sys.argv[1:])
resources.DEVICE = "cpu"
runpy.run_module("modal._container_entrypoint", run_name="__main__")
"""


@dataclass
class Call:
    """A call of a function: its inputs by their ids, and its outputs."""

    function_id: str
    inputs: dict[str, api.FunctionPutInputsItem] = field(default_factory=dict)
    outputs: list[api.FunctionGetOutputsItem] = field(default_factory=list)


class ControlPlane(Deployments):
    """A workspace where the deployed runs.

    Args:
        root: Its folder, with the volumes and what containers write.
        open_tunnel: Exposes a port of this machine; returns the host and the port outside.
    """

    def __init__(self, root: Path, open_tunnel: Callable[[int], tuple[str, int]]) -> None:
        self.root = root
        self.dicts: dict[str, dict[bytes, bytes]] = defaultdict(dict)
        self.containers: list[WarmProcess] = []
        self._open_tunnel = open_tunnel
        self._calls: dict[str, Call] = {}
        self._queues: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._idle: dict[str, int] = defaultdict(int)
        self._changed = threading.Condition()
        self._ended = False
        super().__init__()

    def close(self) -> None:
        """Kill all containers."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for container in self.containers:
            container.kill()
            container.wait()
        super().close()

    def volume(self, name: str) -> Path:
        """The folder of a volume."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder

    def AppGetOrCreate(self, request: Any, context: Any) -> Any:
        return api.AppGetOrCreateResponse(app_id=self._app(request.app_name, context))

    def AppGetTags(self, request: Any, context: Any) -> Any:
        return api.AppGetTagsResponse(tags=self.tags[request.app_id])

    def ClassGet(self, request: Any, context: Any) -> Any:
        layout = self.layouts[self._app(request.app_name, context)]
        return api.ClassGetResponse(class_id=layout.class_ids[request.object_tag])

    def FunctionGet(self, request: Any, context: Any) -> Any:
        layout = self.layouts[self._app(request.app_name, context)]
        found = layout.function_ids[request.object_tag]
        return api.FunctionGetResponse(
            function_id=found, function=self._data(found), handle_metadata=self._handle(found)
        )

    def _app(self, name: str, context: Any) -> str:
        if name not in self.deployed:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no app {name!r}")
        return self.deployed[name]

    def DictGetOrCreate(self, request: Any, context: Any) -> Any:
        found = self._id("dict", request.deployment_name)
        metadata = api.DictMetadata(name=request.deployment_name)
        return api.DictGetOrCreateResponse(dict_id=found, metadata=metadata)

    def DictUpdate(self, request: Any, context: Any) -> Any:
        (one,) = request.updates
        entries = self.dicts[request.dict_id]
        if request.if_not_exists and one.key in entries:
            return api.DictUpdateResponse(created=False)
        entries[one.key] = one.value
        return api.DictUpdateResponse(created=True)

    def DictPop(self, request: Any, context: Any) -> Any:
        value = self.dicts[request.dict_id].pop(request.key, None)
        return api.DictPopResponse(found=value is not None, value=value)

    def DictContents(self, request: Any, context: Any) -> Iterator[api.DictEntry]:
        for key, value in list(self.dicts[request.dict_id].items()):
            yield api.DictEntry(key=key, value=value)

    def FunctionMap(self, request: Any, context: Any) -> Any:
        call_id = self._new("fc")
        self._calls[call_id] = Call(request.function_id)
        put = self._put(call_id, request.pipelined_inputs)
        return api.FunctionMapResponse(
            function_call_id=call_id, pipelined_inputs=put, max_inputs_outstanding=100
        )

    def FunctionPutInputs(self, request: Any, context: Any) -> Any:
        put = self._put(request.function_call_id, request.inputs)
        return api.FunctionPutInputsResponse(inputs=put)

    def _put(self, call_id: str, items: Any) -> list[api.FunctionPutInputsResponseItem]:
        call, put = self._calls[call_id], []
        queue = self._queues[call.function_id]
        with self._changed:
            for item in items:
                input_id = self._new("in")
                call.inputs[input_id] = item
                queue.append((call_id, input_id))
                put.append(api.FunctionPutInputsResponseItem(idx=item.idx, input_id=input_id))
            if queue and not self._idle[call.function_id]:
                self._start(call.function_id)
            self._changed.notify_all()
        return put

    def FunctionGetOutputs(self, request: Any, context: Any) -> Any:
        call = self._calls[request.function_call_id]
        with self._changed:
            self._changed.wait_for(lambda: self._ended or call.outputs, request.timeout)
            outputs, left = call.outputs, len(call.inputs) - len(call.outputs)
            if not request.HasField("start_idx"):
                call.outputs = []
        return api.FunctionGetOutputsResponse(
            outputs=outputs, last_entry_id="1-0", num_unfinished_inputs=left
        )

    def FunctionGetInputs(self, request: Any, context: Any) -> Any:
        queue = self._queues[request.function_id]
        with self._changed:
            self._changed.wait_for(lambda: self._ended or queue)
            if self._ended:
                return api.FunctionGetInputsResponse()
            call_id, input_id = queue.pop(0)
            self._idle[request.function_id] -= 1
        given = self._calls[call_id].inputs[input_id].input
        item = api.FunctionGetInputsItem(input_id=input_id, function_call_id=call_id, input=given)
        return api.FunctionGetInputsResponse(inputs=[item])

    def FunctionPutOutputs(self, request: Any, context: Any) -> Any:
        with self._changed:
            for one in request.outputs:
                (call,) = [each for each in self._calls.values() if one.input_id in each.inputs]
                output = api.FunctionGetOutputsItem(
                    result=one.result, input_id=one.input_id, data_format=one.data_format
                )
                output.idx = call.inputs[one.input_id].idx
                call.outputs.append(output)
                self._idle[call.function_id] += 1
            self._changed.notify_all()
        return Empty()

    def VolumeCommit(self, request: Any, context: Any) -> Any:
        return api.VolumeCommitResponse()

    def TunnelStart(self, request: Any, context: Any) -> Any:
        assert request.tunnel_type == api.TUNNEL_TYPE_H2
        host, port = self._open_tunnel(request.port)
        return api.TunnelStartResponse(host=host, port=port)

    def TunnelStop(self, request: Any, context: Any) -> Any:
        return api.TunnelStopResponse()

    def ContainerHeartbeat(self, request: Any, context: Any) -> Any:
        return api.ContainerHeartbeatResponse()

    def _nothing(self, request: Any, context: Any) -> Any:
        return Empty()

    ContainerHello = ContainerStop = TaskResult = VolumeReload = FunctionCallCancel = _nothing

    def _start(self, function_id: str) -> None:
        """Start a container."""
        (app_id,) = [
            app_id
            for app_id, layout in self.layouts.items()
            if function_id in layout.function_ids.values()
        ]
        home = self.root / self._new("ta")
        home.mkdir()
        function = self.functions[function_id]
        arguments = api.ContainerArguments(
            task_id=home.name,
            function_id=function_id,
            app_id=app_id,
            function_def=function,
            app_layout=self.layouts[app_id],
        )
        (home / "arguments").write_bytes(arguments.SerializeToString())
        environment = self.environment_of(function) | {
            "HF_HOME": str(self.volume("actvec-weights")),
            "MODAL_IS_REMOTE": "1",
            "MODAL_SERVER_URL": self.environment["MODAL_SERVER_URL"],
            "MODAL_TASK_ID": home.name,
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(home / "arguments"),
        }
        folders = [str(self.volume("actvec-data")), str(home / "disk")]
        log = home / "stderr"
        container = warm_start(_CONTAINER, folders, os.environ | environment, log)
        self.containers.append(container)
        self._idle[function_id] += 1
