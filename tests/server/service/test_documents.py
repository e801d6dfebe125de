"""Texts with spans, chats and token ids: how each becomes tokens, and the errors of bad ones."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from actvec.server.config import ModelOptions
from actvec.server.engine.load import load_engine
from actvec.v1 import means_pb2, model_pb2
from actvec.v1.vectors_pb2 import (
    DOCUMENT_SOURCE_MESSAGES,
    DOCUMENT_SOURCE_TEXT,
    DOCUMENT_SOURCE_TOKEN_IDS,
    TRUNCATION_KEEP_END,
    TRUNCATION_KEEP_START,
    ChatMessage,
    ChatMessages,
    Document,
    ExtractVectorRequest,
    Span,
    StreamVectorsRequest,
    TokenIds,
    VectorSettings,
)
from tests.server.calling import collect, error_of, floats
from tests.server.chats import (
    BOS,
    TEMPLATE,
    chat_model,
    overlapping,
    save_chat_model,
    write_sentence_pieces,
)
from tests.server.jobs.talking import opening
from tests.server.jobs.talking import run as run_mean

CHAT = [
    ("system", "Be brief."),
    ("user", "  Why do tides turn? "),
    ("assistant", "The moon pulls."),
    ("user", "And the sun?"),
    ("assistant", "Half as much, café."),
]
TEXT = "Question: why is the sea salt? Answer: rivers bring it."
SPAN = Span(name="answer", start=TEXT.index("rivers"), end=len(TEXT) - 1)


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """A Llama-like model with a chat template."""
    return chat_model(tmp_path_factory.mktemp("chat"))


def messages(*pairs):
    return Document(
        messages=ChatMessages(messages=[ChatMessage(role=r, content=c) for r, c in pairs])
    )


def token_ids(ids, *spans):
    return Document(token_ids=TokenIds(ids=ids), spans=spans)


async def vector_of(stub, document, pools, **settings):
    """The answer to one document, and its vector `[K, D]`."""
    wanted = VectorSettings(pools=pools, **settings)
    answer = await stub.ExtractVector(ExtractVectorRequest(document=document, settings=wanted))
    return answer, floats(answer.vector.vector).reshape(len(pools), -1)


async def states_of(stub, ids):
    """The states `[T, D]` of token ids, captured one position at a time."""
    states = []
    for start in range(0, len(ids), 50):
        pools = [f"position:{n}" for n in range(start, min(start + 50, len(ids)))]
        states.append((await vector_of(stub, token_ids(ids), pools))[1])
    return np.concatenate(states)


async def test_ids_of_a_text_give_its_vector(serve, demo_model):
    ids = [0, *demo_model.tokenizer(TEXT)["input_ids"]]
    async with serve() as (_, stub):
        text, expected = await vector_of(stub, Document(text=TEXT), ["mean", "mean_no_bos"])
        given, found = await vector_of(stub, token_ids(ids), ["mean", "mean_no_bos"])
        plain = await stub.ExtractVector(
            ExtractVectorRequest(text=TEXT, settings=VectorSettings(pools=["mean"]))
        )
    assert_array_equal(found, expected)
    assert_array_equal(floats(plain.vector.vector), expected[0])
    assert (given.vector.bos, given.vector.tokens) == (True, len(ids))
    assert text.vector.source == DOCUMENT_SOURCE_TEXT
    assert given.vector.source == DOCUMENT_SOURCE_TOKEN_IDS


async def test_chat_is_what_its_template_renders(serve, chatty):
    engine, loaded = chatty
    chat = [{"role": role, "content": content} for role, content in CHAT]
    async with serve(engine, loaded) as (_, stub):
        for prompted in (False, True):
            answer, found = await vector_of(
                stub, messages(*CHAT), ["mean", "last"], add_generation_prompt=prompted
            )
            ids = loaded.tokenizer.apply_chat_template(chat, add_generation_prompt=prompted)
            _, expected = await vector_of(stub, token_ids(ids["input_ids"]), ["mean", "last"])
            assert_array_equal(found, expected)
            assert answer.vector.source == DOCUMENT_SOURCE_MESSAGES
            # The template writes BOS, and the server adds no second one.
            assert (answer.vector.bos, ids["input_ids"][:2].count(0)) == (True, 1)
            assert answer.stamp.add_generation_prompt == prompted
        info = await stub.GetModelInfo(model_pb2.GetModelInfoRequest())
    assert info.has_chat_template
    assert len(answer.stamp.chat_template_sha256) == 64
    assert answer.stamp.chat_template_date == ""


async def test_roles_are_spans_of_a_chat(serve, chatty):
    engine, loaded = chatty
    pools = ["span:user", "span:assistant", "span:system", "span:response", "span:prompt"]
    rendered = loaded.tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in CHAT], tokenize=False
    )
    encoded = loaded.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    parts = {role: [] for role in ("user", "assistant", "system")}
    at = 0
    for role, content in CHAT:
        start = rendered.index(content.strip(), at)
        at = start + len(content.strip())
        parts[role].append((start, at))
    parts["response"] = parts["assistant"][-1:]

    tokens = {name: overlapping(rendered, offsets, spans) for name, spans in parts.items()}
    async with serve(engine, loaded) as (_, stub):
        _, found = await vector_of(stub, messages(*CHAT), pools)
        states = await states_of(stub, ids)
    for vector, name in zip(found, parts, strict=False):
        assert tokens[name]
        assert_allclose(vector, states[tokens[name]].mean(0), atol=1e-4)
    assert_allclose(found[4], states[: tokens["response"][0]].mean(0), atol=1e-4)


@pytest.mark.parametrize("prepends", [True, False], ids=["llama2", "gemma"])
async def test_sentence_pieces_have_spans_by_role(prepends, serve, tmp_path):
    model = save_chat_model(tmp_path)
    write_sentence_pieces(model, prepends=prepends)
    engine, loaded = load_engine(ModelOptions(model=str(model)))
    chat = [("user", "Why do tides turn?"), ("assistant", "The moon pulls, café 潮.")]
    rendered = loaded.tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in chat], tokenize=False
    )
    encoded = loaded.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    async with serve(engine, loaded) as (_, stub):
        states = await states_of(stub, encoded["input_ids"])
        for name, (_, content) in zip(("user", "response"), chat, strict=True):
            start = rendered.index(content)
            part = start, start + len(content)
            tokens = overlapping(rendered, encoded["offset_mapping"], [part])
            _, (found,) = await vector_of(stub, messages(*chat), [f"span:{name}"])
            assert len(tokens) >= len(content)
            assert_allclose(found, states[tokens].mean(0), atol=1e-4)


async def test_each_role_is_trimmed_as_its_template_does(serve, tmp_path):
    template = (
        "{% for m in messages %}<|{{ m.role }}|>"
        "{% if m.role == 'user' %}{{ m.content }}"
        "{% elif m.role == 'system' %}{{ m.content.strip('\\n') }}"
        "{% else %}{{ m.content | trim }}{% endif %}|{% endfor %}"
    )
    engine, loaded = chat_model(tmp_path, template)
    chat = [("system", "\n  Be brief.\n"), ("user", " Why? \n"), ("assistant", " The moon. ")]
    rendered = "<|system|>  Be brief.|<|user|> Why? \n|<|assistant|>The moon.|"
    encoded = loaded.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    async with serve(engine, loaded) as (_, stub):
        states = await states_of(stub, encoded["input_ids"])
        for name, content in {
            "system": "  Be brief.",
            "user": " Why? \n",
            "response": "The moon.",
        }.items():
            start = rendered.index(content)
            part = start, start + len(content)
            tokens = overlapping(rendered, encoded["offset_mapping"], [part])
            _, (found,) = await vector_of(stub, messages(*chat), [f"span:{name}"])
            assert_allclose(found, states[tokens].mean(0), atol=1e-4)


async def test_contents_in_parts_keep_their_words(serve, tmp_path):
    template = (
        "{% for m in messages %}<|{{ m.role }}|>"
        "{% for part in m.content | selectattr('type', 'equalto', 'text') %}"
        "{{ part.text }} {% endfor %}{% endfor %}"
    )
    engine, loaded = chat_model(tmp_path, template)
    chat = [("user", "Why do tides turn?"), ("assistant", "The moon.")]
    rendered = "<|user|>Why do tides turn? <|assistant|>The moon. "
    encoded = loaded.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    start = rendered.index("The moon.")
    tokens = overlapping(rendered, offsets, [(start, start + len("The moon."))])
    async with serve(engine, loaded) as (_, stub):
        states = await states_of(stub, ids)
        _, found = await vector_of(stub, messages(*chat), ["mean", "span:response"])
    assert_allclose(found[0], states.mean(0), atol=1e-4)
    assert_allclose(found[1], states[tokens].mean(0), atol=1e-4)


async def test_chat_without_an_answer_is_all_prompt(serve, chatty):
    async with serve(*chatty) as (_, stub):
        _, both = await vector_of(stub, messages(("user", "Hello there")), ["span:prompt", "mean"])
        assert_array_equal(both[0], both[1])
        error = await error_of(
            vector_of(stub, messages(("user", "Hello there")), ["span:response"])
        )
    assert "has no span 'response' (its spans: prompt, user)" in error.details()


@pytest.mark.parametrize(
    "text", [TEXT, "Ärger e\u0301 über 🧭 naïve cafés,  two  spaces. 潮は戻る。"]
)
async def test_span_covers_tokens_that_overlap_it(text, serve, demo_model):
    encoded = demo_model.tokenizer(text, return_offsets_mapping=True)
    ids = [0, *encoded["input_ids"]]
    rng = np.random.default_rng(0)
    async with serve() as (_, stub):
        states = await states_of(stub, ids)
        for _ in range(8):
            start, end = sorted(rng.choice(len(text) + 1, 2, replace=False).tolist())
            offsets = encoded["offset_mapping"]
            inside = [1 + number for number in overlapping(text, offsets, [(start, end)])]
            document = Document(text=text, spans=[Span(name="part", start=start, end=end)])
            if not inside:
                await error_of(vector_of(stub, document, ["span:part"]))
                continue
            _, (found,) = await vector_of(stub, document, ["span:part"])
            assert_allclose(found, states[inside].mean(0), atol=1e-4)


async def test_spans_of_one_name_are_one(serve):
    ids = list(range(5, 25))
    spans = [Span(name="s", start=2, end=4), Span(name="s", start=3, end=6)]
    async with serve() as (_, stub):
        states = await states_of(stub, ids)
        _, (found,) = await vector_of(stub, token_ids(ids, *spans), ["span:s"])
    assert_allclose(found, states[2:6].mean(0), atol=1e-4)


async def test_cut_span_keeps_its_rest(serve):
    ids = [0, *range(100, 130)]
    spans = [Span(name="s", start=1, end=25), Span(name="gone", start=1, end=9)]
    async with serve(document_tokens=16) as (_, stub):
        cut = [0, *range(115, 130)]
        states = await states_of(stub, cut)
        answer, (found,) = await vector_of(
            stub, token_ids(ids, *spans), ["span:s"], truncation=TRUNCATION_KEEP_END
        )
        assert_allclose(found, states[1:10].mean(0), atol=1e-4)
        assert (answer.vector.tokens, answer.vector.tokens_used) == (31, 16)
        error = await error_of(
            vector_of(stub, token_ids(ids, *spans), ["span:gone"], truncation=TRUNCATION_KEEP_END)
        )
        assert "'gone' covers no token of the document: all of its tokens were cut" in str(error)
        await vector_of(
            stub, token_ids(ids, *spans), ["span:gone"], truncation=TRUNCATION_KEEP_START
        )


async def test_template_is_told_a_fixed_date(serve, tmp_path):
    engine, loaded = chat_model(tmp_path, "{{ strftime_now('%d %B %Y') }}" + TEMPLATE)
    ids = loaded.tokenizer("26 July 2024<|endoftext|><|user|>\nhi\n", add_special_tokens=False)
    async with serve(engine, loaded) as (_, stub):
        answer, found = await vector_of(stub, messages(("user", "hi")), ["mean"])
        _, expected = await vector_of(stub, token_ids(ids["input_ids"]), ["mean"])
    assert_array_equal(found, expected)
    assert answer.stamp.chat_template_date == "2024-07-26"


async def test_template_takes_arguments(serve, tmp_path):
    engine, loaded = chat_model(tmp_path, "{{ style | default('none') }} {{ n }}" + TEMPLATE)
    ids = loaded.tokenizer("loud 3<|endoftext|><|user|>\nhi\n", add_special_tokens=False)
    async with serve(engine, loaded) as (_, stub):
        answer, found = await vector_of(
            stub,
            messages(("user", "hi")),
            ["mean"],
            chat_template_kwargs='{"style": "loud", "n": 3}',
        )
        _, expected = await vector_of(stub, token_ids(ids["input_ids"]), ["mean"])
        for kwargs in ("[1]", "{", '{"messages": []}'):
            error = await error_of(
                vector_of(stub, messages(("user", "hi")), ["mean"], chat_template_kwargs=kwargs)
            )
            assert error.details().startswith("settings.chat_template_kwargs: ")
    assert_array_equal(found, expected)
    assert answer.stamp.chat_template_kwargs == '{"n": 3, "style": "loud"}'


async def test_inseparable_template_gives_no_spans(serve, tmp_path):
    engine, loaded = chat_model(tmp_path, TEMPLATE.replace("| trim", "| upper"))
    async with serve(engine, loaded) as (_, stub):
        await vector_of(stub, messages(("user", "hi")), ["mean"])
        error = await error_of(vector_of(stub, messages(("user", "hi")), ["span:user"]))
    assert "have no spans by role with this model's chat template" in error.details()


def chat_model_with(tokenizer, directory, template):
    """A chat model with a tokenizer of its own, whose first id is BOS."""
    model = save_chat_model(directory, template)
    tokenizer.add_special_tokens([BOS])
    tokenizer.save(str(model / "tokenizer.json"))
    return load_engine(ModelOptions(model=str(model)))


async def test_dropped_character_leaves_no_span(serve, tmp_path):
    """A tokenizer without bytes and an unknown token drops it; what follows gets its place."""
    letters = [BOS, *map(chr, range(32, 127)), "\n"]
    tokenizer = Tokenizer(models.BPE({letter: id_ for id_, letter in enumerate(letters)}, []))
    tokenizer.decoder = decoders.Fuse()
    engine, loaded = chat_model_with(tokenizer, tmp_path, TEMPLATE)
    (encoding,) = tokenizer.encode_batch(["a潮bc"])
    assert encoding.offsets[encoding.tokens.index("c")] == (1, 2)  # the place of 潮
    text = Document(text="a潮bc", spans=[Span(name="b", start=2, end=3)])
    async with serve(engine, loaded) as (_, stub):
        for document, span in ((text, "b"), (messages(("user", "a潮b")), "user")):
            error = await error_of(vector_of(stub, document, [f"span:{span}"]))
            assert "it drops '潮'" in error.details()
            await vector_of(stub, document, ["mean"])
        known = Document(text="abc", spans=[Span(name="b", start=1, end=2)])
        await vector_of(stub, known, ["span:b"])


def chat_model_of_pieces(directory, *known, before=()):
    """A chat model whose template puts "un" before each content, without a space."""
    pieces = {piece: id_ for id_, piece in enumerate([BOS, "[UNK]", *known])}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, pre_tokenizers.WhitespaceSplit()])
    tokenizer.decoder = decoders.WordPiece()
    template = "{% for m in messages %}un{{ m.content }} {% endfor %}"
    return chat_model_with(tokenizer, directory, template)


async def test_content_lost_in_an_unknown_word_has_no_span(serve, tmp_path):
    engine, loaded = chat_model_of_pieces(tmp_path, "do")
    async with serve(engine, loaded) as (_, stub):
        error = await error_of(vector_of(stub, messages(("user", "do")), ["span:user"]))
    assert "its tokens are not those of the messages" in error.details()


async def test_content_that_is_dropped_whole_has_no_span(serve, tmp_path):
    """Its spelling is empty, and the empty text is within any other."""
    removed = pre_tokenizers.Split(".", "removed")
    engine, loaded = chat_model_of_pieces(tmp_path, "un", "##do", before=[removed])
    async with serve(engine, loaded) as (_, stub):
        await vector_of(stub, messages(("user", "do")), ["span:user"])
        error = await error_of(
            vector_of(stub, messages(("user", "..."), ("user", "do")), ["span:user"])
        )
    assert "its tokens are not those of the messages" in error.details()


async def test_content_within_a_word_has_its_pieces(serve, tmp_path):
    """Alone, the piece of a word is an unknown one."""
    engine, loaded = chat_model_of_pieces(tmp_path, "un", "##do")
    async with serve(engine, loaded) as (_, stub):
        states = await states_of(stub, [2, 3])
        _, (found,) = await vector_of(stub, messages(("user", "do")), ["span:user"])
    assert_allclose(found, states[1], atol=1e-4)


BAD = {
    "messages: are refused by this model's chat template": messages(("user", "refuse this")),
    "messages.messages[0].role: is 'bot', which": messages(("bot", "hi")),
    "messages: are empty": messages(),
    "text: is empty or blank": Document(text=" "),
    "text: is empty": Document(),
    "token_ids: are empty": token_ids([]),
    "token_ids: have id 2048 at place 1; this model knows ids 0 to 2047": token_ids([1, 2048]),
    "token_ids: have id 4294967295 at place 0": token_ids([2**32 - 1]),
    "token_ids: has 51 tokens; 50 fit": token_ids([7] * 51),
    "spans: are of texts and token ids": Document(
        messages=messages(("user", "hi")).messages, spans=[SPAN]
    ),
    "spans[0]: is empty: 'a' is from 2 to 2": token_ids([1, 2, 3], Span(name="a", start=2, end=2)),
    "spans[0]: ends before it begins": token_ids([1, 2, 3], Span(name="a", start=2, end=1)),
    "spans[1]: ends at 4: 'b' is too long, there are 3": token_ids(
        [1, 2, 3], Span(name="a", end=1), Span(name="b", end=4)
    ),
    "spans[0]: ends at 7: 'a' is too long, the text has 6": Document(
        text="a text", spans=[Span(name="a", end=7)]
    ),
    "spans[0].name: is 'a b'; use": Document(text="a text", spans=[Span(name="a b", end=2)]),
    "spans[0].name: is 'response', which only chats have": Document(
        text="a text", spans=[Span(name="response", end=2)]
    ),
}


async def test_bad_documents_have_each_its_error_alone(serve, tmp_path):
    refusing = "{% if 'refuse' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    engine, loaded = chat_model(tmp_path, refusing + TEMPLATE)
    documents = [Document(text=TEXT), *BAD.values(), messages(*CHAT[:2]), token_ids([1, 2])]
    for number, document in enumerate(documents):
        document.sequence = number
    async with serve(engine, loaded, document_tokens=50) as (_, stub):
        request = StreamVectorsRequest(settings=VectorSettings(pools=["mean"]), documents=documents)
        _, results = await collect(stub, [request])
    for number, expected in enumerate(BAD, 1):
        assert results[number].error.message.startswith(expected), results[number]
        assert expected.startswith(results[number].error.field)
    for number in (0, len(BAD) + 1, len(BAD) + 2):
        assert results[number].vector.tokens


async def test_model_without_a_template_takes_no_messages(serve):
    async with serve() as (_, stub):
        error = await error_of(vector_of(stub, messages(("user", "hi")), ["mean"]))
        info = await stub.GetModelInfo(model_pb2.GetModelInfoRequest())
    assert "messages: need a chat template, and this model has none" in error.details()
    assert not info.has_chat_template


async def test_two_documents_in_one_call_are_refused(serve):
    request = ExtractVectorRequest(
        text="a", document=Document(text="b"), settings=VectorSettings(pools=["mean"])
    )
    async with serve() as (_, stub):
        error = await error_of(stub.ExtractVector(request))
    assert "document: comes together with a text" in error.details()


async def test_mean_names_chats_and_ids(serve, chatty):
    documents = [messages(*CHAT[:2]), token_ids([0, 5, 6, 7]), Document(text=TEXT, spans=[SPAN])]
    for number, document in enumerate(documents):
        document.sequence = number
    async with serve(*chatty) as (_, stub):
        sent = means_pb2.StreamCorpusMeanRequest(
            documents=means_pb2.CorpusMeanDocuments(documents=documents)
        )
        responses = await run_mean(stub, opening(add_generation_prompt=True), sent)
    record = responses[-1].finished
    assert record.documents == 3
    assert record.add_generation_prompt
    assert len(record.chat_template_sha256) == 64


async def test_unreadable_document_counts_as_an_empty_text(serve, chatty):
    """In the digest that names the documents of a mean."""
    unreadable = messages(*CHAT[:2])
    unreadable.spans.append(SPAN)
    async with serve(*chatty) as (_, stub):
        records = []
        for job, skipped in (("unreadable", unreadable), ("empty", Document(text=""))):
            skipped.sequence = 1
            sent = means_pb2.CorpusMeanDocuments(documents=[token_ids([0, 5, 6, 7]), skipped])
            request = means_pb2.StreamCorpusMeanRequest(documents=sent)
            records.append((await run_mean(stub, opening(job), request))[-1].finished)
    assert [(record.documents, len(record.skipped)) for record in records] == 2 * [(1, 1)]
    assert records[0].corpus_sha256 == records[1].corpus_sha256
