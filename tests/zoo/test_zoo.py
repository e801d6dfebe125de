"""Any model is served right or refused in one line: an entry of the zoo for each kind of fault."""

import pytest

from actvec.server import attention
from actvec.server.config import ModelOptions
from actvec.server.engine import PackedEngine
from actvec.server.engines import load_engine
from actvec.server.errors import StartupError
from actvec.server.selfcheck import SelfCheck

from .catalog import ZOO
from .outcome import outcome_of

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
    "gpt_neox-last-block",
]
PLAIN = [
    "bert",
    "llama-not-causal",
    "gemma2",
    "gpt_oss",
    "bloom",
    "gptj",
    "openai-gpt",
    "zamba2",
    "falcon-alibi",
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


def saved(name, directory):
    entry = ENTRIES[name]
    entry.save(entry.build(), directory)
    return ModelOptions(model=str(directory), dtype="float32", device="cpu", check_seconds=1000)


def test_packed_engine_refuses_what_it_cannot_run(tmp_path):
    options = saved("llama-not-causal", tmp_path)
    with pytest.raises(StartupError, match=r"the packed engine cannot run .*not"):
        load_engine(ModelOptions(model=options.model, engine="packed"))


def test_fallback_names_its_reason(tmp_path, caplog):
    engine, loaded = load_engine(saved("gemma2", tmp_path))
    assert engine.name == "plain"
    assert "softcap" in loaded.card.engine_note
    assert "runs one document at a time, which is slower" in caplog.text


def test_check_notices_a_missing_window(tmp_path, monkeypatch):
    """The long document exceeds the window, so that full attention shows."""
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


def test_documents_beyond_the_check_are_not_served(tmp_path, caplog):
    options = saved("mistral", tmp_path)
    engine, loaded = load_engine(
        ModelOptions(model=options.model, dtype="float32", check_seconds=1e-9)
    )
    assert engine.card.context == loaded.thresholds[0]
    assert "are not served" in caplog.text
