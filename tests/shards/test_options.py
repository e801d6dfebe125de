"""Programs that load a model themselves take the server's options for it."""

from dataclasses import fields

import pytest
from click.testing import CliRunner

from actvec.ray.command import ray
from actvec.server.config import ModelOptions
from actvec.shards.command import local

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
