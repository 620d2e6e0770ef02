"""Controllers whose models learn a rule from sounds, and decide by it on sounds that they never heard.

A tone is somebody who speaks to the model, noise is what is none of its business.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.layouts import Concat, Flat, Parallel
from lalia.lm import ContinuousBatch, Linear, Lookup, Project, SpeechLM, State, Transformer
from lalia.realtime import (
    Action,
    ActionTokens,
    Activity,
    ControlledSession,
    Decision,
    Draft,
    Finished,
    Ignored,
    Interrupted,
    Situation,
    Sound,
    Started,
    StateHead,
    StateTokens,
    Stopped,
    Written,
)
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers import Mel
from loud import Loud
from parrot import Parrot

RATE, CHUNK, FRAMES = 16_000, 1920, 3
TONE, NOISE, SILENCE = "tone", "noise", "silence"
SPEC = Mel.Config(8, n_fft=1024, hop=640, normalize=True)


@cache
def ear() -> Mel:
    """The spectra by which all of them hear, on the scale of these sounds."""
    mel: Mel = SPEC.build()
    mel.fit([Audio(scene((TONE, 2.0), (NOISE, 2.0), (SILENCE, 2.0), seed=0)[None, None], RATE)])
    return mel


class Voice(Loud):
    def __call__(self, frame: Tensor) -> float:
        return float(super().__call__(frame) > 0.05)


def sound(kind: str, samples: int, generator: torch.Generator) -> Tensor:
    noise = 2 * torch.rand(samples, generator=generator) - 1
    if kind == SILENCE:
        return 0.001 * noise
    loud = 0.5 + 0.4 * float(torch.rand(1, generator=generator))
    if kind == NOISE:
        return loud * noise
    pitch = 150 + 150 * float(torch.rand(1, generator=generator))
    at = torch.arange(samples) / RATE
    return loud * (torch.sin(2 * math.pi * pitch * at) + torch.sin(4 * math.pi * pitch * at)) / 2 + 0.001 * noise


def pick(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,), generator=generator))


def scene(*parts: tuple[str, float], seed: int = 1000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([sound(kind, round(seconds * RATE), generator) for kind, seconds in parts])


def mel_of(samples: Tensor) -> Tensor:
    return ear().encode(Audio(samples[None, None], RATE)).values


def tokens(*codes: int) -> TokenSequence:
    return TokenSequence(torch.tensor([[codes]]), torch.tensor([len(codes)]))


def features(values: Tensor) -> TokenSequence:
    return TokenSequence(values, torch.tensor([values.shape[1]]))


def learn(lm: SpeechLM, example: Callable[[torch.Generator], Streams], steps: int) -> SpeechLM:
    """Batches of eight, each of other sounds."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=3e-3)
    lm.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - step / steps))
        rows = [example(generator) for _ in range(8)]
        loss = lm.loss(lm.pack({n: pad_batch([row[n] for row in rows]) for n in rows[0]}))["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lm.eval()


def build(layout: Any, specs: dict[str, StreamSpec], inputs: Any, heads: Any) -> SpeechLM:
    torch.manual_seed(0)
    backbone = Transformer.Config(num_layers=2, num_heads=2, dim=32)
    config = SpeechLM.Config(layout=layout, inputs=inputs, backbone=backbone, heads=heads)
    lm: SpeechLM = config.build(specs)
    return lm


def play(session: ControlledSession, samples: Tensor, size: int = 1000) -> list[tuple[float, Any]]:
    return [(session.time, e) for x in samples.split(size) for e in session.push(Audio(x, RATE))]


def kinds(events: Sequence[tuple[float, Any]]) -> list[type]:
    return [type(e) for _, e in events if isinstance(e, Started | Stopped | Ignored | Interrupted | Finished)]


# -- state tokens (VITA) ---------------------------------------------------------------------------

QUERY, OTHER = 1, 2


@pytest.fixture(scope="module")
def answering() -> SpeechLM:
    """Hears a whole question, and answers with a state token and a word; what is no query, with a state token alone."""
    layout = Concat((Flat("question", closed=False), Flat("text")))
    specs = {"question": SPEC.spec, "text": StreamSpec(kind=Discrete(8, end=0), frame_rate=None)}
    inputs = {"question": Project.Config(), "text": Lookup()}
    lm = build(layout, specs, inputs, {"text": Linear.Config()})

    def example(generator: torch.Generator) -> Streams:
        kind = (TONE, NOISE)[pick(generator, 0, 2)]
        parts = [(SILENCE, pick(generator, 0, 4)), (kind, pick(generator, 3, 12)), (SILENCE, pick(generator, 2, 6))]
        samples = torch.cat([sound(k, n * CHUNK, generator) for k, n in parts])
        text = tokens(QUERY, 5, 6) if kind == TONE else tokens(OTHER)
        return {"question": features(mel_of(samples)), "text": text}

    return learn(lm, example, 60)


def state_tokens(lm: SpeechLM, **more: Any) -> StateTokens:
    return StateTokens(lm, ear(), query=QUERY, others=[OTHER], activity=Activity(detector=Voice()), **more)


def test_state_tokens_tell_a_query_from_what_is_none(answering: SpeechLM) -> None:
    controller = state_tokens(answering)
    for seed in range(8):
        heard = [scene((SILENCE, 0.3), (kind, 1.0), (SILENCE, 0.5), seed=seed) for kind in (TONE, NOISE)]
        assert [controller.token(Audio(x[None, None], RATE)) for x in heard] == [QUERY, OTHER]


def test_only_a_query_is_answered(answering: SpeechLM) -> None:
    talk = Parrot(4)
    session = ControlledSession(talk, state_tokens(answering, silence=0.4))
    events = play(session, scene((SILENCE, 0.5), (NOISE, 1.0), (SILENCE, 1.0), (TONE, 1.0), (SILENCE, 3.0)))
    assert kinds(events) == [Started, Ignored, Started, Stopped, Finished]
    stopped = next(t for t, e in events if isinstance(e, Stopped))
    assert stopped == pytest.approx(3.5 + 0.4, abs=0.15)
    # Of the noise, the conversation heard nothing.
    assert talk.happened == [("turn", pytest.approx(1.0 + 0.3 + 0.4, abs=0.3))]
    started = [e.at for _, e in events if isinstance(e, Started)]
    assert started == [pytest.approx(0.2, abs=0.2), pytest.approx(2.2, abs=0.2)]


def test_a_query_interrupts_and_noise_does_not(answering: SpeechLM) -> None:
    talk = Parrot(40)
    parts = [(SILENCE, 0.3), (TONE, 0.8), (SILENCE, 1.0), (NOISE, 1.0), (SILENCE, 1.0), (TONE, 1.0), (SILENCE, 1.5)]
    events = play(ControlledSession(talk, state_tokens(answering, silence=0.4)), scene(*parts))
    assert kinds(events) == [Started, Stopped, Interrupted, Started, Stopped]
    at = next(t for t, e in events if isinstance(e, Interrupted))
    # When he has said it: that is when the monitor knows what it was.
    assert at == pytest.approx(5.1 + 0.4, abs=0.15)
    assert [x if isinstance(x, str) else x[0] for x in talk.happened] == ["turn", "truncate", "turn"]
    assert talk.happened[2][1] == pytest.approx(1.0 + 0.3 + 0.4, abs=0.3)


# -- a state head (Freeze-Omni) --------------------------------------------------------------------

LABELS = ("listen", "respond", "end")
PATIENCE = 6
"""Frames of silence after which a turn is over."""


@pytest.fixture(scope="module")
def stating() -> SpeechLM:
    layout = Parallel(("heard", "state"), delays=(0, 1), closed=False)
    specs = {"heard": SPEC.spec, "state": StreamSpec(kind=Discrete(3), frame_rate=SPEC.spec.frame_rate)}
    lm = build(layout, specs, {"heard": Project.Config()}, {"state": State.Config(LABELS)})

    def example(generator: torch.Generator) -> Streams:
        kind = (TONE, NOISE)[pick(generator, 0, 2)]
        lead, voice, silence = pick(generator, 0, 4), pick(generator, 3, 10), pick(generator, 4, 8)
        parts = [(SILENCE, lead), (kind, voice), (SILENCE, silence)]
        samples = torch.cat([sound(k, n * CHUNK, generator) for k, n in parts])
        values = mel_of(samples)
        over = FRAMES * (lead + voice) + PATIENCE
        codes = [0 if t < over else 1 + (kind == NOISE) for t in range(values.shape[1])]
        return {"heard": features(values), "state": tokens(*codes)}

    return learn(lm, example, 150)


def state_head(lm: SpeechLM, **more: Any) -> StateHead:
    return StateHead(ContinuousBatch(lm), ear(), activity=Activity(detector=Voice()), chunk=0.12, **more)


def test_a_state_head_ends_turns_with_a_reply_or_without(stating: SpeechLM) -> None:
    talk = Parrot(4)
    controller = state_head(stating)
    session = ControlledSession(talk, controller)
    events = play(session, scene((SILENCE, 0.5), (NOISE, 0.9), (SILENCE, 1.0), (TONE, 0.8), (SILENCE, 3.0)))
    assert kinds(events) == [Started, Ignored, Started, Stopped, Finished]
    stopped = next(t for t, e in events if isinstance(e, Stopped))
    assert stopped == pytest.approx(3.2 + PATIENCE * 0.04, abs=0.3)
    assert [x[0] for x in talk.happened] == ["turn"]
    # A turn that is over takes no more room.
    assert not controller._batch.rows


def test_a_state_head_interrupts(stating: SpeechLM) -> None:
    talk = Parrot(40)
    parts = [(SILENCE, 0.3), (TONE, 0.7), (SILENCE, 1.0), (NOISE, 0.7), (SILENCE, 1.0), (TONE, 0.7), (SILENCE, 1.0)]
    events = play(ControlledSession(talk, state_head(stating)), scene(*parts))
    assert kinds(events) == [Started, Stopped, Interrupted, Started, Stopped]


def test_controllers_that_share_a_batch_decide_as_alone(stating: SpeechLM) -> None:
    samples = [scene((SILENCE, 0.3), (kind, 0.7), (SILENCE, 1.0), seed=i) for i, kind in enumerate((TONE, NOISE))]
    batch = ContinuousBatch(stating)
    shared = [StateHead(batch, ear(), activity=Activity(detector=Voice()), chunk=0.12) for _ in samples]
    alone = [state_head(stating) for _ in samples]
    said: list[list[Decision]] = [[] for _ in range(4)]
    situations = [Situation.IDLE] * 4
    for chunks in zip(*(x[: len(x) // CHUNK * CHUNK].split(CHUNK) for x in samples), strict=True):
        for i, controller in enumerate([*shared, *alone]):
            decision = controller.hear(chunks[i % 2], situations[i])
            situations[i] = decision.action.after
            said[i].append(decision)
    assert said[0] == said[2]
    assert said[1] == said[3]
    assert Action.LISTEN_TO_SPEAK in {d.action for d in said[0]}
    assert Action.LISTEN_TO_IDLE in {d.action for d in said[1]}


# -- action tokens (FlexDuo) -----------------------------------------------------------------------

ACTIONS = [a for a in Action if a is not Action.LISTEN_TO_IDLE]
SITUATIONS = list(Situation)


def rule(situation: Situation, heard: Sequence[str]) -> Action:
    """What is to be learned, from the kinds of the chunks that are kept."""
    last = list(heard[-2:])
    match situation:
        case Situation.IDLE:
            return Action.IDLE_TO_LISTEN if last[-1] == TONE else Action.KEEP_IDLE
        case Situation.LISTEN:
            return Action.LISTEN_TO_SPEAK if last == [SILENCE] * 2 else Action.KEEP_LISTENING
        case Situation.SPEAK:
            if last == [TONE] * 2:
                return Action.SPEAK_TO_LISTEN
            return Action.SPEAK_TO_IDLE if last == [NOISE] * 2 else Action.KEEP_SPEAKING


@pytest.fixture(scope="module")
def acting() -> SpeechLM:
    layout = Concat(tuple(Flat(s, closed=False) for s in ("state", "heard", "action")))
    specs = {
        "state": StreamSpec(kind=Discrete(3), frame_rate=None),
        "heard": SPEC.spec,
        "action": StreamSpec(kind=Discrete(7), frame_rate=None),
    }
    inputs = {"state": Lookup(), "heard": Project.Config()}
    lm = build(layout, specs, inputs, {"action": Linear.Config()})

    def example(generator: torch.Generator) -> Streams:
        situation = SITUATIONS[pick(generator, 0, 3)]
        kept = pick(generator, 4, 10) if situation is Situation.LISTEN else 4
        names: list[str] = []
        while len(names) < kept + 2:
            names += [(TONE, NOISE, SILENCE)[pick(generator, 0, 3)]] * pick(generator, 1, 5)
        names = names[: kept + 2]
        samples = torch.cat([sound(n, CHUNK, generator) for n in names])
        # As it is heard: in the middle of a sound.
        stream, state = ear(), ear().init_state(1)
        parts = [stream.encode(Audio(x[None, None], RATE), state).values for x in samples.split(CHUNK)]
        values = torch.cat(parts[-kept:], dim=1)
        action = ACTIONS.index(rule(situation, names[-kept:]))
        return {"state": tokens(SITUATIONS.index(situation)), "heard": features(values), "action": tokens(action)}

    return learn(lm, example, 300)


def test_action_tokens_follow_the_rule_in_every_state(acting: SpeechLM) -> None:
    generator = torch.Generator().manual_seed(77)
    right = total = 0
    taken = set()
    for situation in Situation:
        controller = ActionTokens(acting, ear())
        names: list[str] = []
        while len(names) < 60:
            names += [(TONE, NOISE, SILENCE)[pick(generator, 0, 3)]] * pick(generator, 1, 5)
        for i, name in enumerate(names):
            if situation is Situation.LISTEN and i % 10 == 0:
                # Of a turn, all is kept.
                controller.reset()
            decision = controller.hear(sound(name, CHUNK, generator), situation)
            assert decision.action.before is situation
            if i % 10 >= 3 or situation is not Situation.LISTEN:
                total += 1
                right += decision.action is rule(situation, [SILENCE, *names[: i + 1]])
                taken.add(decision.action)
    assert right / total > 0.9
    assert taken == set(ACTIONS)


def test_action_tokens_drive_a_conversation(acting: SpeechLM) -> None:
    talk = Parrot(40)
    parts = [(NOISE, 0.6), (SILENCE, 0.6), (TONE, 0.96), (SILENCE, 1.2), (TONE, 0.96), (SILENCE, 0.96), (NOISE, 0.96)]
    events = play(ControlledSession(talk, ActionTokens(acting, ear())), scene(*parts))
    # Noise is nothing while nobody is listened to, and stops a reply without a turn; a tone begins a turn.
    assert kinds(events) == [Started, Stopped, Interrupted, Started, Stopped, Interrupted]
    started, stopped = (next(e.at for _, e in events if isinstance(e, k)) for k in (Started, Stopped))
    assert started == pytest.approx(1.2 - 3 * 0.12, abs=0.25)
    assert stopped == pytest.approx(2.16 + 0.24, abs=0.25)
    assert not [e for t, e in events if isinstance(e, Sound) and t > sum(s for _, s in parts) - 0.3]


# -- what is common --------------------------------------------------------------------------------


class Scripted:
    """Says what it is told to; for the session alone."""

    sample_rate, chunk = RATE, CHUNK

    def __init__(self, **at: Action) -> None:
        self.at, self.count = {int(k[1:]): a for k, a in at.items()}, 0

    def hear(self, chunk: Tensor, situation: Situation) -> Decision:
        self.count += 1
        return Decision(self.at.get(self.count, Action.keep(situation)), back=2)

    def reset(self) -> None: ...


class Forgetting(Parrot):
    def forget(self) -> None:
        self.heard = []
        self.happened.append("forget")


def test_a_conversation_that_can_forget_hears_a_turn_as_it_comes() -> None:
    talk = Forgetting(4)
    controller = Scripted(_4=Action.IDLE_TO_LISTEN, _9=Action.LISTEN_TO_IDLE, _12=Action.IDLE_TO_LISTEN)
    session = ControlledSession(talk, controller)
    events = play(session, torch.zeros(14 * CHUNK))
    assert [e for _, e in events if isinstance(e, Ignored)] == [Ignored("1 words")]
    assert talk.happened == ["forget"]
    # What was heard before the second turn began, and since.
    assert len(talk.heard) == 3 + 2
    assert [e.text for _, e in events if isinstance(e, Draft)][:2] == ["0 words", "1 words"]


def test_what_comes_does_not_depend_on_the_pieces() -> None:
    def run(size: int) -> list[tuple[float, Any]]:
        at = {"_3": Action.IDLE_TO_LISTEN, "_8": Action.LISTEN_TO_SPEAK, "_13": Action.SPEAK_TO_LISTEN}
        session = ControlledSession(Parrot(20), Scripted(**at, _20=Action.LISTEN_TO_SPEAK))
        events = play(session, torch.zeros(40 * CHUNK), size)
        return [(type(e), getattr(e, "at", getattr(e, "text", None))) for _, e in events]  # type: ignore[misc]

    assert run(160) == run(CHUNK * 7)
    assert {Written, Sound, Interrupted} <= {k for k, _ in run(500)}  # type: ignore[comparison-overlap]


def test_who_decides_on_another_state_is_told() -> None:
    session = ControlledSession(Parrot(), Scripted(_2=Action.LISTEN_TO_SPEAK))
    with pytest.raises(ConfigError, match="LISTEN_TO_SPEAK while the state is IDLE"):
        list(session.push(Audio(torch.zeros(3 * CHUNK), RATE)))
    with pytest.raises(ConfigError, match="lead"):
        ControlledSession.Config(lead=0)


def test_a_reply_without_sound_is_over_at_once() -> None:
    class Silent(Parrot):
        def turn(self) -> Iterator[Any]:
            self.happened.append("turn")
            yield Written("nothing to say")

    talk = Silent()
    session = ControlledSession(talk, Scripted(_3=Action.IDLE_TO_LISTEN, _5=Action.LISTEN_TO_SPEAK))
    play(session, torch.zeros(8 * CHUNK))
    assert session.situation is Situation.IDLE
    assert talk.happened == ["turn"]


def test_settings_that_do_not_fit_are_named(answering: SpeechLM, stating: SpeechLM, acting: SpeechLM) -> None:
    loud = Activity(detector=Voice())
    with pytest.raises(ConfigError, match="has question, text"):
        state_tokens(answering, answer="reply")
    with pytest.raises(ConfigError, match="no State head"):
        StateHead(ContinuousBatch(answering), ear(), state="text", activity=loud)
    with pytest.raises(ConfigError, match="listen, respond, end"):
        StateHead(ContinuousBatch(stating), ear(), respond="reply", activity=loud)
    with pytest.raises(ConfigError, match="7 codes"):
        ActionTokens(acting, ear(), action="state")
    with pytest.raises(ConfigError, match="window"):
        ActionTokens(acting, ear(), window=0)
    assert [a.value for a in ACTIONS] == ["K.S", "K.L", "K.I", "S2L", "S2I", "L2S", "I2L"]
