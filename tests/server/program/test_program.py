"""`actvec-server` as a process: its one line, its exit codes, its end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from actvec.server.model.demo import WIDTH
from actvec.v1.service_pb2_grpc import ActivationVectorServiceStub
from actvec.v1.vectors_pb2 import MODE_SHORT, Document, StreamVectorsRequest, VectorSettings
from tests.conftest import NotStartedError

BUF = Path(sys.executable).with_name("buf")


@pytest.fixture
def fails(start_server):
    """Run the server where it cannot start; return its one line on standard error."""

    def run(*options: str, **settings: object) -> str:
        with pytest.raises(NotStartedError) as ended:
            start_server(*options, **settings)
        assert ended.value.code == 2, ended.value.log
        assert ended.value.output == ""
        assert "Traceback" not in ended.value.log
        return ended.value.log.strip()

    return run


def fails_by_itself(*options: str, env: dict[str, str]) -> str:
    """Run the program in its own process where it cannot start; return its one line."""
    run = subprocess.run(
        [sys.executable, "-m", "actvec.server.program.main", "--port=0", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    return run.stderr.strip()


def health(channel: grpc.Channel) -> str:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_collector_skips_imported_objects(start_server):
    program = """
import gc
from actvec.server.program.main import import_server
import_server()
print(gc.isenabled(), len(gc.get_objects()) < gc.get_freeze_count() / 100)
"""
    with pytest.raises(NotStartedError) as ended:
        start_server(program=program)
    assert (ended.value.code, ended.value.output) == (0, "True True\n"), ended.value.log


def test_threads_take_turns_within_a_millisecond(start_server):
    """A small call switches threads some ten times, each time behind a large call's Python."""
    program = """
import sys
from actvec.server.program.main import main
try:
    main(["--model=/no/such/model"])
finally:
    print(sys.getswitchinterval() <= 0.001)
"""
    with pytest.raises(NotStartedError) as ended:
        start_server(program=program)
    assert (ended.value.code, ended.value.output) == (2, "True\n"), ended.value.log


def test_ready_means_serving(demo_server):
    with grpc.insecure_channel(demo_server.target) as channel:
        assert health(channel) == "SERVING"


def buf_curl(target: str, method: str, data: dict[str, object]) -> dict[str, object]:
    run = subprocess.run(
        [
            BUF,
            "curl",
            "--protocol=grpc",
            "--http2-prior-knowledge",
            f"--data={json.dumps(data)}",
            f"http://{target}/{method}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.skipif(not BUF.exists(), reason="needs buf, which `make install` brings")
def test_buf_curl_works_through_reflection(demo_server, tmp_path):
    listed = subprocess.run(
        [
            BUF,
            "curl",
            "--protocol=grpc",
            "--http2-prior-knowledge",
            "--list-methods",
            f"http://{demo_server.target}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    ).stdout.split()
    assert "actvec.v1.ActivationVectorService/ExtractVector" in listed
    assert "grpc.health.v1.Health/Check" in listed
    answer = buf_curl(
        demo_server.target,
        "actvec.v1.ActivationVectorService/ExtractVector",
        {
            "text": "Called without any file.",
            "settings": {"mode": "MODE_SHORT", "encoding": "VECTOR_ENCODING_VALUES"},
        },
    )
    assert len(answer["vector"]["vector"]["values"]) == WIDTH
    assert answer["stamp"]["model"]["model"] == "demo"


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_both_reflections_answer(demo_server, package):
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(demo_server.target) as channel:
        call = channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo")
        raw = next(call(iter([request.SerializeToString()])))
    services = reflection_pb2.ServerReflectionResponse.FromString(raw).list_services_response
    assert "actvec.v1.ActivationVectorService" in {service.name for service in services.service}


def test_sigterm_finishes_what_is_in_flight(start_server):
    server = start_server("--model=demo", "--step-tokens=512")
    # Texts tokenized in one go: all are in flight once one is answered.
    documents = [Document(text="a few words " * 40, sequence=n) for n in range(60)]
    half_open = threading.Event()

    def messages():
        yield StreamVectorsRequest(settings=VectorSettings(mode=MODE_SHORT), documents=documents)
        half_open.wait(30)

    seen, states = [], []
    with grpc.insecure_channel(server.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states.append(next(watch).status)
        call = ActivationVectorServiceStub(channel).StreamVectors(messages())
        next(call)
        seen += [result.sequence for result in next(call).results]
        server.process.send_signal(signal.SIGTERM)
        states.append(next(watch).status)
        with pytest.raises(grpc.RpcError, match="shutting down") as error:
            for response in call:
                seen += [result.sequence for result in response.results]
        half_open.set()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert states == [
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    ]
    assert sorted(seen) == list(range(60))
    assert server.process.wait(30) == 0


def test_a_taken_port_is_one_line(fails):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = fails(port=port)
    assert message == (
        f"actvec-server: cannot listen on 127.0.0.1:{port}: another program may be using it; "
        "choose another --port, or 0 for a free one"
    )


def test_port_is_never_shared(demo_server, fails):
    port = demo_server.target.rpartition(":")[2]
    assert "another program may be using it" in fails(port=port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers=7,8"], "no layer 8: the model has blocks 0 to 7"),
        (["--layers=seven"], "'seven' is not a list of block numbers"),
        (["--dtype=int8"], "'int8' is not one of"),
        (["--step-timeout=nan"], "'nan' is not a number"),
        (["--revision=v1"], "model 'demo' is not on the hub, so it has no revision 'v1'"),
        (["--hook=hook_q"], "'demo' has no hook 'hook_q' to take states from; it has resid_post"),
        (["--layers=2,5", "--max-layer=4"], "--max-layer 4 is below layer 5 of --layers"),
        (
            ["--max-layer=2"],
            "the highest layer on offer is 2, below 6, a layer that requests use by default",
        ),
        (["--max-layer=8"], "no layer 8: the model has blocks 0 to 7"),
        (["--max-layer=-1"], "'-1' is not the number of a block, or `last`"),
        (["--step-tokens=100000000"], "; set a smaller --step-tokens, or drop the option"),
        (
            ["--token-file=/no/such"],
            "cannot read the token file /no/such: No such file or directory (--token-file)",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(fails, options, message):
    assert message in fails(*options).splitlines()[-1]


def test_missing_hub_id_is_one_line(tmp_path):
    # In its own process: huggingface_hub reads its variables at its import.
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    message = fails_by_itself("--model=somebody/no-such-model", env=env)
    assert message == (
        f"actvec-server: HF_HUB_OFFLINE is set, and the cache {tmp_path}/hub does not hold all of"
        " model 'somebody/no-such-model': download it without HF_HUB_OFFLINE first"
    )
    assert "\n" not in message


def test_without_torch_it_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    shutil.copy(tmp_path / "torch.py", tmp_path / "transformers.py")
    message = fails_by_itself(env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert message == "actvec-server: torch is not installed: pip install 'actvec[server]'"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can read everything")
def test_an_unreadable_directory_is_one_line(neox_directory, tmp_path, fails):
    copy = tmp_path / "secret"
    shutil.copytree(neox_directory, copy)
    (copy / "config.json").chmod(0)
    assert "permission denied" in fails(f"--model={copy}")
