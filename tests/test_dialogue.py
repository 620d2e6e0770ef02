"""Talking to a model turn by turn: what it keeps in mind, what comes when, and what it costs."""

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import lalia
from lalia.audio import Audio
from lalia.errors import AudioError, ConfigError, DataError
from lalia.lm import ContinuousBatch, absorb
from lalia.model import Model, dialogue, memory, words
from lalia.model.dialogue import Dialogue, Heard, Said, Sound, Written, in_circles
from lalia.model.memory import Request
from lalia.model.template import Template
from lalia.model.voicing import Spoken
from lalia.streams import TokenSequence, nothing
from lalia.tokenizers import Manner, soft_text
from tiny_mini import tiny_mini

QUESTION = Path(__file__).parents[1] / "examples/question.flac"


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_mini()


def steps(state: Any) -> int:
    return int(state.position[0])


def test_events_come_in_order_and_are_the_reply(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a recogniser of random weights hears is nonsense.
    monkeypatch.setattr(soft_text.Heard, "understood", True)
    events = list(model.stream_chat(str(QUESTION), max_tokens=40))
    assert isinstance(events[0], Heard)
    assert isinstance(events[-1], Said)
    reply = events[-1].reply
    assert "".join(e.text for e in events if isinstance(e, Written)).strip() == reply.text
    sounds = [e.audio for e in events if isinstance(e, Sound)]
    assert reply.audio is not None
    assert torch.equal(torch.cat([s.samples for s in sounds], dim=-1), reply.audio.samples)
    assert reply.audio.sample_rate == 24000
    assert reply.timings["encode_ms"] <= reply.timings["first_token_ms"] <= reply.timings["first_audio_ms"]
    whole = model.chat(str(QUESTION), seconds=60.0)
    assert whole.text.startswith(reply.text[:20])


def test_speech_in_pieces_is_that_of_the_whole_text(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # Random weights say nothing else.
    monkeypatch.setattr(dialogue, "in_circles", lambda ids: False)
    reply = model.dialogue(max_tokens=60).answer("Tell me about the sea.", typed=True)
    whole = model.say(reply.text)
    assert reply.audio is not None
    torch.testing.assert_close(reply.audio.samples, whole.samples, atol=1e-3, rtol=1e-3)


def test_the_state_goes_on_as_if_all_had_been_said_at_once(model: Model) -> None:
    """The second turn's reply, from the state that the first left, is what one pass over both turns gives."""
    talk = model.dialogue(max_tokens=12, speak=False)
    first = talk.answer("Hello there", typed=True)
    ids = list(talk.memory.turns[0].reply)
    second = talk.answer("And you?", typed=True)
    text, template = model.tokenizer("text"), talk.memory.template
    said = talk.memory.system + template.system[1] + "Hello there" + template.reply
    known = torch.cat([text.encode(said).values[0, 0], torch.tensor(ids)])
    tail = text.encode(template.again + "And you?").values[0, 0]
    before = torch.cat([known, tail])
    lm: Any = model.lms["llm"]
    made = list(
        lm.generate(
            {
                "before": tokens(before),
                "question": nothing(lm.specs["question"]),
                "manner": nothing(lm.specs["manner"]),
                "after": tokens(text.encode(template.reply).values[0, 0]),
            },
            complete=["before", "question", "manner", "after"],
            limits={"text": 12},
        )
    )
    again = torch.cat([m["text"].values[0, 0] for m in made if "text" in m]).tolist()
    assert first.text
    assert again == talk.memory.turns[1].reply
    assert second.text == text.decode(tokens(torch.tensor(again)))[0].strip()


def tokens(ids: torch.Tensor) -> TokenSequence:
    return TokenSequence(ids[None, None], torch.tensor([len(ids)]))


def test_what_is_kept_in_mind_is_bounded(model: Model) -> None:
    talk = model.dialogue(context=300, max_tokens=16, speak=False)
    lengths = []
    for i in range(12):
        talk.answer(f"This is turn number {i}.", typed=True)
        assert steps(talk.memory.state) == talk.memory.used <= 300
        lengths.append(len(talk.memory.turns))
    # It forgets, but never everything, and not at every turn.
    assert max(lengths) < 12
    assert min(lengths[1:]) >= 1
    assert sum(b <= a for a, b in pairwise(lengths)) < 6
    assert talk.memory.turns[-1].request.text == "This is turn number 11."


def test_a_long_conversation_takes_no_more_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the room is there from the beginning, and what is forgotten is forgotten while the user listens."""
    talk = model.dialogue(context=400, max_tokens=16, speak=False)

    def size() -> int:
        state: Any = talk.memory.state
        return sum(t.numel() * t.element_size() for t in (*state.keys, *state.values))

    first, forgot = size(), 0
    assert first == 400 * size_of_a_step(model)
    for i in range(30):
        kept, events = len(talk.memory.turns), talk.turn(f"This is turn number {i}.", typed=True)
        with monkeypatch.context() as waiting:
            # Until its first words, a turn reads what the user said and nothing else.
            waiting.setattr(
                talk.memory, "begin", lambda: pytest.fail("what was said is read again while the user waits")
            )
            next(events)
        *_, last = events
        assert isinstance(last, Said)
        forgot += len(talk.memory.turns) <= kept
        assert size() == first
        assert sum(len(t.reply) for t in talk.memory.turns) < 400
    assert 1 <= forgot < 15


def size_of_a_step(model: Model) -> int:
    """Bytes of the keys and values of a token."""
    shape: Any = model.lms["llm"].backbone.model.config  # type: ignore[union-attr]
    return 2 * int(shape.num_layers * shape.kv_heads * shape.size_of_head) * 4


def test_kernels_of_past_turns_are_not_all_kept(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    model.dialogue(speak=False)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    model.dialogue(speak=False)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"


def test_a_reply_that_is_cut_off_counts_as_said_so_far(model: Model) -> None:
    talk = model.dialogue(max_tokens=30, speak=False)
    events = talk.turn("Tell me everything.", typed=True)
    written = [next(events) for _ in range(3)]
    events.close()
    assert all(isinstance(e, Written) for e in written)
    turn = talk.memory.turns[-1]
    assert 0 < len(turn.reply) < 30
    assert talk.memory.unseen == turn.reply[-1:]
    assert steps(talk.memory.state) == talk.memory.used
    before = talk.memory.used
    talk.memory.close()
    again = len(talk.memory.ids(talk.memory.template.again))
    assert steps(talk.memory.state) == talk.memory.used == before + 1 + again
    assert talk.answer("Go on", typed=True).text
    assert steps(talk.memory.state) == talk.memory.used


def test_what_is_not_understood_is_not_answered(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = model.tokenizer("question")
    hear = type(tokenizer).hear

    def nothing_heard(self: Any, audio: Audio, *a: Any, **k: Any) -> Any:
        return [replace(h, text="") for h in hear(self, audio, *a, **k)]

    monkeypatch.setattr(type(tokenizer), "hear", nothing_heard)
    talk = model.dialogue()
    reply = talk.answer(str(QUESTION))
    assert reply.text == model.recipe.talk.unclear  # type: ignore[union-attr]
    assert reply.audio is not None
    assert reply.audio.seconds > 0
    assert not talk.memory.turns


def test_what_is_listened_to_in_pieces_is_heard_as_the_whole(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_text.Heard, "understood", True)
    audio = Audio.load(QUESTION, sample_rate=16000, mono=True)
    talk, other = (model.dialogue(max_tokens=8, speak=False) for _ in range(2))
    for start in range(int(audio.seconds * 5) + 1):
        piece = audio.cut(0.2 * start, 0.2)
        if piece.seconds:
            talk.listen(piece)
    assert talk.answer().text == other.answer(audio).text
    (turn,), (whole,) = talk.memory.turns, other.memory.turns
    assert isinstance(turn.request.words, TokenSequence)
    assert isinstance(whole.request.words, TokenSequence)
    torch.testing.assert_close(turn.request.words.values, whole.request.words.values, atol=1e-4, rtol=1e-4)
    assert talk._deliveries == other._deliveries
    with pytest.raises(AudioError, match="Nothing was listened to"):
        talk.answer()


def test_how_it_is_said_is_added_to_what_is_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_text.Heard, "understood", True)
    # What a recogniser of random weights hears tells nothing of the rate.
    monkeypatch.setattr(Manner, "_count", lambda self, text: 0)
    audio = Audio.load(QUESTION, sample_rate=16000, mono=True)
    faint = Audio(0.005 * audio.samples / audio.samples.std(), 16000)
    plain, quiet, used = model.dialogue(speak=False), model.dialogue(speak=False), []
    for talk, said in ((plain, audio), (quiet, faint)):
        talk.listen(said.cut(0.0, 1.0))
        talk.listen(said.cut(1.0))
        talk.answer()
        assert steps(talk.memory.state) == talk.memory.used
        used.append(talk.memory.turns[0].request.manner)
    assert used[0] is not None
    assert used[1] is not None
    assert used[0].num_tokens == 0 < used[1].num_tokens
    # Who always speaks so means nothing by it.
    quiet.answer(faint)
    assert quiet.memory.turns[1].request.manner.num_tokens == 0
    # Words alone, typed, have no manner; and what is forgotten is read again with it.
    quiet.answer("Hello.", typed=True)
    assert quiet.memory.turns[2].request.manner is None
    quiet.memory.used = quiet.memory.context
    quiet.memory.make_room(0)
    assert steps(quiet.memory.state) == quiet.memory.used


def test_without_what_training_needs_it_says_the_same(model: Model) -> None:
    torch.manual_seed(0)
    small, half = Model(model.recipe), Model(model.recipe)
    for one in (small, half):
        one.module.load_state_dict(model.module.state_dict())
        for p in one.module.parameters():
            p.data = p.data.half().float()
    half.compact()
    held = sum(p.numel() for p in half.lms.parameters())
    if held == sum(p.numel() for p in small.lms.parameters()):
        pytest.skip("this processor has no products of half precision")
    assert held < 0.2 * sum(p.numel() for p in small.lms.parameters())
    ours, theirs = (m.dialogue(max_tokens=12).answer("Hello.", typed=True) for m in (small, half))
    assert ours.text == theirs.text != ""
    assert ours.audio is not None
    assert theirs.audio is not None
    torch.testing.assert_close(ours.audio.samples, theirs.audio.samples, atol=1e-4, rtol=1e-3)


def test_eight_bits_say_nearly_the_same(model: Model) -> None:
    """Of random weights the likeliest token is hardly likelier than others: the beginning has to agree."""
    torch.manual_seed(0)
    small = Model(model.recipe)
    small.module.load_state_dict(model.module.state_dict())
    small.quantize()
    assert sum(p.numel() for p in small.lms.parameters()) < 0.2 * sum(p.numel() for p in model.lms.parameters())
    ours, theirs = (m.dialogue(max_tokens=6, speak=False).answer("Hello.", typed=True).text for m in (model, small))
    assert ours[:3] == theirs[:3] != ""


def test_a_reply_in_circles_is_ended() -> None:
    assert in_circles([5] * 8)
    assert not in_circles([5] * 7)
    assert in_circles([9, *[1, 2, 3] * 8])
    assert not in_circles([1, 2, 3] * 7)
    assert not in_circles(list(range(13)) * 8)
    assert not in_circles([])


def test_instructions_are_read_first(model: Model) -> None:
    short, long = (model.dialogue(system=s, speak=False) for s in ("Be brief.", "Be brief. Speak of ships only."))
    assert steps(short.memory.state) == short.memory.used < long.memory.used == steps(long.memory.state)


def test_a_monologue_is_heard_to_its_end(model: Model) -> None:
    talk = model.dialogue(context=300, max_tokens=8, speak=False)
    long = "word " * 200 + "and that is the end"
    talk.answer("Hello.", typed=True)
    assert talk.answer(long, typed=True).text
    assert steps(talk.memory.state) == talk.memory.used <= 300
    kind: Any = model.specs["question"].kind
    heard = TokenSequence(torch.randn(1, 900, kind.dim), torch.tensor([900]))
    known = talk.memory.known(Request(words=heard))["question"]
    assert torch.equal(known.values, heard.values[:, -talk.memory.most :])
    with pytest.raises(ConfigError, match="The instructions take"):
        model.dialogue(context=100, max_tokens=8, system="x" * 200)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"max_tokens": 0}, "A reply of 0 tokens"), ({"context": 100, "max_tokens": 80}, "in a context of 100")],
)
def test_settings_out_of_range(model: Model, settings: dict[str, int], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Dialogue(model, **settings)


def test_models_that_are_not_talked_to() -> None:
    gslm = lalia.load("mini-gslm")
    for call in (gslm.dialogue, lambda: gslm.say("Hello."), lambda: gslm.transcribe(str(QUESTION))):
        with pytest.raises(ConfigError, match="Choose another, like mini"):
            call()


def test_bad_recordings_and_empty_texts(model: Model, tmp_path: Path) -> None:
    Audio(torch.zeros(1, 1, 16000), 16000).save(tmp_path / "silent.wav")
    with pytest.raises(AudioError, match="silent"):
        list(model.stream_chat(str(tmp_path / "silent.wav")))
    with pytest.raises(AudioError, match="does not exist"):
        model.chat(str(tmp_path / "none.wav"))
    with pytest.raises(DataError, match="nothing to read out"):
        model.say(" ?! ")


def test_the_language_model_has_a_say_in_what_was_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a cat", "a much longer cat"]
    scores = words.log_probs(model, texts)
    lm: Any = model.lms["llm"]
    for text, score in zip(texts, scores, strict=True):
        ids = model.tokenizer("text").encode(text)
        rest = {s: nothing(lm.specs[s]) for s in ("before", "question", "manner", "after")}
        alone = lm.log_prob({**rest, "text": ids})["text"][0, 0, : ids.num_tokens]
        assert score == pytest.approx(float(alone.sum()), rel=1e-4)
    assert isinstance(model.transcribe(str(QUESTION)), str)
    assert model.transcribe(str(QUESTION), beams=0) == model.tokenizer("question").transcribe(Audio.load(QUESTION))[0]


def test_absorbing_in_pieces_is_absorbing_the_whole(model: Model) -> None:
    lm: Any = model.lms["llm"]
    ids = torch.arange(40) % 200
    whole = absorb(lm, {"before": tokens(ids)})
    parts = absorb(lm, {"before": tokens(ids[:13])})
    absorb(lm, {"before": tokens(ids[13:])}, parts)
    assert steps(whole) == steps(parts) == 41
    probe = tokens(torch.tensor([7]))
    a, b = (
        next(lm.generate({"before": probe}, state=s, complete=["before", "question", "manner", "after"]))
        for s in (whole, parts)
    )
    assert torch.equal(a["text"].values, b["text"].values)


class _Talker:
    """A tokenizer with a chat template."""

    def __init__(self, form: str) -> None:
        self.chat_template = form

    def apply_chat_template(
        self, talk: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        if self.chat_template == "picky" and talk[0]["role"] == "system":
            raise ValueError("System role not supported")
        text = "".join(f"<{turn['role']}>{turn['content']}</s>\n" for turn in talk)
        return f"<s>{text}" + ("<assistant>" if add_generation_prompt else "")


def test_a_template_is_taken_apart() -> None:
    made = Template.of(_Talker("plain"), "x")
    assert made == Template(("<s><system>", "</s>\n<user>"), "</s>\n<assistant>", "</s>\n<user>")
    with pytest.raises(ConfigError, match="does not hold instructions"):
        Template.of(_Talker("picky"), "x")


def test_what_was_not_heard_was_not_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "in_circles", lambda ids: False)
    talk = model.dialogue(max_tokens=60)
    with pytest.raises(ConfigError, match="no spoken reply"):
        talk.truncate(0.0)
    talk.answer("Good morning.", typed=True)
    reply = talk.answer("Tell me about the sea.", typed=True)
    assert reply.audio is not None
    before = list(talk.memory.turns[-1].reply)
    # Random weights write no spaces, so that there are no words to tell apart.
    monkeypatch.setattr(Spoken, "until", lambda self, seconds: self.text[: int(len(self.text) * seconds)])
    said = talk.truncate(0.5)
    assert 0 < len(said) < len(reply.text)
    assert reply.text.startswith(said.strip())
    kept = talk.memory.turns[-1].reply
    assert before[: len(kept)] == kept
    assert len(model.tokenizer("text").decode(tokens(torch.tensor(kept)))[0]) <= len(said)
    assert steps(talk.memory.state) == talk.memory.used
    # What comes after is as if the reply had been no longer.
    other = model.dialogue(max_tokens=60, speak=False)
    other.memory.recall([*talk.memory.turns])
    other._count = talk._count
    assert other.answer("And then?", typed=True).text == talk.answer("And then?", typed=True).text


def test_a_reply_that_was_not_begun_or_heard_to_its_end(model: Model) -> None:
    talk = model.dialogue(max_tokens=12)
    reply = talk.answer("Hello.", typed=True)
    assert reply.audio is not None
    whole = list(talk.memory.turns[-1].reply)
    assert talk.truncate(reply.audio.seconds + 1).strip() == reply.text
    assert talk.memory.turns[-1].reply == whole
    talk.answer("And now?", typed=True)
    assert talk.truncate(0.0) == ""
    assert talk.memory.turns[-1].reply == []
    assert talk.answer("Still there?", typed=True).audio is not None


def test_which_words_are_heard_by_when() -> None:
    """A reply in three pieces of a second: of the first nothing is voiced that its look-ahead needs."""
    spoken = Spoken()
    for text, share in (("One two thr", 0.5), ("One two three four fi", 0.5), ("One two three four five.", 1.0)):
        spoken.text = text
        spoken.add(1.0, share)
    heard = [spoken.until(t) for t in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 2.99, 3.0, 9.0)]
    assert heard == ["", "", "One", "One", "One two", "One two three", "One two three four", spoken.text, spoken.text]
    # What was written and never spoken was not heard.
    spoken.text += " Six."
    assert spoken.until(9.0) == "One two three four five."
    assert Spoken("Nothing was said.").until(1.0) == ""


def test_going_back_reads_nothing_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns that are had in mind already are not read; of others, the state is as if they had never been."""
    talk, other = (model.dialogue(max_tokens=12, speak=False) for _ in range(2))
    for text in ("One.", "Two.", "Three."):
        talk.answer(text, typed=True)
    turns = list(talk.memory.turns)
    monkeypatch.setattr(talk.memory, "begin", lambda: pytest.fail("the instructions are read again"))
    with monkeypatch.context() as still:
        still.setattr(memory, "absorb", lambda *a, **k: pytest.fail("a turn is read again"))
        talk.memory.recall(turns[:1])
    assert steps(talk.memory.state) == talk.memory.used
    talk.memory.recall([turns[0], turns[2]])
    other.memory.recall([turns[0], turns[2]])
    assert talk.memory.used == other.memory.used == steps(talk.memory.state)
    other._count = talk._count
    assert talk.answer("And then?", typed=True).text == other.answer("And then?", typed=True).text
    talk.memory.recall([])
    assert talk.memory.used == talk.memory._start


def test_what_was_forgotten_is_not_read_again(model: Model) -> None:
    talk = model.dialogue(context=300, max_tokens=16, speak=False)
    turns = []
    for i in range(8):
        talk.answer(f"This is turn number {i}.", typed=True)
        turns.append(talk.memory.turns[-1])
    kept = list(talk.memory.turns)
    assert len(kept) < 8
    before = talk.memory.used
    talk.memory.recall(turns)
    assert talk.memory.turns == kept
    assert talk.memory.used == before
    # Instead of the last one, another that does not fit beside the others.
    talk.memory.recall([*turns[:-1], memory.Turn(Request("word " * 20), [5] * 12)])
    assert talk.memory.turns[-1].request.text.startswith("word")
    assert steps(talk.memory.state) == talk.memory.used <= 300 - 16


def test_other_instructions_keep_the_turns(model: Model) -> None:
    talk, other = model.dialogue(max_tokens=12, speak=False), model.dialogue(max_tokens=12, speak=False, system="Sing.")
    talk.answer("Hello.", typed=True)
    talk.memory.instruct("Sing.")
    other.memory.recall(talk.memory.turns)
    other._count = talk._count
    assert steps(talk.memory.state) == steps(other.memory.state)
    assert talk.answer("And then?", typed=True).text == other.answer("And then?", typed=True).text
    with pytest.raises(ConfigError, match="The instructions take"):
        talk.memory.instruct("x" * 3000)
    assert talk.memory.system == "Sing."


def test_what_is_typed_and_heard_is_one_turn(model: Model) -> None:
    kind: Any = model.specs["question"].kind
    heard = [Request(words=TokenSequence(torch.randn(1, n, kind.dim), torch.tensor([n]))) for n in (3, 4)]
    both = Request("Look:") + heard[0] + heard[1] + Request("please")
    assert both.text == "Look: please"
    assert both.words is not None
    assert both.words.num_tokens == 7
    talk = model.dialogue(max_tokens=8, speak=False)
    assert talk.answer(both).text
    assert steps(talk.memory.state) == talk.memory.used


def test_conversations_at_once_are_as_each_alone(model: Model) -> None:
    """Replies that are written together, begun and ended in between, and one that is cut off."""
    batch = ContinuousBatch(model.lms["llm"])  # type: ignore[arg-type]
    together, alone = (
        [model.dialogue(max_tokens=20, seed=i, speak=False, **more) for i in range(3)]
        for more in ({"batch": batch}, {})
    )
    for text in ("Tell me of ships.", "And of the sea?"):
        turns = [talk.turn(text + str(i), typed=True) for i, talk in enumerate(together)]
        for _ in range(4):
            next(turns[2])
        turns[2].close()
        pending = turns[:2]
        while pending:
            pending = [t for t in pending if next(t, None) is not None]
        for i, talk in enumerate(alone):
            events = talk.turn(text + str(i), typed=True)
            for n, _ in enumerate(events):
                if i == 2 and n == 3:
                    events.close()
    for talk, other in zip(together, alone, strict=True):
        assert [t.reply for t in talk.memory.turns] == [t.reply for t in other.memory.turns]
        assert talk.memory.unseen == other.memory.unseen
        assert steps(talk.memory.state) == talk.memory.used == other.memory.used
    assert not batch.rows
