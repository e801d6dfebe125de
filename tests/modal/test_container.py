"""The methods of the app's class, as a container runs them."""

import json
import os
import pickle
import pickletools
import sys
import warnings
from types import SimpleNamespace

import modal
import modal.experimental
import pytest
import torch

from actvec.client import Client
from actvec.client.bulk.sinks.single_files import FileSink
from actvec.modal import app as modal_app
from actvec.modal import extractor
from actvec.modal.background import BackgroundServer
from actvec.modal.volume import Site
from actvec.modal.worker import Worker
from actvec.server.errors import CutShortError, EngineLostError, StartupError
from tests.volume import FolderVolume

EXTRACTOR = "Pythia12BActivationExtractor"


def test_container_serves_only_with_a_token(monkeypatch):
    secret = "of-the-secret"  # noqa: S105 - of the tests
    monkeypatch.setenv("ACTVEC_TOKEN", secret)
    assert extractor._server_config().access.token == secret
    monkeypatch.delenv("ACTVEC_TOKEN")
    front = BackgroundServer(extractor._server_config(host="0.0.0.0"), on_failure=pytest.fail)  # noqa: S104
    with pytest.raises(StartupError, match="everybody there could call"):
        front.start()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_container_without_a_gpu_ends(monkeypatch, tmp_path):
    site = Site(tmp_path, tmp_path / "mount", FolderVolume(tmp_path / "v", tmp_path / "mount"))
    monkeypatch.setattr(extractor, "MODEL", "demo")
    monkeypatch.setattr(extractor, "site", lambda: site)
    with pytest.raises(StartupError, match="cannot use device 'cuda:0'"):
        extractor._make_worker()
    front = BackgroundServer(
        extractor._server_config(port=0), on_failure=pytest.fail, replica=site.replica()
    )
    with pytest.raises(StartupError, match="cannot use device 'cuda:0'"):
        front.start()


@pytest.fixture
def container(monkeypatch, demo_engine, demo_model, tmp_path):
    """The extractor's class as in a container, with one of our models."""
    worker = Worker(demo_engine, demo_model, tmp_path)
    monkeypatch.setattr(extractor, "_make_worker", lambda: worker)
    container = getattr(modal_app, EXTRACTOR)()
    # For such methods, this machine does what Modal does before the first input.
    assert container.get_model_info.local()["model"] == "demo"
    return container


@pytest.mark.filterwarnings("ignore:.* is executing locally")
@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("serve", (), EngineLostError),
        ("serve", (), CutShortError),
        ("compute_shard", ("1/1", "mean", "c", "n", {}), EngineLostError),
    ],
)
async def test_process_ends_when_its_engine_hangs(container, monkeypatch, method, arguments, error):
    """Its next input would run it from a second thread."""

    def fail_at_once(*_):
        raise error("of the engine")

    async def fail(*_):
        fail_at_once()

    def end(code):
        raise SystemExit(code)

    monkeypatch.setenv("MODAL_TASK_ID", "ta-1")
    monkeypatch.setattr("actvec.modal.tunnel_server.serve_until_unused", fail)
    monkeypatch.setattr("actvec.modal.sharding.ShardRunner.mean", fail_at_once)
    monkeypatch.setattr(extractor.os, "_exit", end)
    with pytest.raises(SystemExit) as ended:
        running = getattr(container, method).local(*arguments)
        await running if method == "serve" else None
    assert ended.value.code == os.EX_SOFTWARE


class Stopping:
    """`modal.experimental.stop_fetching_inputs`, which asks Modal."""

    def __init__(self):
        self.calls = []
        self.fails = None

    def __call__(self):
        self.calls.append("blocking")
        if self.fails:
            raise self.fails

    async def aio(self):
        self.calls.append("async")
        if self.fails:
            raise self.fails


@pytest.fixture
def stopping(monkeypatch):
    stopping = Stopping()
    monkeypatch.setattr(modal.experimental, "stop_fetching_inputs", stopping)
    return stopping


@pytest.fixture
def broken(monkeypatch):
    """The extractor's class in a container that cannot load its model."""

    def fail():
        raise StartupError("weights are missing: run ...::download")

    monkeypatch.setattr(extractor, "_make_worker", fail)
    return getattr(modal_app, EXTRACTOR)()


@pytest.mark.filterwarnings("ignore:.* is executing locally")
@pytest.mark.parametrize("method", ["get_model_info", "serve", "compute_shard"])
@pytest.mark.parametrize("fails", [None, ConnectionError("Modal is away")])
async def test_failing_start_fails_the_input_with_its_reason(broken, stopping, method, fails):
    stopping.fails = fails
    # A synchronous method first runs what enters; `serve` is asynchronous and does not here.
    with pytest.raises(RuntimeError, match=r"cannot start: weights are missing: run \.\.\.::down"):
        broken.get_model_info.local()
    arguments = ("1/1", "mean", "c", "n", {}) if method == "compute_shard" else ()
    with pytest.raises(RuntimeError, match="cannot start: weights are missing"):
        running = getattr(broken, method).local(*arguments)
        await running if method == "serve" else None
    assert stopping.calls == ["blocking", "async" if method == "serve" else "blocking"]


@pytest.mark.filterwarnings("ignore:.* is executing locally")
@pytest.mark.usefixtures("stopping")
def test_failing_import_fails_the_input_too(monkeypatch):
    """An error of what enters would restart the container forever, also before a snapshot."""
    monkeypatch.setitem(sys.modules, "actvec.modal.worker", None)
    with pytest.raises(RuntimeError, match=r"cannot start: import of actvec\.modal\.worker halted"):
        getattr(modal_app, EXTRACTOR)().get_model_info.local()


@pytest.mark.filterwarnings("ignore:.* is executing locally")
def test_answers_need_no_class_of_ours(container):
    """A caller may have `modal` and nothing else: no numpy, no actvec."""
    answers = [
        container.get_activation_vector.local("A text.", pooling_strategy="long"),
        container.get_activation_matrix.local("A text."),
        container.get_model_info.local(),
    ]
    for fails, arguments in [
        (ValueError, {"text": " "}),
        (ValueError, {"text": 3}),
        (ValueError, {"text": "A text.", "center": 3.5}),
        (RuntimeError, {"text": "A text.", "center": "nobody"}),
        (TypeError, {"text": "A text.", "strategy": "long"}),
    ]:
        with pytest.raises(fails) as caught:
            container.get_activation_vector.local(**arguments)
        assert type(caught.value) is fails
        assert caught.value.__cause__ is None
        answers.append(caught.value)
    names = {
        module for answer in answers for module in pickled_modules(pickle.dumps(answer, protocol=4))
    }
    assert names <= {"builtins"}


@pytest.fixture
def modal_run(container, monkeypatch):
    """The entry point of `modal run`, which calls the class in a container."""
    remote = SimpleNamespace(remote=container.get_activation_vector.local)
    monkeypatch.setattr(
        modal_app, "extractor", lambda: SimpleNamespace(get_activation_vector=remote)
    )
    with warnings.catch_warnings():
        # Its successor comes with modal 1.7; the version is pinned.
        warnings.simplefilter("ignore")
        return modal_app.app.registered_entrypoints["main"].info.raw_f


@pytest.mark.filterwarnings("ignore:.* is executing locally")
@pytest.mark.parametrize("strategy", ["short", "long"])
def test_modal_run_saves_as_extract_does(modal_run, demo_server, tmp_path, strategy):
    modal_run("A text.", pooling_strategy=strategy, out=str(tmp_path / "out"))
    with Client(demo_server.target) as client:
        extracted = FileSink(tmp_path / "extracted").save(client.extract("A text.", mode=strategy))
    there = tmp_path / "out" / extracted.vector_path.name
    assert there.read_bytes() == extracted.vector_path.read_bytes()
    metadata = json.loads((tmp_path / "out" / extracted.metadata_path.name).read_text())
    ours = {"created_at", "run"}
    assert {key: value for key, value in metadata.items() if key not in ours} == {
        key: value for key, value in extracted.metadata.items() if key not in ours
    }


@pytest.mark.filterwarnings("ignore:.* is executing locally")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"text": " "}, "text: is empty or blank"),
        ({"text": "A text.", "pooling_strategy": "medium"}, "'medium'; use one of: short, long"),
        ({"text": "A text.", "center": "nobody"}, "no corpus mean 'nobody'"),
    ],
)
def test_modal_run_reports_errors_in_one_line(modal_run, capsys, tmp_path, arguments, error):
    with pytest.raises(SystemExit) as ended:
        modal_run(**arguments, out=str(tmp_path))
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert error in printed
    assert printed.count("\n") == 1


def pickled_modules(content):
    """The modules that a pickle imports."""
    strings = []
    for opcode, argument, _ in pickletools.genops(content):
        if isinstance(argument, str):
            strings.append(argument)
        if opcode.name == "STACK_GLOBAL":
            yield strings[-2]


@pytest.mark.filterwarnings("ignore:.* is executing locally")
async def test_call_of_another_deployment_fails(container):
    """During a deployment, Modal may still run containers of the earlier one."""
    with pytest.raises(RuntimeError, match="the app is being deployed anew"):
        await container.serve.local(start_id="of-a-client", deployed="another")
