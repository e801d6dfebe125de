"""Any model is served right or refused in one line: an entry of the zoo per kind of fault."""

import json
from dataclasses import replace

import numpy as np
import pytest

from actvec.server.config import ModelOptions
from actvec.server.engine.load import load_engine
from actvec.server.engine.packed import PackedEngine
from actvec.server.engine.selfcheck import SelfCheck
from actvec.server.errors import StartupError
from actvec.server.model.packed import attention
from actvec.server.program.advice import explained
from tests.zoo.catalog import ZOO
from tests.zoo.outcome import outcome_of
from tests.zoo.saving import edit_config
from tests.zoo.shrinking import CONTEXT

ENTRIES = {entry.name: entry for entry in ZOO}

PACKED = [
    "gpt_neox",
    "nanochat",
    "opt-projection",
    "gpt2",
    "qwen3",
    "mixtral",
    "qwen2_moe-window",
    "phi3-longrope",
    "gpt_neox-longrope",
    "llama-dynamic",
    "gemma3",
    "qwen2_5_vl",
    "gpt_neox-last-block",
    "llama-first-block",
    "llama-adapter",
    "gemma2",
    "gpt_oss",
    "modernbert-decoder",
]
PLAIN = [
    "bert",
    "llama-not-causal",
    "bloom",
    "gptj",
    "openai-gpt",
    "zamba2",
    "falcon-alibi",
    "falcon_h1",
    "bailing_hybrid",
    "roberta",
]
REFUSED = [
    "llama-vocabulary",
    "llama-unknown-quantization",
    "llama-adapter-unnamed",
    "llama-bos-beyond",
    "gemma3n_text",
]


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        *((name, "packed") for name in PACKED),
        *((name, "plain") for name in PLAIN),
        *((name, None) for name in REFUSED),
    ],
)
def test_model_is_right_or_refused(name, engine, tmp_path):
    outcome = outcome_of(ENTRIES[name], tmp_path)
    assert outcome.fault is None, outcome.fault
    assert outcome.engine == engine, outcome.refusal
    if engine is None:
        assert outcome.refusal
        assert "\n" not in outcome.refusal


@pytest.mark.parametrize("name", ["gemma3", "gemma4-shared-keys", "jamba"])
def test_reference_engine_keeps_what_the_config_says(name, tmp_path):
    """Windows, and the keys that blocks share, may depend on the number of all blocks."""
    entry = replace(ENTRIES[name], layers=(0, 1), given=lambda _: {"engine": "lens"})
    outcome = outcome_of(entry, tmp_path)
    assert (outcome.fault, outcome.engine) == (None, "lens"), outcome.refusal


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_experts_do_not_depend_on_the_step(name, tmp_path):
    outcome = outcome_of(ENTRIES[name], tmp_path)
    assert (outcome.fault, outcome.engine) == (None, "packed")
    assert outcome.invariant


def saved(name, directory):
    entry = ENTRIES[name]
    entry.save(entry.build(), directory)
    return ModelOptions(model=str(directory), dtype="float32", device="cpu", check_seconds=1000)


def test_packed_engine_refuses_what_it_cannot_run(tmp_path):
    options = saved("llama-not-causal", tmp_path)
    with pytest.raises(StartupError, match=r"the packed engine cannot run .*not"):
        load_engine(ModelOptions(model=options.model, engine="packed"))


def test_reference_engine_refuses_what_it_computes_otherwise(tmp_path):
    """TransformerLens' attention is causal, whatever the config says."""
    options = replace(saved("llama-not-causal", tmp_path), engine="lens")
    with pytest.raises(StartupError, match=r"TransformerLens cannot run .*: its states differ"):
        load_engine(options)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("llama-not-causal", "packed attention is causal, and the model's is not"),
        ("falcon-alibi", "transformers' FalconModel cannot compute several documents in one row"),
        ("bart", "BartLearnedPositionalEmbedding cannot compute several documents in one row"),
        ("jamba", "the packed attention ran 2 times for 4 blocks"),
    ],
)
def test_fallback_names_its_reason(name, reason, tmp_path, caplog):
    engine, loaded = load_engine(saved(name, tmp_path))
    assert engine.name == "plain"
    assert reason in loaded.card.engine_note
    assert f"runs one document at a time, which is slower: {loaded.card.engine_note}" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gemma3n_text", r"the model's block 0 gives states of shape \(1, 40, 64\) for 40 tokens"),
        ("mllama", "the model runs its block 3 0 times for a document"),
    ],
)
def test_model_without_one_stream_is_refused(name, reason, tmp_path):
    with pytest.raises(StartupError, match=f"^{reason}"):
        load_engine(saved(name, tmp_path))


def test_check_notices_a_missing_window(tmp_path, monkeypatch):
    """The long document exceeds the window, so full attention would show."""
    options = saved("mistral", tmp_path)
    _, loaded = load_engine(ModelOptions(model=options.model, engine="plain"))
    assert loaded.thresholds
    check = SelfCheck.of(loaded, loaded.card.context, 60.0)
    attend_each = attention._attend_each

    def without_window(*states, scaling, window):
        assert window
        return attend_each(*states, scaling=scaling, window=None)

    monkeypatch.setattr(attention, "_attend_each", without_window)
    finding = check(PackedEngine(loaded, arranged=False))
    assert finding.reason is not None
    assert finding.reason.startswith("its states differ from transformers'")


def test_dynamic_rope_stays_within_its_positions(tmp_path, caplog):
    """Beyond them, transformers' own states depend on the longest document so far."""
    options = replace(saved("llama-dynamic", tmp_path), context=8 * CONTEXT)
    engine, _ = load_engine(options)
    assert (engine.name, engine.card.context) == ("packed", CONTEXT)
    assert f"documents of more than {CONTEXT} tokens are not served" in caplog.text


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("gpt2", CONTEXT),
        ("opt", CONTEXT),
        ("codegen", CONTEXT),
        ("openai-gpt", CONTEXT),
        ("xglm", CONTEXT),
        # These take no positions from the caller.
        ("bart", CONTEXT),
        ("mpt", CONTEXT),
        ("trocr", CONTEXT),
        ("whisper", CONTEXT),
        # The padding's index and one more come before the first token.
        ("roberta", CONTEXT - 2),
    ],
)
def test_documents_beyond_the_positions_are_refused(name, positions, tmp_path):
    """On a GPU the first of them would end the server."""
    options = replace(saved(name, tmp_path), context=positions + 1)
    with pytest.raises(StartupError) as refusal:
        load_engine(options)
    assert explained(refusal.value).endswith(
        f"has no positions for documents of {positions + 1} tokens, but for up to {positions}; "
        "set a smaller --context, or drop the option"
    )
    engine, _ = load_engine(replace(options, context=positions))
    assert engine.card.context == positions
    longest = np.random.default_rng(0).integers(3, 300, positions)
    assert engine.layer_states([longest])[0].isfinite().all()


def test_padding_that_is_the_first_id_hides_no_position(tmp_path):
    """RoBERTa's family gives padding no position: a table that is read there shows none."""
    options = saved("roberta", tmp_path)
    edit_config(tmp_path, pad_token_id=0)
    assert load_engine(options)[0].card.context == CONTEXT - 1


@pytest.mark.parametrize(
    ("name", "config", "part"),
    [
        ("bart", {}, "encoder_attn"),
        ("gpt2", {"add_cross_attention": True}, "crossattention"),
        ("bert", {"is_decoder": True, "add_cross_attention": True}, "crossattention"),
    ],
)
def test_idle_cross_attention_is_reported(name, config, part, tmp_path, caplog):
    entry = replace(ENTRIES[name], config=config)
    outcome = outcome_of(entry, tmp_path)
    assert outcome.fault is None
    assert f"the {part} of this '{name}' model's blocks is not used" in caplog.text


def test_quantization_of_the_text_part_counts(tmp_path):
    options = saved("gemma3", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["quantization_config"] = {"quant_method": "abacus"}
    path.write_text(json.dumps(config))
    with pytest.raises(StartupError, match="quantized by 'abacus'"):
        load_engine(options)


def test_documents_beyond_the_check_are_not_served(tmp_path, caplog):
    options = saved("mistral", tmp_path)
    engine, loaded = load_engine(
        ModelOptions(model=options.model, dtype="float32", check_seconds=1e-9)
    )
    assert engine.card.context == loaded.thresholds[0]
    assert "are not served" in caplog.text
