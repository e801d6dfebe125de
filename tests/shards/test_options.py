"""Programs that load a model themselves take the server's options for it, and those of vectors."""

import json
import re
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner
from modal.cli.run import run as modal_run

from actvec.client import load
from actvec.client.cli.commands import SERVER
from actvec.client.cli.mean import compute
from actvec.client.cli.stream import stream
from actvec.ray.command import ray
from actvec.server.config import ModelOptions
from actvec.shards.command import local
from tests.server.chats import save_chat_model
from tests.shards.running import run

OPTIONS = {field.name for field in fields(ModelOptions)} - {"max_layer"}


@pytest.mark.parametrize("verb", ["vectors", "mean"])
@pytest.mark.parametrize(
    ("program", "options"), [(local, OPTIONS), (ray, OPTIONS - {"device"})], ids=["local", "ray"]
)
def test_workers_take_the_servers_model_options(program, verb, options):
    params = program.commands[verb].params
    assert {param.name for param in params if getattr(param, "group", "") == "Model"} == options


def test_a_shard_loads_what_its_options_name(tmp_path):
    source = tmp_path / "corpus.jsonl"
    source.write_text('{"text": "A text."}\n')
    asked = ["vectors", source, "--mode", "short", "--out", tmp_path / "out", "--adapter", tmp_path]
    done = CliRunner().invoke(local, [str(part) for part in asked])
    assert str(done.exception).startswith(f"{str(tmp_path)!r} is not an adapter")


@pytest.mark.parametrize("verb", ["vectors", "mean"])
@pytest.mark.parametrize("program", [local, ray], ids=["local", "ray"])
def test_options_of_a_verb_have_different_names(program, verb):
    """Those of the model, of the settings and of the verb itself come from three places."""
    names = [name for param in program.commands[verb].params for name in param.opts]
    assert len(set(names)) == len(names)


# What a command without a server lacks of one with a server: the rest are the same options.
ALONE = {"--retry-for", "--window"}  # no connection
ALWAYS = {"--resume"}  # a task continues
INDEXED = {"--ordered"}  # rows have the documents' numbers
FOLDER = {"--job", "--take-over"}  # the job is its folder
SPREAD = {"--shard"}  # the cluster shares the work
PARQUET = {"--format", "--rows-per-file", "--save-every"}  # a file for each 256 documents


def options_of(command):
    return {
        name
        for param in command.params
        if isinstance(param, click.Option) and getattr(param, "group", "") != SERVER
        for name in (*param.opts, *param.secondary_opts)
    }


@pytest.mark.parametrize(
    ("program", "verb", "served", "lacked"),
    [
        (local, "vectors", stream, ALONE | ALWAYS | INDEXED),
        (ray, "vectors", stream, ALONE | ALWAYS | INDEXED | SPREAD | PARQUET),
        (local, "mean", compute, {"--retry-for"} | FOLDER),
        (ray, "mean", compute, {"--retry-for"} | FOLDER | SPREAD),
    ],
    ids=["local-vectors", "ray-vectors", "local-mean", "ray-mean"],
)
def test_a_verb_without_a_server_lacks_no_option(program, verb, served, lacked):
    assert options_of(served) - options_of(program.commands[verb]) == lacked


# The model of a deployment has them, and a mean of other states would not be found.
DEPLOYED = {"--separate", "--bos", "--no-bos"}
# The job divides the corpus, and its place is the volume.
VOLUME = {"--shard", "--out", "--json", "--save-every"}
# `--file-format` has this name.
LAYOUT = {"--format", "--vector-dtype", "--rows-per-file"}


@pytest.mark.parametrize(
    ("job", "verb", "lacked"),
    [
        ("vectors", "vectors", DEPLOYED | VOLUME | LAYOUT),
        ("corpus_mean", "mean", DEPLOYED | VOLUME - {"--save-every"}),
    ],
)
def test_a_job_on_modal_lacks_no_option(job, verb, lacked):
    shown = CliRunner().invoke(modal_run, ["-m", f"actvec.modal.app::{job}", "--help"]).output
    command = local.commands[verb]
    loaded = {
        name
        for one in command.params
        if getattr(one, "group", "") == "Model"
        for name in (*one.opts, *one.secondary_opts)
    }
    assert options_of(command) - loaded - set(re.findall(r"--[a-z-]+", shown)) == lacked


def test_a_shard_takes_the_options_of_a_chat(tmp_path):
    template = "{% for one in messages %}{{ one.content }}{{ mark }}{% endfor %}"
    template += "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    model, corpus = save_chat_model(tmp_path / "model", template), tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"messages": [{"role": "user", "content": "Is it open?"}]}))
    found = []
    for options in (
        (),
        ("--add-generation-prompt",),
        ("--chat-template-kwargs", '{"mark": "!"}'),
    ):
        out, mean = tmp_path / f"out-{len(found)}", tmp_path / f"mean-{len(found)}"
        common = ("--model", model, "--out")
        assert run("vectors", corpus, "--mode", "short", *common, out, *options).exit_code == 0
        assert run("mean", corpus, "--name", "m", *common, mean, *options).exit_code == 0
        record = json.loads((mean / "1-of-1" / "record.json").read_text())
        found.append((load(out).facts["tokens"][0], record["tokens"]))
    assert all(tokens == summed for tokens, summed in found)
    assert len(set(found)) == 3
