"""Fetching a corpus: through the real `datasets` package, from files shaped as C4's are."""

import contextlib
import gzip
import hashlib
import json
import os
import pickle
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actvec.client import MissingExtra, SourceBroken
from actvec.client.cli import counting
from actvec.client.corpora import (
    DataFiles,
    HubDataset,
    Sample,
    WordLimits,
    fetch_corpus,
    fetching,
)
from actvec.client.documents import open_documents

from .c4 import ROWS, SHARDS, c4_rows, write_shards

ACTVEC = [sys.executable, "-c", "from actvec.client.cli import main; main()"]

LEAST, MOST = 8, 20


@pytest.fixture
def c4(tmp_path):
    """A folder of C4-shaped files."""
    return write_shards(tmp_path / "c4" / "en")


@pytest.fixture
def c4_dataset(c4):
    """The same, laid out as the hub's dataset is."""
    (c4.parent / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: en\n  data_files:\n  - split: train\n    path: en/c4-train.*.json.gz\n"
        "- config_name: other\n  data_files: other/*.json.gz\n---\n"
    )
    write_shards(c4.parent / "other", shards=1)
    return c4.parent


def fetch(folder, path, *, documents=10, seed=0, candidates=None, **options):
    return fetch_corpus(
        DataFiles((f"{folder}/*.json.gz",)),
        path,
        words=WordLimits(LEAST, MOST),
        sample=Sample(documents, seed, candidates),
        **options,
    )


def rank(seed, value):
    return hashlib.sha256(f"{seed}:".encode() + value).digest()


def shards_in_order(seed):
    return sorted(range(SHARDS), key=lambda shard: rank(seed, str(shard).encode()))


def referee(*, documents, seed, candidates):
    """The sample by its definition, in the simplest words."""
    accepted = {}
    for shard in shards_in_order(seed):
        for number, row in enumerate(c4_rows(shard)):
            words = len(row["text"].split())
            if len(accepted) < candidates and LEAST <= words <= MOST:
                accepted.setdefault(row["text"], f"{shard:05d}-{number:07d}")
    digests = {text: hashlib.sha256(text.encode()).digest()[:16] for text in accepted}
    order = sorted(accepted, key=lambda text: rank(seed, digests[text]))
    return [(accepted[text], text) for text in order[:documents]]


def read(path):
    if path.suffix == ".parquet":
        return [(row["id"], row["text"]) for row in pq.read_table(path).to_pylist()]
    return [(document.id, document.text) for document in open_documents(path)]


@pytest.mark.parametrize("seed", [0, 1, 2, -5])
@pytest.mark.parametrize(("documents", "candidates"), [(10, 25), (10, 10), (5, 10_000)])
def test_the_sample_is_what_its_definition_says(c4, tmp_path, seed, documents, candidates):
    path = tmp_path / "corpus.jsonl"
    fetch(c4, path, documents=documents, seed=seed, candidates=candidates)
    assert read(path) == referee(documents=documents, seed=seed, candidates=candidates)


def test_the_same_seed_gives_the_same_bytes_and_another_another_sample(c4, tmp_path):
    for name in ("one", "two"):
        fetch(c4, tmp_path / f"{name}.jsonl.gz", seed=4)
        fetch(c4, tmp_path / f"{name}.parquet", seed=4)
    fetch(c4, tmp_path / "other.jsonl.gz", seed=5)
    one, two, other = (tmp_path / f"{name}.jsonl.gz" for name in ("one", "two", "other"))
    assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert {text for _, text in read(one)} != {text for _, text in read(other)}


def test_the_first_documents_of_a_sample_are_the_smaller_sample(c4, tmp_path):
    fetch(c4, tmp_path / "many.jsonl", documents=20, candidates=40)
    fetch(c4, tmp_path / "few.jsonl", documents=5, candidates=40)
    assert read(tmp_path / "many.jsonl")[:5] == read(tmp_path / "few.jsonl")


def test_without_a_number_every_accepted_text_comes_in_the_order_of_the_dataset(c4, tmp_path):
    fetched = fetch(c4, tmp_path / "all.jsonl", documents=None)
    ids = [document_id for document_id, _ in read(tmp_path / "all.jsonl")]
    assert ids == sorted(ids)
    assert len(ids) == fetched.documents == fetched.counts.accepted
    assert fetched.exhausted


def test_every_text_is_counted_under_one_reason(c4, tmp_path):
    counts = fetch(c4, tmp_path / "all.jsonl", documents=None).counts
    lengths = [len(row["text"].split()) for shard in range(SHARDS) for row in c4_rows(shard)]
    assert counts.seen == SHARDS * ROWS
    assert counts.empty == lengths.count(0)
    assert counts.too_short == sum(0 < length < LEAST for length in lengths)
    assert counts.too_long == sum(length > MOST for length in lengths)
    assert counts.duplicate == SHARDS - 1


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.parquet", "C.JSONL"])
def test_every_kind_of_file_holds_the_same_and_nothing_is_left_beside_it(c4, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    fetch(c4, path)
    assert read(path) == referee(documents=10, seed=0, candidates=40)
    assert {one.name for one in path.parent.iterdir()} == {name, f"{name}.manifest.json"}


def test_a_manifest_says_where_the_corpus_came_from(c4, tmp_path):
    fetched = fetch(c4, tmp_path / "c.jsonl", seed=3)
    manifest = json.loads(fetched.manifest.read_text())
    assert manifest["request"]["sample"]["seed"] == 3
    assert manifest["request"]["words"] == {"least": LEAST, "most": MOST}
    assert len(manifest["source"]["files"]) == SHARDS
    assert manifest["counts"]["seen"] == fetched.counts.seen
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "c.jsonl").read_bytes()).hexdigest()


def test_a_fetch_that_broke_at_any_text_goes_on_to_the_same_file(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 7)
    wanted = fetch(c4, tmp_path / "whole.jsonl", documents=25)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "broken.jsonl"

    class PowerCut(BaseException):
        pass

    @settings(
        deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(st.integers(1, wanted.counts.seen), min_size=1, max_size=3))
    def check(breaks):
        for at in breaks:

            def cut(counts, at=at):
                if counts.seen == at:
                    raise PowerCut

            with contextlib.suppress(PowerCut):
                fetch(c4, path, documents=25, on_text=cut)
        fetched = fetch(c4, path, documents=25)
        assert path.read_bytes() == whole
        assert fetched.counts == wanted.counts
        for left in tmp_path.glob("broken.jsonl*"):
            left.unlink()

    check()


def test_a_fetch_that_is_killed_goes_on_where_it_was(tmp_path, program):
    folder = write_shards(tmp_path / "c4", shards=2, rows=8_000)
    options = ["--files", f"{folder}/*.gz", "--num-samples", "5000", "--candidates", "15000"]
    path, other = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    process = subprocess.Popen([*ACTVEC, "corpus", "fetch", *options, "--save-local", str(path)])
    progress = tmp_path / "killed.jsonl.part" / "progress.json"
    deadline = time.monotonic() + 60
    while not progress.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()

    code, output, _ = program("corpus", "fetch", *options, "--save-local", path)
    assert code == 0
    assert "Went on after" in output
    assert program("corpus", "fetch", *options, "--save-local", other)[0] == 0
    assert path.read_bytes() == other.read_bytes()
    assert not progress.parent.exists()


def test_a_fetch_killed_between_the_file_and_its_manifest_is_done_by_the_same_call(
    c4, tmp_path, monkeypatch
):
    path = tmp_path / "c.jsonl"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "version", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(c4, path)
    assert path.exists()
    fetched = fetch(c4, path)
    assert fetched.resumed_at == fetched.counts.seen
    assert fetched.manifest.exists()
    assert fetch(c4, path).cached


def test_an_interrupted_fetch_of_something_else_is_forgotten(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 1)

    def stop(counts):
        if counts.seen == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(c4, tmp_path / "c.jsonl", seed=1, on_text=stop)
    assert fetch(c4, tmp_path / "c.jsonl", seed=2).resumed_at == 0
    assert read(tmp_path / "c.jsonl") == referee(documents=10, seed=2, candidates=40)


def test_what_was_read_of_files_that_changed_since_is_forgotten(c4, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_COMMIT_EVERY", 1)
    broken = sorted(c4.iterdir())[1]
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceBroken, match=r"shard 1 .*EOFError.*goes on from there"):
        fetch(c4, tmp_path / "c.jsonl", documents=60)
    broken.write_bytes(content)
    assert fetch(c4, tmp_path / "c.jsonl", documents=60).resumed_at == 0


def test_two_fetches_to_one_file_do_not_mix(c4, tmp_path, program):
    path = tmp_path / "c.jsonl"
    answers = []

    def start_another(counts):
        if counts.seen == 5:
            other = ["corpus", "fetch", "--files", f"{c4}/*", "--save-local", path]
            answers.append(program(*other))

    fetch(c4, path, on_text=start_another)
    ((code, _, errors),) = answers
    assert code == 2
    assert "another process is writing" in errors
    assert read(path) == referee(documents=10, seed=0, candidates=40)


def test_the_same_command_reads_nothing_again_and_says_so(c4, tmp_path, program):
    path = tmp_path / "c.jsonl.gz"
    options = ["--files", f"{c4}/*.gz", "--num-samples", 10, "--save-local", path]
    first = json.loads(program("corpus", "fetch", *options, "--json")[1])
    written = path.stat().st_mtime_ns
    second = json.loads(program("corpus", "fetch", *options, "--json")[1])
    assert (first["cached"], second["cached"]) == (False, True)
    assert {**first, "cached": True} == second
    assert path.stat().st_mtime_ns == written
    code, output, _ = program("corpus", "fetch", *options)
    assert code == 0
    assert "Nothing was read" in output


def test_a_corpus_outlives_the_dataset_that_it_was_made_of(c4, tmp_path):
    path = tmp_path / "c.jsonl"
    fetch(c4, path)
    shutil.rmtree(c4)
    assert fetch(c4, path).cached


def test_nothing_is_read_beyond_the_last_candidate(tmp_path):
    (tmp_path / "0.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "1.jsonl").write_text("no JSON")
    source = DataFiles((f"{tmp_path}/*.jsonl",))
    # Shard 0 comes first, and its last text is the last that is wanted.
    seed = next(seed for seed in range(99) if rank(seed, b"0") < rank(seed, b"1"))
    fetched = fetch_corpus(
        source, tmp_path / "c.jsonl.gz", words=WordLimits(), sample=Sample(2, seed, candidates=2)
    )
    assert (fetched.counts.seen, fetched.exhausted) == (2, False)
    with pytest.raises(SourceBroken):
        fetch_corpus(source, tmp_path / "d.jsonl.gz", words=WordLimits(), sample=Sample(2, seed))


def test_a_file_that_holds_something_else_is_not_replaced(c4, tmp_path, program):
    path = tmp_path / "c.jsonl"
    options = ["--files", f"{c4}/*.gz", "--num-samples", 10, "--save-local", path]

    def refusal(*more):
        before = path.read_bytes()
        code, output, errors = program("corpus", "fetch", *options, *more)
        assert (code, output, path.read_bytes()) == (2, "", before)
        assert "remove it to fetch it anew" in errors
        return errors

    path.write_text("notes")
    assert "no fetch wrote it" in refusal()
    path.unlink()
    program("corpus", "fetch", *options)
    assert "with seed 0;" in refusal("--seed", 1)
    assert "documents 10, seed 0" in refusal("--seed", 1, "--num-samples", 5)
    (c4 / "c4-train.00003-of-00003.json.gz").write_bytes(gzip.compress(b'{"text": "new"}\n'))
    assert "the dataset has changed" in refusal()
    (c4 / "c4-train.00003-of-00003.json.gz").unlink()
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    assert "changed after it was fetched" in refusal()
    path.write_bytes(content)
    path.with_name("c.jsonl.manifest.json").write_text("{}")
    assert "is damaged" in refusal()


def test_a_dataset_that_ends_too_early_is_exit_code_1_with_what_there_is(c4, tmp_path, program):
    code, output, errors = program(
        *("corpus", "fetch", "--files", f"{c4}/*.gz", "--num-samples", 1000),
        *("--save-local", tmp_path / "c.jsonl"),
    )
    assert code == 1
    documents = len(read(tmp_path / "c.jsonl"))
    assert f"{documents} documents" in output
    assert f"1,000 documents were wanted, and it holds {documents}" in errors


@pytest.mark.parametrize("cached", [False, True])
def test_acceptance_is_shown(c4, tmp_path, program, cached):
    options = ["--files", f"{c4}/*.gz", "--min-words", LEAST, "--max-words", MOST]
    options += ["--save-local", tmp_path / "c.jsonl"]
    for _ in range(1 + cached):
        code, output, _ = program("corpus", "fetch", *options)
    counts = fetch(c4, tmp_path / "same.jsonl", documents=None).counts
    assert code == 0
    assert (
        f"{counts.seen} texts seen: {counts.accepted} accepted, {counts.empty} empty,"
        f" {counts.too_short} too short, {counts.too_long} too long, {counts.duplicate} duplicate"
    ) in output


def test_a_log_gets_a_line_now_and_then(c4, tmp_path, program, monkeypatch):
    monkeypatch.setattr(counting, "_LINE_EVERY", 0)
    options = ["--files", f"{c4}/*.gz", "--num-samples", 5, "--save-local", tmp_path / "c.jsonl"]
    _, _, errors = program("corpus", "fetch", *options)
    assert "\n7 of 20 accepted, 7 texts seen\n" in errors


def test_a_terminal_gets_a_bar(c4, tmp_path):
    reader, terminal = pty.openpty()
    options = ["--files", f"{c4}/*.gz", "--save-local", str(tmp_path / "c.jsonl")]
    program = subprocess.Popen(
        [*ACTVEC, "corpus", "fetch", *options], stderr=terminal, stdout=subprocess.DEVNULL
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal without a program behind it ends
        while data := os.read(reader, 4096):
            shown += data
    os.close(reader)
    assert program.wait(60) == 0
    assert shown.decode().count("━") >= 40


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "give one of"),
        (["--files", "c4/en/*", "--dataset", "x"], "give one of"),
        (["--files", "nothing/*"], "no file matches nothing/*"),
        (["--files", "c4/en/*", "--column", "body"], "no column 'body'"),
        (["--files", "c4/en/*", "--min-words", "1000"], "none of 180 texts was accepted"),
        (["--files", "c4/en/*", "--min-words", "9", "--max-words", "8"], "cannot be"),
        (["--files", "c4/en/*", "--num-samples", "9", "--candidates", "8"], "as many as"),
        (["--files", "c4/en/*", "--num-samples", "0"], "0"),
        (["--files", "notes.txt"], "of no supported kind"),
        (["--files", "broken.json"], "broke in shard 0 before its first row: ArrowInvalid"),
        (
            ["--dataset", "c4", "--num-samples", "9", "--config", "de"],
            "BuilderConfig 'de' not found",
        ),
        (["--dataset", "c4", "--num-samples", "9", "--config", "en", "--split", "x"], "Bad split"),
        (["--dataset", "c4"], "needs --num-samples"),
        (["--files", "c4/en/*", "--config", "en"], "are of a --dataset"),
        (["--from-pickle", "old.pkl", "--column", "body"], "has no --column"),
        (["--from-pickle", "absent.pkl"], "cannot read absent.pkl"),
        (["--files", "c4/en/*", "--save-local", "c.csv"], ".jsonl, .jsonl.gz or .parquet"),
        (["--files", "c4/en/*", "--save-local", "/proc/none/c.jsonl"], "/proc/none"),
    ],
)
@pytest.mark.usefixtures("c4_dataset")
def test_what_cannot_be_fetched_is_exit_code_2_and_leaves_nothing(
    tmp_path, program, monkeypatch, options, reason
):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("notes")
    Path("broken.json").write_text("{no json")
    before = sorted(Path().iterdir())
    if "--save-local" not in options:
        options = [*options, "--save-local", "c.jsonl"]
    code, output, errors = program("corpus", "fetch", *options)
    assert (code, output) == (2, "")
    assert reason in errors
    assert sorted(Path().iterdir()) == before


def test_a_folder_that_is_laid_out_as_a_dataset_is_one(c4_dataset, c4, tmp_path):
    words, sample = WordLimits(LEAST, MOST), Sample(10)
    path, other = tmp_path / "c.jsonl", tmp_path / "other.jsonl"
    fetch_corpus(HubDataset(str(c4_dataset), "en"), path, words=words, sample=sample)
    fetch(c4, tmp_path / "same.jsonl")
    assert path.read_bytes() == (tmp_path / "same.jsonl").read_bytes()
    fetch_corpus(HubDataset(str(c4_dataset), "other"), other, words=words, sample=sample)
    assert other.read_bytes() != path.read_bytes()


def test_parquet_and_plain_files_are_read_too(c4, tmp_path):
    fetch(c4, tmp_path / "all.parquet", documents=None)
    fetch(c4, tmp_path / "all.jsonl", documents=None)
    for name in ("all.parquet", "all.jsonl"):
        source = DataFiles((str(tmp_path / name),))
        path = tmp_path / f"of {name}.jsonl"
        fetch_corpus(source, path, words=WordLimits(), sample=Sample(10))
    of_parquet, of_lines = (tmp_path / f"of all.{kind}.jsonl" for kind in ("parquet", "jsonl"))
    assert read(of_parquet) == read(of_lines)


def test_a_pickled_list_of_strings_becomes_a_corpus(tmp_path, program):
    texts = ["one two", "", "three four five", "one two", "six"]
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(texts))
    path = tmp_path / "c.jsonl"
    code, _, _ = program(
        *("corpus", "fetch", "--from-pickle", tmp_path / "old.pkl", "--min-words", 2),
        *("--save-local", path),
    )
    assert code == 0
    assert read(path) == [("00000-0000000", "one two"), ("00000-0000002", "three four five")]


def test_without_the_packages_it_says_what_to_install(c4, tmp_path, monkeypatch):
    for package in ("datasets", "pyarrow.parquet"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtra, match=r"pip install 'actvec\[data\]'"):
                fetch(c4, tmp_path / "c.parquet")


class Hub:
    """The stand-in of `hub.py`, which serves a dataset as the hub does."""

    def __init__(self, folder, home):
        self.folder = folder
        self.publish("a" * 40)
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("hub.py"), folder],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._process.stdout.readline().strip()
        # The address is read when the packages are imported: a process of its own for each fetch.
        self._environment = os.environ | {"HF_ENDPOINT": self.address, "HF_HOME": str(home)}

    def publish(self, commit):
        """Make a commit the newest."""
        (self.folder / ".commit").write_text(commit)

    def fetch(self, path, *options):
        return subprocess.run(
            [
                *(*ACTVEC, "corpus", "fetch", "--dataset", "allenai/c4", "--config", "en"),
                *("--min-words", str(LEAST), "--max-words", str(MOST)),
                *("--save-local", str(path), "--json", *options),
            ],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop(self):
        """The requests that it was sent."""
        self._process.terminate()
        return self._process.communicate(timeout=10)[0].splitlines()


@pytest.fixture
def hub(c4_dataset, tmp_path):
    hub = Hub(c4_dataset, tmp_path / "home")
    yield hub
    hub.stop()


def test_a_dataset_of_the_hub_is_read_at_the_commit_that_is_the_newest(hub, tmp_path):
    path = tmp_path / "c.jsonl"
    ended = hub.fetch(path, "--num-samples", "10")
    assert ended.returncode == 0, ended.stderr
    assert read(path) == referee(documents=10, seed=0, candidates=40)
    manifest = json.loads((tmp_path / "c.jsonl.manifest.json").read_text())
    assert manifest["source"] == {"commit": "a" * 40}
    hub.publish("b" * 40)
    again = hub.fetch(path, "--num-samples", "10")
    assert json.loads(again.stdout)["cached"], again.stderr
    asked = [line for line in hub.stop() if "c4-train" in line]
    assert asked
    assert all("/resolve/" + "a" * 40 in line for line in asked)


def test_a_download_that_broke_goes_on_at_the_commit_that_it_began_with(hub, tmp_path):
    path = tmp_path / "c.jsonl"
    # Shard 2 is the last one read. (The first of a dataset is read for its columns already.)
    seed = next(seed for seed in range(99) if shards_in_order(seed)[-1] == 2)
    options = ["--num-samples", "25", "--seed", str(seed)]
    (hub.folder / ".gone").write_text("en/c4-train.00002-of-00003.json.gz")
    # A connection that is cut in mid-file is opened again by the libraries, and not noticed.
    (hub.folder / ".cut").write_text("en/c4-train.00001-of-00003.json.gz")
    ended = hub.fetch(path, *options)
    assert ended.returncode == 2
    assert not (hub.folder / ".cut").exists()
    assert f"{2 * ROWS} texts were read and are kept" in ended.stderr
    assert "the same command goes on from there" in ended.stderr
    (hub.folder / ".gone").unlink()
    hub.publish("b" * 40)
    ended = hub.fetch(path, *options)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["resumed_at"] == 2 * ROWS
    assert read(path) == referee(documents=25, seed=seed, candidates=100)
    assert not any("b" * 40 in line for line in hub.stop())


def test_files_are_read_by_url(hub, tmp_path):
    folder = f"{hub.address}/datasets/allenai/c4/resolve/main/en"
    urls = tuple(f"{folder}/c4-train.{shard:05d}-of-00003.json.gz" for shard in range(SHARDS))
    path = tmp_path / "c.jsonl"
    fetch_corpus(DataFiles(urls), path, words=WordLimits(LEAST, MOST), sample=Sample(10))
    assert read(path) == referee(documents=10, seed=0, candidates=40)
