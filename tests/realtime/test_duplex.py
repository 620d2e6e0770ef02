"""Full duplex: a frame in, a frame out; in sessions as offline; many sessions as each of them alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import AudioError, ConfigError, LayoutError
from lalia.layouts import Chunks, Parallel
from lalia.lm import Depth, Linear, Lookup, Sampler, Sampling, SpeechLM, Transformer, collect
from lalia.model import Model
from lalia.model.duplex import duplex, duplex_lm, sides
from lalia.realtime import Caption, Duplex, DuplexSession, Near, Sound, TurnSession, Written
from lalia.realtime.duplex import Ear
from lalia.realtime.intake import Intake
from lalia.recipe import Recipe, Stream
from lalia.recipes import find
from lalia.streams import Discrete, Streams, TokenSequence
from lalia.tokenizers import SSLUnits, Text
from lalia.vocoders import UnitHifiGan

RATE = 16_000
SAMPLER = Sampler(Sampling(temperature=1.0))


def recording(seconds: float = 4.0, start: float = 0.0) -> Audio:
    audio = Audio.load(Path(__file__).parents[2] / "examples/question.flac", mono=True).to(RATE)
    samples = audio.samples.repeat(1, 1, 4)
    return Audio(samples[..., round(start * RATE) : round((start + seconds) * RATE)], RATE)


def loud(model: Model) -> Model:
    """Its language model far from uniform, so that nothing hangs on rounding."""
    for lm in model.lms.values():
        for p in lm.parameters():
            if p.ndim > 1:
                p.data *= 6
    return model


def tiny_moshi() -> Model:
    torch.manual_seed(0)
    return loud(Model(find("moshi").tiny()))


def tiny_dgslm() -> Model:
    torch.manual_seed(0)
    model = loud(Model(find("dgslm").tiny()))
    model.tokenizer("a").fit([recording(8.0)])
    return model


def pair_recipe(*, chunks: bool) -> Recipe:
    """The kind of NTPP: two speakers of units, whose tokens of one time are a pair that does not see itself."""
    units = SSLUnits.Config("pair-hubert", layer=2, clusters=40).tiny()
    layout = Chunks({"a": 1, "b": 1}, closed=False) if chunks else Parallel(("a", "b"), closed=False)
    return Recipe(
        name="pair",
        paper="arXiv:2506.00975",
        streams={"a": Stream(units, channel="A"), "b": Stream(units, channel="B")},
        lms={
            "lm": SpeechLM.Config(
                layout=layout,
                inputs={"a": Lookup(), "b": Lookup()},
                backbone=Transformer.Config(num_layers=2, num_heads=2, dim=32, mask="pair" if chunks else "causal"),
                heads={"a": Linear.Config(), "b": Linear.Config()},
            )
        },
        vocoder=UnitHifiGan.Config("b").tiny(),
        stages=(),
    )


def tiny_pair(*, chunks: bool = True) -> Model:
    torch.manual_seed(0)
    model = loud(Model(pair_recipe(chunks=chunks)))
    model.tokenizer("a").fit([recording(8.0)])
    return model


MODELS = {"moshi": tiny_moshi, "dgslm": tiny_dgslm, "pair": tiny_pair}
USER = {"moshi": "user", "dgslm": "a", "pair": "a"}
OWN = {"moshi": ("text", "moshi"), "dgslm": ("b",), "pair": ("b",)}


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> Model:
    return MODELS[name]()


def pieces(audio: Audio, size: int = 1111) -> list[Audio]:
    return [Audio(x, audio.sample_rate) for x in audio.samples.split(size, dim=-1)]


def spy(session: DuplexSession) -> list[Streams]:
    """What a session makes of its frames, before it is text or sound."""
    made: list[Streams] = []
    say = session._say

    def told(new: Streams) -> Any:
        made.append(new)
        return say(new)

    session._say = told  # type: ignore[method-assign]
    return made


def run(session: DuplexSession, audio: Audio, size: int = 1111) -> tuple[Streams, list[Any]]:
    made = spy(session)
    events = [e for piece in pieces(audio, size) for e in session.push(piece)]
    return collect(iter(made)), events


def heard(session: DuplexSession, stream: str, audio: Audio) -> TokenSequence:
    """The user's stream, as it comes out of pieces."""
    tokenizer: Any = session.duplex.ears[stream].tokenizer
    state, rate = tokenizer.init_state(1), tokenizer.sample_rate
    intake = Intake(rate)
    found = [tokenizer.encode(intake.push(piece), state) for piece in pieces(audio)]
    values = torch.cat([t.values for t in found], dim=2)
    return TokenSequence(values, torch.tensor([values.shape[2]]))


def test_a_session_says_what_it_would_say_offline(name: str, model: Model) -> None:
    audio = recording()
    session = duplex(model).open(sampler=SAMPLER, seed=3)
    streamed, events = run(session, audio)
    user = heard(session, USER[name], audio)
    frames = int(user.lengths[0])
    assert frames > 20
    lm: Any = model.lms[duplex_lm(model.recipe) or ""]
    limits = dict.fromkeys(OWN[name], frames + 1)
    known = {USER[name]: user}
    offline = collect(lm.generate(known, sampler=SAMPLER, seeds=[3], complete=[USER[name]], limits=limits))
    for stream in OWN[name]:
        count = int(streamed[stream].lengths[0])
        assert count >= frames, stream
        assert torch.equal(streamed[stream].values, offline[stream].values[:, :, :count]), stream
        assert len(streamed[stream].values.unique()) > 3
    # The sound is that of the codes.
    sound = torch.cat([e.audio.samples for e in events if isinstance(e, Sound)], dim=-1)
    spoken = session.duplex.spoken
    vocoder: Any = session.duplex.vocoder
    with torch.inference_mode():
        whole = vocoder.decode({read: streamed[n] for read, n in spoken.items()})
    torch.testing.assert_close(sound, whole.samples[..., : sound.shape[-1]], atol=1e-4, rtol=1e-4)
    assert sound.shape[-1] > 0.6 * whole.samples.shape[-1]


def test_one_frame_in_one_frame_out() -> None:
    model = tiny_moshi()
    session = duplex(model).open(sampler=SAMPLER)
    hop = 1920
    made = spy(session)
    sound = recording(4.0).to(24_000).samples
    list(session.push(Audio(sound[..., :0], 24_000)))
    # Its first word, and the first code of its first frame, hang on nothing that is heard.
    assert [sorted(x) for x in made] == [["text"]]
    for t in range(20):
        made.clear()
        events = list(session.push(Audio(sound[..., t * hop : (t + 1) * hop], 24_000)))
        assert sum(int(x["moshi"].lengths[0]) for x in made if "moshi" in x) == 1
        (heard_out,) = [e for e in events if isinstance(e, Sound)]
        assert heard_out.audio.seconds == pytest.approx(0.08)
    assert session.time == pytest.approx(1.6)


def test_what_is_said_does_not_depend_on_how_the_sound_comes(model: Model) -> None:
    audio, both = recording(3.0), duplex(model)
    results = [run(both.open(sampler=SAMPLER, seed=1), audio, size)[0] for size in (160, 5000)]
    for stream, tokens in results[0].items():
        assert torch.equal(tokens.values, results[1][stream].values)


def test_sessions_that_share_their_steps_get_what_they_get_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = [recording(2.0, start) for start in (0.0, 0.7, 1.9)]
    alone = [run(duplex(model).open(sampler=SAMPLER, seed=i), audio)[0] for i, audio in enumerate(sounds)]
    sizes: list[int] = []
    forward = SpeechLM.forward

    def counted(self: SpeechLM, grid: Any, *arguments: Any, **more: Any) -> Tensor:
        sizes.append(len(grid))
        return forward(self, grid, *arguments, **more)

    monkeypatch.setattr(SpeechLM, "forward", counted)
    shared, open_ = duplex(model), {}
    made: dict[int, list[Streams]] = {}
    queue = {i: pieces(audio) for i, audio in enumerate(sounds)}
    for tick in range(60):
        # They join one after another, and leave when nothing more comes.
        if tick % 5 == 0 and (i := tick // 5) < len(sounds):
            open_[i] = shared.open(sampler=SAMPLER, seed=i)
            made[i] = spy(open_[i])
        for i, session in open_.items():
            if queue[i]:
                session.feed(queue[i].pop(0))
        for i, session in list(open_.items()):
            list(session.take())
            if not queue[i]:
                session.close()
                del open_[i]
    assert not shared.sessions
    assert not shared.batch.rows
    assert max(sizes) == 3
    for i, wanted in enumerate(alone):
        got = collect(iter(made[i]))
        for stream, tokens in wanted.items():
            assert torch.equal(got[stream].values, tokens.values), (i, stream)


def test_a_voice_prompt_is_a_state_that_was_read_once() -> None:
    model = tiny_moshi()
    lm: Any = model.lms["helium"]
    generator = torch.Generator().manual_seed(5)
    known: Streams = {}
    for stream in lm.layout.streams:
        kind = lm.specs[stream].kind
        assert isinstance(kind, Discrete)
        shape = (1, kind.num_codebooks, 12)
        known[stream] = TokenSequence(torch.randint(kind.codebook_size, shape, generator=generator), torch.tensor([12]))
    shared, audio = duplex(model), recording(2.0)
    prompt = shared.read(known)
    sessions = [shared.open(sampler=SAMPLER, seed=2, prompt=p) for p in (prompt, prompt, known)]
    results = [run(session, audio)[0] for session in sessions]
    session = sessions[0]
    for other in results[1:]:
        assert torch.equal(results[0]["moshi"].values, other["moshi"].values)
    user = heard(session, "user", audio)
    both = TokenSequence(torch.cat([known["user"].values, user.values], dim=2), known["user"].lengths + user.lengths)
    limits = dict.fromkeys(("text", "moshi"), int(both.lengths[0]) + 2)
    offline = collect(
        lm.generate({**known, "user": both}, sampler=SAMPLER, seeds=[2], complete=["user"], limits=limits)
    )
    count = int(results[0]["moshi"].lengths[0])
    assert torch.equal(results[0]["moshi"].values, offline["moshi"].values[:, :, :count])
    with pytest.raises(LayoutError, match="equally long"):
        shared.read({"text": known["text"]})


def test_the_memory_of_a_session_is_bounded() -> None:
    torch.manual_seed(0)
    recipe = find("moshi").tiny()
    (lm,) = recipe.lms.values()
    windowed = replace(recipe, lms={"helium": replace(lm, backbone=replace(lm.backbone, window=16))})
    torch.manual_seed(0)
    short = loud(Model(windowed))
    model = tiny_moshi()
    audio = recording(8.0)
    session = duplex(model, context=16).open(sampler=SAMPLER, seed=4)
    streamed, _ = run(session, audio)
    user = heard(session, "user", audio)
    frames = int(user.lengths[0])
    assert frames > 90
    state: Any = session.row.state
    assert state.capacity == 16
    assert int(state.position[0]) == frames + 1
    cursor: Any = session.row.row.cursor
    assert all(len(book) <= 2 for books in cursor._codes.values() for book in books)
    assert not any(cursor._extent._codes.values())
    # It sees as far back as a model with that window does.
    other: Any = short.lms["helium"]
    limits = dict.fromkeys(("text", "moshi"), frames + 2)
    offline = collect(other.generate({"user": user}, sampler=SAMPLER, seeds=[4], complete=["user"], limits=limits))
    count = int(streamed["moshi"].lengths[0])
    assert count == frames
    assert torch.equal(streamed["moshi"].values, offline["moshi"].values[:, :, :count])


def test_the_model_speaks_on_the_side_that_is_chosen() -> None:
    assert sides(find("moshi")) == (None, "user")
    assert sides(find("dgslm")) == ("B", "A")
    assert sides(find("dgslm"), "A") == ("A", "B")
    for bad, name in (("C", "dgslm"), ("A", "moshi")):
        with pytest.raises(ConfigError, match="side"):
            sides(find(name), bad)
    with pytest.raises(ConfigError, match="at once"):
        sides(find("llama_omni"))
    model, audio = tiny_dgslm(), recording(2.0)
    made, events = run(duplex(model, side="A").open(sampler=SAMPLER), audio)
    assert set(made) == {"a"}
    assert any(isinstance(e, Sound) for e in events)


def test_what_is_said_in_words_is_written() -> None:
    model = tiny_moshi()
    sampler = replace(SAMPLER, streams={"text": Sampling(temperature=0.0)}, banned={"text": ((0, 97), (98, 260))})
    _, events = run(duplex(model).open(sampler=sampler), recording(1.0))
    text = "".join(e.text for e in events if isinstance(e, Written))
    assert text == "a" * len(text) != ""
    silent = replace(sampler, banned={"text": ((0, 257), (258, 260))})
    _, events = run(duplex(model).open(sampler=silent), recording(1.0))
    assert not [e for e in events if isinstance(e, Written)]


def test_what_the_user_says_may_be_written_too() -> None:
    recipe = pair_recipe(chunks=False)
    words = Text.Config("bytes", vocabulary_size=260, rate=50.0, pad=257)
    lm = recipe.lms["lm"]
    recipe = replace(
        recipe,
        streams={**recipe.streams, "heard": Stream(words, channel="A", aligned_to="a")},
        lms={
            "lm": replace(
                lm,
                layout=Parallel(("a", "b", "heard"), closed=False),
                inputs={**lm.inputs, "heard": Lookup()},
                heads={**lm.heads, "heard": Linear.Config()},
            )
        },
    )
    model = loud(Model(recipe))
    model.tokenizer("a").fit([recording(8.0)])
    sampler = replace(SAMPLER, banned={"heard": ((0, 98), (99, 260))})
    _, events = run(duplex(model).open(sampler=sampler), recording(2.0))
    text = "".join(e.text for e in events if isinstance(e, Caption))
    assert text == "b" * len(text) != ""


def test_sound_that_cannot_be_heard_is_named() -> None:
    session = duplex(tiny_moshi()).open()
    list(session.push(Audio(torch.zeros(480), 24_000)))
    with pytest.raises(AudioError, match="24000"):
        session.feed(Audio(torch.zeros(160), 16_000))
    with pytest.raises(AudioError, match="finite"):
        session.feed(Audio(torch.full((480,), torch.nan), 24_000))
    session.close()
    with pytest.raises(ConfigError, match="closed"):
        session.feed(Audio(torch.zeros(480), 24_000))


def test_models_that_do_not_fit_are_named() -> None:
    model = tiny_moshi()
    lm: Any = model.lms["helium"]
    ear = Ear(model.tokenizer("user"))
    with pytest.raises(ConfigError, match="neither heard nor predicted"):
        Duplex(lm, {})
    with pytest.raises(ConfigError, match="layout has"):
        Duplex(lm, {"them": ear, "user": ear})
    with pytest.raises(ConfigError, match="at least 2"):
        Duplex(lm, {"user": ear}, context=1)
    assert isinstance(lm.config.heads["moshi"], Depth.Config)
    with pytest.raises(ConfigError, match="only later"):
        Duplex(lm, {"user": ear, "text": ear})


def test_who_speaks_by_itself_is_not_told_when() -> None:
    with pytest.raises(ConfigError, match="decides by itself when it speaks, and was given config, addressee"):
        Model(find("moshi").tiny()).session(TurnSession.Config(), addressee=Near())


def test_a_model_has_a_session_of_its_kind() -> None:
    model = tiny_moshi()
    with model.session(seed=1) as session:
        assert isinstance(session, DuplexSession)
        assert [e for e in session.push(recording(0.5)) if isinstance(e, Sound)]
    assert not session.duplex.sessions
