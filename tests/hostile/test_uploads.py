"""Files that pretend to be means: refused with a reason, or good for every use of a mean."""

import hashlib
import itertools
import json
from collections import Counter

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors import deserialize as real
from safetensors.numpy import save

from actvec.server.errors import InputError, MeanMismatchError
from actvec.server.means.format import decode
from actvec.server.means.store import MeanStore
from actvec.server.means.views import deserialize
from actvec.server.model.demo import WIDTH
from actvec.v1.means_pb2 import (
    CorpusMean,
    CorpusMeanUpload,
    DeleteCorpusMeanRequest,
    DownloadCorpusMeanRequest,
    ListCorpusMeansRequest,
    MergeCorpusMeansRequest,
    UploadCorpusMeanRequest,
    UploadCorpusMeanResponse,
)
from actvec.v1.vectors_pb2 import (
    MODE_SHORT,
    VECTOR_ENCODING_FLOAT16,
    ExtractVectorRequest,
    VectorSettings,
)
from tests.hostile.fuzzing import damaged, explore, messages
from tests.hostile.target import SERVICE, UNFORESEEN

DEEP = '{"a":' * 3000 + "1" + "}" * 3000

NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 1e30, 3e38, 1e308, np.nan, np.inf, -np.inf])
COUNTS = st.sampled_from([0, 1, 2, 2**31, 2**62, 2**63 - 1, -1, -(2**63)])
KINDS = ("<f4", "<f8", "<f2", "<i8", "<i4", "<u8", "u1", "?")
SIZES = st.sampled_from([0, 1, 2, 3, WIDTH])
SHAPES = st.one_of(
    st.just((WIDTH, 3)), st.just((3, WIDTH)), st.just((3,)), st.lists(SIZES, max_size=3).map(tuple)
)


@st.composite
def tensors(draw):
    """A tensor of any shape and dtype, mostly filled with one number."""
    kind = draw(st.sampled_from(KINDS))
    numbers = COUNTS if kind[-2:] in {"i8", "u8"} else NUMBERS
    with np.errstate(all="ignore"):
        tensor = np.full(draw(SHAPES), draw(numbers)).astype(kind)
        if tensor.size:
            tensor.flat[draw(st.integers(0, tensor.size - 1))] = np.array(draw(numbers)).astype(
                kind
            )
    return tensor


def written(record: CorpusMean) -> str:
    """A record as in a file; JSON has no form for some times."""
    record.ClearField("created_at")
    return MessageToJson(record)


RECORDS = st.one_of(
    messages(CorpusMean.DESCRIPTOR).map(written),
    st.sampled_from(["", "{}", "[]", "null", DEEP, '{"documents": -1}', '{"createdAt": 1e300}']),
    st.builds(
        json.dumps,
        st.dictionaries(
            st.sampled_from([field.json_name for field in CorpusMean.DESCRIPTOR.fields]),
            st.one_of(
                st.none(), st.integers(), st.text(max_size=9), st.lists(st.integers(), max_size=2)
            ),
            max_size=3,
        ),
    ),
)
COUNTED = np.array([3, 2, 1])
FINE = {
    "corpus_mean": np.ones((WIDTH, 3), np.float32),
    "counts": COUNTED,
    "sums": np.tile(COUNTED[:, None], WIDTH).astype(np.float64),
    "square_sums": np.tile(COUNTED[:, None], WIDTH).astype(np.float64),
}


@st.composite
def whole_files(draw):
    """A safetensors file with some of a mean's tensors unchanged, and others replaced."""
    kept = draw(st.sets(st.sampled_from(sorted(FINE))))
    wrong = draw(st.dictionaries(st.sampled_from([*sorted(FINE), "other"]), tensors(), max_size=2))
    metadata = draw(st.none() | RECORDS.map(lambda record: {"actvec": record}))
    return save({name: FINE[name] for name in sorted(kept | {"corpus_mean"})} | wrong, metadata)


@st.composite
def lying_files(draw):
    """A header that does not fit the bytes after it: its length, its shapes, its offsets."""
    number = st.one_of(st.integers(0, 4096), st.sampled_from([2**31, 2**63, 2**64 - 1, -1]))
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(
                ["F32", "F64", "BF16", "F8_E4M3", "I64", "C64", "F4", "", "x"]
            ),
            "shape": st.lists(number, max_size=4),
            "data_offsets": st.lists(number, min_size=2, max_size=2),
        }
    )
    names = st.sampled_from(["corpus_mean", "counts", "sums", "__metadata__", "\ud83d"])
    header = json.dumps(draw(st.dictionaries(names, st.one_of(entry, st.none(), number)))).encode()
    length = draw(st.one_of(st.just(len(header)), number)) % 2**64
    return length.to_bytes(8, "little") + header + draw(st.binary(max_size=64))


FILES = st.one_of(
    whole_files(), lying_files(), damaged(whole_files()), damaged(lying_files()), st.binary()
)


def test_file_without_a_mean_is_a_request_error(amount):
    def check(content):
        try:
            found = decode(content)
        except InputError:
            return
        assert np.isfinite(found.mean).all()

    explore(FILES, check, amount(short=150, long=2000))


def test_views_are_what_safetensors_finds(amount):
    def check(content):
        try:
            theirs = {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in real(content)}
        except (SafetensorError, ValueError):
            with pytest.raises(ValueError, match=r"\w"):
                deserialize(content)
            return
        ours = {
            name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in deserialize(content)
        }
        assert ours == theirs

    explore(FILES, check, amount(short=150, long=5000))


def test_file_is_stored_unchanged_or_refused(amount, tmp_path):
    store = MeanStore(tmp_path, 1 << 30)

    def check(content):
        try:
            record = store.upload("fuzz", content, WIDTH)
        except (InputError, MeanMismatchError):
            return
        assert store.content(record) == content
        with np.errstate(all="raise"):
            store.load(record)
        store.delete(record)

    explore(FILES, check, amount(short=100, long=2000))


class Uploader:
    """Uploads files, and uses accepted ones in every way."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.ends: Counter[str] = Counter()

    def upload(self, name: str, content: bytes) -> bytes | None:
        digest = hashlib.sha256(content).hexdigest()
        upload = CorpusMeanUpload(name=name, size_bytes=len(content), sha256=digest)
        cut = len(content) // 2
        return self._call(
            "UploadCorpusMean",
            UploadCorpusMeanRequest(upload=upload),
            UploadCorpusMeanRequest(chunk=content[:cut]),
            UploadCorpusMeanRequest(chunk=content[cut:]),
        )

    def __call__(self, content: bytes) -> None:
        answer = self.upload("fuzz", content)
        if answer is None:
            return
        mean = UploadCorpusMeanResponse.FromString(answer).corpus_mean.id
        settings = VectorSettings(
            mode=MODE_SHORT, corpus_mean=mean, encoding=VECTOR_ENCODING_FLOAT16
        )
        self._call("ExtractVector", ExtractVectorRequest(text="a text", settings=settings))
        self._call("DownloadCorpusMean", DownloadCorpusMeanRequest(corpus_mean=mean))
        self._call("ListCorpusMeans", ListCorpusMeansRequest(all_models=True))
        self._call(
            "MergeCorpusMeans", MergeCorpusMeansRequest(corpus_means=[mean, "fine"], name="merged")
        )
        for name in (mean, "merged"):
            self._call("DeleteCorpusMean", DeleteCorpusMeanRequest(corpus_mean=name))

    def _call(self, method: str, *requests) -> bytes | None:
        call = self._channel.stream_stream(f"{SERVICE}/{method}")(
            iter([request.SerializeToString() for request in requests]), timeout=60
        )
        answers = []
        try:
            answers.extend(call)
        except grpc.RpcError as error:
            assert error.code().name not in UNFORESEEN, error
            assert error.details(), error
        self.ends[f"{method} {call.code().name}"] += 1
        return answers[0] if call.code() is grpc.StatusCode.OK else None


def test_uploads_leave_the_server_as_it_was(target, amount):
    first = itertools.count()

    def storm(files):
        with grpc.insecure_channel(target.server.target) as channel:
            uploader = Uploader(channel)
            uploader.upload("fine", save(FINE))
            explore(FILES, uploader, files, first=next(first))
        return uploader.ends

    target.endure("uploads of files that are no means", amount(short=60, long=1000), storm)


@pytest.mark.parametrize("announced", [0, 1, 2**40, 2**64 - 1])
def test_announced_size_is_checked(target, announced):
    upload = CorpusMeanUpload(name="fuzz", size_bytes=announced, sha256="0" * 64)
    requests = [
        UploadCorpusMeanRequest(upload=upload),
        *(UploadCorpusMeanRequest(chunk=bytes(1 << 16)) for _ in range(4)),
    ]
    with grpc.insecure_channel(target.server.target) as channel:
        call = channel.stream_unary(f"{SERVICE}/UploadCorpusMean")
        with pytest.raises(grpc.RpcError) as error:
            call(iter([request.SerializeToString() for request in requests]), timeout=60)
    code = error.value.code()
    assert code.name == ("RESOURCE_EXHAUSTED" if announced > 2**32 else "INVALID_ARGUMENT")
    target.assert_unharmed()
