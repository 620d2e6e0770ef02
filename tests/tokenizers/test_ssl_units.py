import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.config import from_dict, to_dict
from lalia.encoders import SpeechEncoder, Windows
from lalia.errors import ConfigError, DataError, OutputError
from lalia.store import read_weights, write_weights
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers import SpeechTokenizer, SSLUnits, assign, fit_kmeans, identity_of

SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"

SHORT = Windows(block=0.5, before=0.3, after=0.2)
TINY = SSLUnits.Config("hubert", clusters=20, windows=SHORT).tiny()


def voice(n: int, seed: int = 0) -> Audio:
    """Something that goes up and down like speech: a tone in a changing noise."""
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(n) / 16000
    envelope = torch.sin(2 * torch.pi * (1.3 + 0.2 * seed) * t).square()
    return Audio(0.3 * envelope * torch.randn(n, generator=g) + 0.3 * (1 - envelope) * torch.sin(800 * t), 16000)


VOICES = [voice(n, seed) for seed, n in enumerate([30_000, 9000, 22_222, 40_000])]


def fitted(config: SSLUnits.Config = TINY, **options: Any) -> SSLUnits:
    units: SSLUnits = config.build()
    units.fit(VOICES, **options)
    return units


@pytest.fixture(scope="module")
def units() -> SSLUnits:
    return fitted()


@pytest.fixture(scope="module")
def short_units(units: SSLUnits) -> SSLUnits:
    """The same, with repeats removed."""
    made: SSLUnits = replace(TINY, deduplicate=True).build(encoder=units.encoder)
    made.load_weights(units.weights())
    return made


# -- fitting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [False, True])
def test_fit_is_kmeans_on_the_features_of_the_encoder(standardize: bool) -> None:
    config = replace(TINY, standardize=standardize)
    units = fitted(config, passes=3, seed=5)
    features = torch.cat([units.encoder.encode(v).values[0] for v in VOICES]).half().float()
    if standardize:
        torch.testing.assert_close(units.mean, features.mean(dim=0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(units.scale, features.std(dim=0, correction=0), atol=1e-4, rtol=1e-3)
    else:
        assert (units.mean == 0).all()
        assert (units.scale == 1).all()
    scaled = (features - units.mean) / units.scale
    assert torch.equal(units.centroids, fit_kmeans(lambda: [scaled], 20, passes=3, seed=5))
    codes = torch.cat([units.encode(v).values[0, 0] for v in VOICES])
    distances = torch.cdist(scaled.double(), units.centroids.double())
    chosen = distances.gather(1, codes[:, None])[:, 0]
    # The features were rounded for the fit, and are not for the codes.
    assert bool((chosen - distances.min(dim=1).values < 1e-2 * distances.mean()).all())


def test_codes_are_used(units: SSLUnits) -> None:
    codes = torch.cat([units.encode(v).values[0, 0] for v in VOICES])
    assert codes.unique().numel() > 15


def test_same_recordings_same_bits(units: SSLUnits) -> None:
    again = fitted()
    assert torch.equal(again.centroids, units.centroids)
    assert again.identity == units.identity
    batches: SSLUnits = TINY.build()
    batches.fit([Audio.batch(VOICES[:3]), VOICES[3]])
    assert torch.equal(batches.centroids, units.centroids), "how recordings are batched makes no difference"


def test_another_order_or_seed_gives_other_units_as_good(units: SSLUnits) -> None:
    def error(tokenizer: SSLUnits) -> float:
        x = torch.cat([tokenizer.encoder.encode(v).values[0] for v in VOICES])
        return float((x - tokenizer.centroids[assign(x, tokenizer.centroids)]).square().sum(dim=1).mean())

    turned: SSLUnits = TINY.build(encoder=units.encoder)
    turned.fit(VOICES[::-1])
    seeded: SSLUnits = TINY.build(encoder=units.encoder)
    seeded.fit(VOICES, seed=1)
    assert len({units.identity, turned.identity, seeded.identity}) == 3
    assert error(turned) == pytest.approx(error(units), rel=0.2)
    assert error(seeded) == pytest.approx(error(units), rel=0.2)


def test_recordings_may_come_one_after_another(units: SSLUnits) -> None:
    seen: list[int] = []

    def recordings() -> Iterator[Audio]:
        for i, v in enumerate(VOICES):
            seen.append(i)
            yield v

    made: SSLUnits = TINY.build(encoder=units.encoder)
    reports: list[tuple[int, float]] = []
    made.fit(recordings(), passes=2, report=lambda n, e: reports.append((n, e)))
    assert seen == [0, 1, 2, 3], "each is heard once, however many passes there are"
    assert [n for n, _ in reports] == [1, 2]


def test_too_little_to_fit_on(units: SSLUnits) -> None:
    with pytest.raises(DataError, match=r"There is nothing to fit units on\."):
        TINY.build(encoder=units.encoder).fit([])
    with pytest.raises(DataError, match=r"15 frames cannot make 20 clusters\."):
        TINY.build(encoder=units.encoder).fit([voice(4800)])


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files may not grow over so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_no_room_for_features(units: SSLUnits) -> None:
    with room_for(2000), pytest.raises(OutputError, match=r"has no room for features .*Point TMPDIR"):
        TINY.build(encoder=units.encoder).fit(VOICES)


def test_features_that_half_precision_cannot_hold(units: SSLUnits, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = SpeechEncoder.forward
    monkeypatch.setattr(SpeechEncoder, "forward", lambda self, x: 1e6 * forward(self, x))
    made: SSLUnits = TINY.build(encoder=units.encoder)
    made.fit(VOICES)
    assert bool(made.centroids.isfinite().all())


# -- codes ----------------------------------------------------------------------------------------


def test_what_is_known_before_and_after_building(units: SSLUnits, short_units: SSLUnits) -> None:
    assert isinstance(units, SpeechTokenizer)
    assert units.spec == TINY.spec == StreamSpec(kind=Discrete(20), frame_rate=50.0)
    assert short_units.spec == StreamSpec(kind=Discrete(20), frame_rate=50.0, deduplicated=True)
    assert replace(TINY, pool=2).spec.frame_rate == 25.0
    assert units.sample_rate == TINY.sample_rate == 16000
    assert SSLUnits.Config("whisper-tiny.en", clusters=500).spec.frame_rate == 50.0, "nothing is fetched for it"
    assert from_dict(to_dict(units.config)) == units.config


@pytest.mark.parametrize("pool", [1, 2])
def test_tiny_form(pool: int) -> None:
    config = SSLUnits.Config("facebook/hubert-base-ls960", clusters=500, layer=9, pool=pool, deduplicate=True)
    tiny = config.tiny()
    assert tiny.tiny() == tiny
    assert tiny.build().spec == replace(config, clusters=50).spec


@pytest.mark.parametrize("pool", [1, 2])
def test_codes_and_durations(pool: int) -> None:
    units, n = fitted(replace(TINY, pool=pool, deduplicate=True)), 20_100
    tokens = units.encode(voice(n))
    assert tokens.values.shape[:2] == (1, 1)
    assert tokens.values.dtype == torch.long
    assert 0 <= int(tokens.values.min()) <= int(tokens.values.max()) < 20
    assert tokens.durations is not None
    assert int(tokens.durations.sum()) == -(-n // (320 * pool))
    long: SSLUnits = replace(TINY, pool=pool).build(encoder=units.encoder)
    long.load_weights(units.weights())
    assert torch.equal(tokens.expand().values, long.encode(voice(n)).values)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(0, 25_000), min_size=1, max_size=4))
def test_row_does_not_depend_on_the_others(units: SSLUnits, short_units: SSLUnits, lengths: list[int]) -> None:
    rows = [voice(n, seed=n) for n in lengths]
    for tokenizer in (units, short_units):
        together = tokenizer.encode(Audio.batch(rows))
        for b, row in enumerate(rows):
            alone = tokenizer.encode(row)
            assert torch.equal(together.row(b).values, alone.values)
            if alone.durations is not None:
                assert torch.equal(together.row(b).durations, alone.durations)  # type: ignore[arg-type]


def test_window_by_window(units: SSLUnits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an hour, only the codes are ever in memory together."""
    seen: list[int] = []
    quantize = SSLUnits._quantize

    def watch(self: SSLUnits, features: Tensor) -> Tensor:
        seen.append(len(features))
        return quantize(self, features)

    monkeypatch.setattr(SSLUnits, "_quantize", watch)
    tokens = units.encode(voice(100_000))
    assert sum(seen) == tokens.num_tokens == 313
    assert max(seen) <= 50


# -- streaming ------------------------------------------------------------------------------------


def streamed(tokenizer: SSLUnits, audio: Audio, cuts: list[int]) -> TokenSequence:
    """What comes of a stream [1], joined."""
    state, parts = tokenizer.init_state(1), []
    edges = [0, *sorted(cuts), int(audio.lengths[0])]
    for i, (a, b) in enumerate(pairwise(edges)):
        piece = Audio(audio.samples[..., a:b], 16000)
        parts.append(tokenizer.encode(piece, state, final=i == len(edges) - 2))
    durations = (
        None if parts[0].durations is None else torch.cat([p.durations for p in parts if p.durations is not None], 1)
    )
    values = torch.cat([p.values for p in parts], dim=2)
    return TokenSequence(values, torch.tensor([values.shape[2]]), durations)


@settings(max_examples=30)
@given(n=st.integers(0, 60_000), data=st.data())
def test_stream_gives_what_the_whole_gives(units: SSLUnits, short_units: SSLUnits, n: int, data: st.DataObject) -> None:
    """Runs across the borders of chunks and of windows included."""
    audio = voice(n, seed=n)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=6))
    whole, got = units.encode(audio), streamed(units, audio, cuts)
    assert torch.equal(got.values, whole.values)
    assert got.durations is None
    whole, got = short_units.encode(audio), streamed(short_units, audio, cuts)
    assert torch.equal(got.values, whole.values)
    assert torch.equal(got.durations, whole.durations)  # type: ignore[arg-type]


def test_run_over_everything_is_one_token(short_units: SSLUnits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SSLUnits, "_quantize", lambda self, x: torch.full((len(x),), 7))
    audio = voice(80_000)
    state, parts = short_units.init_state(1), []
    for i in range(8):
        piece = Audio(audio.samples[..., i * 10_000 : (i + 1) * 10_000], 16000)
        parts.append(short_units.encode(piece, state, final=i == 7))
    assert [p.num_tokens for p in parts] == [0] * 7 + [1]
    assert parts[-1].values.item() == 7
    assert parts[-1].durations is not None
    assert parts[-1].durations.item() == 250


def test_rows_of_a_stream_come_and_go(short_units: SSLUnits) -> None:
    audios = [voice(30_000, seed=s) for s in (1, 2, 3)]
    wanted = [short_units.encode(a) for a in audios]
    parts: dict[int, list[TokenSequence]] = {0: [], 1: [], 2: []}
    state = short_units.init_state(2)

    def push(ids: list[int], places: list[tuple[int, int]], final: bool = False) -> None:
        batch = Audio.batch([Audio(audios[i].samples[..., a:b], 16000) for i, (a, b) in zip(ids, places, strict=True)])
        out = short_units.encode(batch, state, final=final)
        for b, i in enumerate(ids):
            parts[i].append(out.row(b))

    push([0, 1], [(0, 17_000), (0, 23_000)])
    state = select_rows(state, torch.tensor([1, 0]))
    push([1, 0], [(23_000, 30_000), (17_000, 20_000)])
    last = select_rows(state, torch.tensor([0]))
    parts[1].append(short_units.encode(Audio(audios[1].samples[..., :0], 16000), last, final=True).row(0))
    state = reset_rows(state, short_units.init_state(2), torch.tensor([True, False]))
    push([2, 0], [(0, 30_000), (20_000, 30_000)], final=True)
    for i in range(3):
        assert torch.equal(torch.cat([p.values for p in parts[i]], dim=2), wanted[i].values)
        durations = torch.cat([p.durations for p in parts[i] if p.durations is not None], dim=1)
        assert torch.equal(durations, wanted[i].durations)  # type: ignore[arg-type]


def test_state_is_used_again_after_the_end(short_units: SSLUnits) -> None:
    state, audio = short_units.init_state(1), voice(30_000)
    first, second = (short_units.encode(audio, state, final=True) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.durations, second.durations)  # type: ignore[arg-type]


# -- identity -------------------------------------------------------------------------------------


def test_identity_changes_with_every_field(units: SSLUnits) -> None:
    assert TINY.architecture is not None
    changes: dict[str, Any] = {
        "encoder": "another",
        "clusters": 21,
        "layer": 1,
        "deduplicate": True,
        "pool": 2,
        "standardize": True,
        "windows": Windows(),
        "architecture": {**TINY.architecture, "num_attention_heads": 4},
    }
    # Whether there are weights is the one field that cannot change alone.
    assert set(changes) | {"pretrained"} == set(TINY.to_dict()) - {"type"}
    identities = [TINY.build().identity, *(replace(TINY, **{k: v}).build().identity for k, v in changes.items())]
    assert len(set(identities)) == len(identities)
    assert TINY.build().identity == identities[0]
    assert units.identity not in identities


def test_identity_changes_with_every_weight(units: SSLUnits) -> None:
    made: SSLUnits = TINY.build()
    made.load_weights(units.weights())
    assert made.identity == units.identity
    seen = {made.identity}
    for name in units.weights():
        changed = {k: v.clone() for k, v in units.weights().items()}
        changed[name].view(-1)[3] += 1e-6
        made.load_weights(changed)
        seen.add(made.identity)
    made.load_weights(units.weights())
    next(made.encoder.model.parameters()).data[0] += 1e-3
    del made.encoder.__dict__["fingerprint"]
    made.load_weights(units.weights())
    seen.add(made.identity)
    assert len(seen) == 5


def test_identity_is_the_same_on_every_machine_and_for_ever() -> None:
    """Tokens that were made under an identity are worth nothing when it changes."""
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2]), "scalar": torch.tensor(2.0).half()}
    wanted = "3968115fba21b21320c312340cc5b702960e2e0785a2b4a27f8febff6031bae3"
    assert identity_of(SHORT, tensors, encoder="abc") == wanted
    assert identity_of(SHORT, {k: tensors[k] for k in ("scalar", "a", "b")}, encoder="abc") == wanted
    assert identity_of(SHORT, {**tensors, "b": tensors["b"].T.contiguous().T}, encoder="abc") == wanted
    for other in ({**tensors, "b": tensors["b"].view(3, 2)}, {**tensors, "b": tensors["b"].double()}):
        assert identity_of(SHORT, other, encoder="abc") != wanted
    assert identity_of(SHORT, tensors, encoder="abd") != wanted


# -- storing --------------------------------------------------------------------------------------


def test_saved_and_loaded_it_gives_the_same_codes(units: SSLUnits, tmp_path: Path) -> None:
    write_weights(tmp_path, units.weights())
    again: SSLUnits = from_dict(to_dict(units.config)).build()
    again.load_weights(read_weights(tmp_path))
    assert again.identity == units.identity
    for v in VOICES:
        assert torch.equal(again.encode(v).values, units.encode(v).values)


def test_weights_of_another_tokenizer_are_refused(units: SSLUnits) -> None:
    other: SSLUnits = replace(TINY, clusters=30).build(encoder=units.encoder)
    before = other.centroids.clone()
    with pytest.raises(
        ConfigError, match=r"centroids should be \(30, 32\), not \(20, 32\)\. It is of another tokenizer"
    ):
        other.load_weights({"mean": torch.ones(32), "scale": torch.ones(32), "centroids": units.centroids})
    with pytest.raises(ConfigError, match=r"mean should be .*, not nothing"):
        other.load_weights({})
    assert torch.equal(other.centroids, before)
    assert (other.mean == 0).all(), "nothing of what does not fit is taken"


def test_encoder_of_another_configuration_is_refused(units: SSLUnits) -> None:
    for change in ({"layer": 1}, {"pool": 2}, {"windows": Windows()}, {"encoder": "other"}):
        with pytest.raises(ConfigError, match=r"Build that of config\.encoder_config"):
            replace(TINY, **change).build(encoder=units.encoder)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"clusters": 1}, {"clusters": 0}, {"pool": 0}])
def test_configurations_that_cannot_be(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"Give (pool )?at least"):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_training_may_go_on_around_it(units: SSLUnits) -> None:
    assert not any(p.requires_grad for p in units.parameters())
    table = torch.nn.Embedding(20, 4)
    table(units.encode(VOICES[1]).values).sum().backward()
    assert table.weight.grad is not None


# -- real speech ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings() -> list[Audio]:
    files = sorted(SPEECH.glob("*.flac"))[:5]
    if not files:
        pytest.skip("needs recorded speech")
    return [Audio.load(f, sample_rate=16000, mono=True, seconds=4.0) for f in files]


def test_units_of_whisper_on_real_speech(recordings: list[Audio]) -> None:
    if cached(KNOWN["whisper-tiny.en"]) is None:
        pytest.skip("needs the weights of Whisper in the cache")
    config = SSLUnits.Config(
        "whisper-tiny.en",
        layer=2,
        clusters=50,
        deduplicate=True,
        standardize=True,
        windows=Windows(block=2.0, before=1.0, after=0.5),
    )
    units: SSLUnits = config.build()
    units.fit(recordings, passes=5)
    tokens = units.encode(Audio.batch(recordings))
    assert tokens.durations is not None
    assert tokens.durations.sum(dim=1).tolist() == [200] * 5
    assert tokens.expand().values.unique().numel() > 40
    # Speech stays with a sound for some frames, and no longer.
    assert 1.2 < 1000 / float(tokens.lengths.sum()) < 10
    # The same word has the same units wherever it is said: shifted by whole frames, most of them stay.
    shifted = units.encode(recordings[0].cut(0.4)).expand().values[0, 0]
    original = tokens.row(0).expand().values[0, 0, 20:]
    assert float((shifted == original).float().mean()) > 0.5
    got = streamed(units, recordings[0], [5000, 20_000, 47_111])
    assert torch.equal(got.values, tokens.row(0).values)
    assert torch.equal(pad_batch([got]).expand().values, tokens.row(0).expand().values)


def test_units_of_a_random_encoder_on_real_speech(recordings: list[Audio]) -> None:
    units: SSLUnits = SSLUnits.Config("hubert", clusters=30, deduplicate=True).tiny().build()
    units.fit(recordings, passes=5)
    tokens = units.encode(Audio.batch(recordings))
    assert tokens.durations is not None
    assert tokens.durations.sum(dim=1).tolist() == [200] * 5
    assert tokens.expand().values.unique().numel() > 20


def test_other_windows_are_heard_with_the_same_weights() -> None:
    audio = Audio(0.1 * torch.randn(1, 1, 40_000, generator=torch.Generator().manual_seed(1)), 16_000)
    units: SSLUnits = TINY.build()
    units.fit([audio])
    before = units.encode(audio).values
    windows = Windows(block=0.2, before=0.6, after=0.1)
    quick = units.with_windows(windows)
    built: SSLUnits = replace(TINY, windows=windows).build()
    built.load_weights(units.weights())
    assert torch.equal(quick.encode(audio).values, built.encode(audio).values)
    assert quick.identity == built.identity != units.identity
    assert quick.centroids is units.centroids
    assert units.config == TINY
    assert torch.equal(units.encode(audio).values, before)
    state = quick.init_state(1)
    # Of half a second, the first block: the second waits for what comes after it.
    assert quick.encode(Audio(audio.samples[..., :8000], 16_000), state).num_tokens == 10
