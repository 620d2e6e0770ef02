import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.encoders import Windows
from lalia.errors import ConfigError, DataError, LayoutError
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import Energy, Pitch, PitchVQ, SpeechTokenizer, SSLUnits, Style
from lalia.tokenizers.contour import quantiles

RATE = 16000
SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"
SHORT = Windows(block=0.3, before=0.2, after=0.1)


def talk(seconds: float, *, base: float = 150.0, seed: int = 0) -> Audio:
    """Voiced syllables of changing pitch with noise between them."""
    n, chance = round(seconds * RATE), torch.Generator().manual_seed(seed)
    t = torch.arange(n) / RATE
    f0 = base * 2 ** (0.4 * torch.sin(2 * math.pi * 0.9 * t + seed))
    phase = 2 * math.pi * torch.cumsum(f0 / RATE, 0)
    voice = sum(torch.sin(h * phase) / h for h in range(1, 8))
    voiced = (torch.sin(2 * math.pi * 2.5 * t + seed) > -0.4).float()
    return Audio(0.15 * voice * voiced + 0.02 * torch.randn(n, generator=chance), RATE)


def pieces(tokenizer: Any, audio: Audio, cuts: list[int], **options: Any) -> list[TokenSequence]:
    """A recording bit by bit."""
    state, made = tokenizer.init_state(len(audio)), []
    ends = [*sorted(c for c in cuts if c < audio.samples.shape[-1]), audio.samples.shape[-1]]
    for start, stop in pairwise([0, *ends]):
        lengths = (audio.lengths - start).clamp(0, stop - start)
        piece = Audio(audio.samples[..., start:stop], RATE, lengths)
        made.append(tokenizer.encode(piece, state, final=stop == ends[-1], **options))
    return made


def joined(made: list[TokenSequence], b: int, what: str = "values") -> torch.Tensor:
    rows = [getattr(m.row(b), what) for m in made]
    return torch.cat([r[0, 0] if what == "values" and m.discrete else r[0] for r, m in zip(rows, made, strict=True)])


PITCH = Pitch.Config(windows=SHORT)
CONFIGS = {
    "plain": replace(PITCH, normalize=None),
    "levelled": PITCH,
    "voicing": replace(PITCH, voicing=True),
    "gaps": replace(PITCH, interpolate=False),
    "bins": replace(PITCH, clusters=8),
    "gap bins": replace(PITCH, clusters=8, interpolate=False),
    "hertz": replace(PITCH, log=False, normalize="utterance"),
    "energy": Energy.Config(),
    "energy bins": Energy.Config(clusters=8, normalize="utterance"),
    "tokens": PitchVQ.Config(pitch=replace(PITCH, voicing=True)),
    "long tokens": PitchVQ.Config(pitch=replace(PITCH, voicing=True), deduplicate=False, stack=3),
}


@pytest.fixture(scope="module", params=CONFIGS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return CONFIGS[request.param].build()


# -- what they say --------------------------------------------------------------------------------


def naive(f0: list[float], level: float | None) -> list[float]:
    """Log-F0 with lines through the gaps, less the mean of the voiced frames, frame by frame."""
    voiced = [t for t, x in enumerate(f0) if x > 0]
    if not voiced:
        return [0.0] * len(f0)
    mean = sum(math.log(f0[t]) for t in voiced) / len(voiced) if level is None else level
    out = []
    for t in range(len(f0)):
        before, after = [v for v in voiced if v <= t], [v for v in voiced if v >= t]
        if not before or not after:
            value = math.log(f0[after[0] if after else before[-1]])
        elif before[-1] == after[0]:
            value = math.log(f0[t])
        else:
            a, b = before[-1], after[0]
            value = math.log(f0[a]) + (math.log(f0[b]) - math.log(f0[a])) * (t - a) / (b - a)
        out.append(value - mean)
    return out


@pytest.mark.parametrize("level", [None, 5.0])
def test_pitch_is_levelled_and_goes_through_gaps(level: float | None) -> None:
    pitch: Pitch = replace(PITCH, voicing=True).build()
    audio = talk(2.0)
    f0 = pitch.tracker.encode(audio).values[0, :, 0].tolist()
    assert 0.3 < sum(x > 0 for x in f0) / len(f0) < 0.9
    tokens = pitch.encode(audio, level=level)
    assert tokens.values.shape == (1, 100, 2)
    assert tokens.values[0, :, 0].tolist() == pytest.approx(naive(f0, level), abs=1e-5)
    assert tokens.values[0, :, 1].tolist() == [float(x > 0) for x in f0]


def test_nothing_voiced_is_zero() -> None:
    noise = Audio(0.1 * torch.randn(RATE), RATE)
    for config in (PITCH, replace(PITCH, normalize=None), replace(PITCH, interpolate=False)):
        assert bool((config.build().encode(noise).values == 0).all())


def test_a_speaker_level_is_the_mean_of_what_he_says() -> None:
    pitch: Pitch = PITCH.build()
    low, high = talk(1.5, base=120), talk(1.0, base=180, seed=1)
    values = [pitch.measure(a, None, final=True)[0] for a in (low, high)]
    voiced = torch.cat([v[v[:, 1] > 0, 0] for v in values])
    level = pitch.level([low, high])
    assert level == pytest.approx(float(voiced.mean()), abs=1e-5)
    both = Audio.batch([low, high])
    tokens = pitch.encode(both, level=torch.tensor([level, level + 1]))
    torch.testing.assert_close(tokens.row(0).values, pitch.encode(low, level=level).values)
    torch.testing.assert_close(tokens.row(1).values, pitch.encode(high, level=level).values - 1)


def test_energy_is_that_of_each_frame() -> None:
    audio = Audio(torch.cat([torch.zeros(320), talk(0.3).samples[0, 0], torch.ones(100)]), RATE)
    tokens = Energy.Config().build().encode(audio)
    x = torch.nn.functional.pad(audio.samples[0, 0], (0, 220))
    wanted = [0.5 * math.log(max(float(x[i : i + 320].square().mean()), 1e-10)) for i in range(0, len(x), 320)]
    assert tokens.values[0, :, 0].tolist() == pytest.approx(wanted, abs=1e-4)
    assert tokens.values[0, 0, 0] == pytest.approx(math.log(1e-5))


# -- bins -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(-50, 50), min_size=12, max_size=60, unique=True), st.integers(2, 6))
def test_bins_hold_equally_many(values: list[int], bins: int) -> None:
    x, centres = torch.tensor(values).float(), torch.zeros(bins)
    codes = torch.bucketize(x, quantiles(x, bins, centres))
    counts = torch.bincount(codes, minlength=bins)
    assert int(counts.max() - counts.min()) <= 1
    for code in range(bins):
        assert float(centres[code]) == pytest.approx(float(x[codes == code].mean()), abs=1e-4)


def test_bins_are_fitted_kept_and_undone() -> None:
    recordings = [talk(2.0, base=130), talk(2.0, base=170, seed=1), Audio.batch([talk(1.0, seed=2), talk(1.5, seed=3)])]
    pitch: Pitch = CONFIGS["bins"].build()
    before = pitch.identity
    pitch.fit(recordings)
    assert pitch.identity != before
    codes = torch.cat([pitch.encode(r).row(b).values[0, 0] for r in recordings for b in range(len(r))])
    counts = torch.bincount(codes, minlength=8)
    assert int(counts.max() - counts.min()) <= 2
    again: Pitch = CONFIGS["bins"].build()
    again.load_weights(pitch.weights())
    assert again.identity == pitch.identity
    plain: Pitch = PITCH.build()
    exact, binned = plain.encode(recordings[0]), pitch.encode(recordings[0])
    assert torch.equal(pitch.quantize(exact).values, binned.values)
    error = (pitch.dequantize(binned).values - exact.values).abs()
    assert float(error.mean()) < 0.4 * float(exact.values.abs().mean())


def test_speakers_share_their_level_when_bins_are_fitted() -> None:
    recordings = [talk(1.0, base=110), talk(1.0, base=140, seed=1), talk(1.0, base=200, seed=2)]
    pitch: Pitch = CONFIGS["bins"].build()
    pitch.fit(recordings, speakers=["a", "a", "b"])
    plain: Pitch = PITCH.build()
    levels = [plain.level(recordings[:2])] * 2 + [plain.level(recordings[2:])]
    values = [plain.encode(r, level=v).values[0, :, 0] for r, v in zip(recordings, levels, strict=True)]
    torch.testing.assert_close(pitch.edges, quantiles(torch.cat(values), 8))
    with pytest.raises(DataError, match="3 rows and 1 speakers"):
        pitch.fit(recordings, speakers=["a"])


def test_the_first_bin_is_that_of_gaps_without_lines_through_them() -> None:
    pitch: Pitch = CONFIGS["gap bins"].build()
    pitch.fit([talk(2.0)])
    codes, f0 = pitch.encode(talk(2.0)).values[0, 0], pitch.tracker.encode(talk(2.0)).values[0, :, 0]
    assert torch.equal(codes == 0, f0 == 0)
    counts = torch.bincount(codes)[1:]
    assert len(counts) == 7
    assert int(counts.max() - counts.min()) <= 1
    sequence = TokenSequence(codes[None, None], torch.tensor([len(codes)]))
    assert bool((pitch.dequantize(sequence).values[0, codes == 0] == 0).all())


def test_too_little_to_fit() -> None:
    with pytest.raises(DataError, match="cannot fill 8 bins"):
        CONFIGS["bins"].build().fit([])
    with pytest.raises(DataError, match="nothing to fit pitch tokens on"):
        CONFIGS["tokens"].build().fit([])
    with pytest.raises(LayoutError, match="has no bins"):
        PITCH.build().quantize(TokenSequence(torch.zeros(1, 1, 1), torch.tensor([1])))


# -- pitch tokens, style --------------------------------------------------------------------------


def test_pitch_tokens_tell_contours_apart() -> None:
    config = replace(CONFIGS["long tokens"], stack=4, clusters=12)
    tokens: PitchVQ = config.build()
    recordings = [talk(3.0, seed=s) for s in range(3)]
    tokens.fit(recordings)
    audio = recordings[0]
    frames = tokens.pitch.encode(audio).values[0] * torch.tensor([1.0, 0.25])
    stacked = frames[:148].reshape(37, 8)
    codes = tokens.encode(audio).values[0, 0]
    assert codes.shape == (38,)
    assert torch.equal(codes[:37], torch.cdist(stacked.double(), tokens.centroids.double()).argmin(1))
    error = (stacked - tokens.centroids[codes[:37]]).square().sum(1).mean()
    assert error < 0.2 * (stacked - stacked.mean(0)).square().sum(1).mean()
    short: PitchVQ = replace(config, deduplicate=True).build()
    short.load_weights(tokens.weights())
    assert torch.equal(short.encode(audio).expand().values[0, 0], codes)


def test_style_is_units_of_a_second() -> None:
    config = Style.Config("hubert", layer=2).tiny()
    style: Style = config.build()
    assert isinstance(style, SSLUnits)
    assert style.spec == config.spec == StreamSpec(kind=Discrete(10), frame_rate=1.0)
    assert Style.Config("hubert").spec.kind == Discrete(100)
    recordings = [Audio(torch.randn(RATE * 30) * 0.1, RATE), talk(30.0)]
    style.fit(recordings)
    audio = talk(3.5)
    codes = style.encode(audio)
    assert codes.values.shape == (1, 1, 4)
    second = style.encoder.encode(audio.cut(0, 3)).values[0, 1]
    plain = replace(config.encoder_config, pool=1).build().encode(audio.cut(0, 3)).values[0, 50:100].mean(0)
    torch.testing.assert_close(second, plain, atol=1e-4, rtol=1e-3)
    made = pieces(style, audio, [9000, 30_000])
    assert torch.equal(joined(made, 0), codes.values[0, 0])
    assert from_dict(to_dict(config)) == config


# -- what holds for all ---------------------------------------------------------------------------


def test_what_is_known_before_and_after_building(tokenizer: Any) -> None:
    assert isinstance(tokenizer, SpeechTokenizer)
    config = tokenizer.config
    assert tokenizer.spec == config.spec
    assert tokenizer.sample_rate == config.sample_rate == RATE
    assert from_dict(to_dict(config)) == config
    tiny = config.tiny()
    assert tiny.spec == config.spec
    assert len(tokenizer.identity) == 64
    codes = tokenizer.encode(talk(1.09))
    assert codes.discrete == isinstance(config.spec.kind, Discrete)
    if codes.discrete:
        assert 0 <= int(codes.values.min()) <= int(codes.values.max()) < config.spec.kind.codebook_size
    else:
        assert codes.values.shape[2] == config.spec.kind.dim
    total = codes.num_tokens if codes.durations is None else int(codes.durations.sum())
    assert total == math.ceil(1.09 * config.spec.frame_rate)


def test_identities_differ() -> None:
    assert len({config.build().identity for config in CONFIGS.values()}) == len(CONFIGS)


@settings(max_examples=4)
@given(
    cuts=st.lists(st.integers(0, 18_000), max_size=4),
    lengths=st.tuples(st.integers(0, 18_000), st.integers(0, 18_000)),
    level=st.sampled_from([None, 5.0]),
)
def test_streaming_equals_offline(
    tokenizer: Any, cuts: list[int], lengths: tuple[int, int], level: float | None
) -> None:
    audio = Audio.batch([Audio(talk(1.2, seed=i).samples[..., :n], RATE) for i, n in enumerate(lengths)])
    whole, made = tokenizer.encode(audio, level=level), pieces(tokenizer, audio, cuts, level=level)
    for b in range(2):
        assert torch.equal(tokenizer.encode(audio.row(b), level=level).values, whole.row(b).values)
        assert torch.equal(joined(made, b), whole.row(b).values[0, 0] if whole.discrete else whole.row(b).values[0])
        if whole.durations is not None:
            assert torch.equal(joined(made, b, "durations"), whole.row(b).durations[0])


def test_a_stream_with_a_level_does_not_wait_for_the_end() -> None:
    pitch: Pitch = PITCH.build()
    audio = talk(1.5)
    waiting, levelled = pieces(pitch, audio, [16_000]), pieces(pitch, audio, [16_000], level=5.0)
    assert waiting[0].num_tokens == 0
    assert levelled[0].num_tokens > 20


def test_rows_are_replaced_and_moved(tokenizer: Any) -> None:
    a, b, c = (talk(0.8, seed=s) for s in range(3))
    state = tokenizer.init_state(2)
    cut = lambda x, start, stop: Audio(x.samples[..., start:stop], RATE)  # noqa: E731
    first = tokenizer.encode(Audio.batch([cut(a, 0, 7000), cut(b, 0, 7000)]), state, level=5.0)
    state = reset_rows(state, tokenizer.init_state(2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    last = Audio.batch([cut(b, 7000, 12_800), cut(c, 0, 9000)])
    second = tokenizer.encode(last, state, final=True, level=5.0)
    row = lambda t, i: t.row(i).values[0, 0] if t.discrete else t.row(i).values[0]  # noqa: E731
    whole = tokenizer.encode(b, level=5.0)
    assert torch.equal(torch.cat([row(first, 1), row(second, 0)]), row(whole, 0))
    assert torch.equal(row(second, 1), row(tokenizer.encode(cut(c, 0, 9000), level=5.0), 0))


def test_wrong_configurations_and_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="Pitch has 1 bins"):
        Pitch.Config(clusters=1)
    with pytest.raises(ConfigError, match="no whole number of samples"):
        Energy.Config(frame_rate=33.0)
    with pytest.raises(ConfigError, match="no second feature for voicing"):
        Pitch.Config(clusters=8, voicing=True)
    with pytest.raises(ConfigError, match=r"Set pitch\.voicing"):
        PitchVQ.Config(pitch=Pitch.Config())
    with pytest.raises(ConfigError, match="'centres' differs"):
        CONFIGS["bins"].build().load_weights(CONFIGS["gap bins"].build().weights())
    with pytest.raises(ConfigError, match=r"should be \(64, 8\), not nothing"):
        CONFIGS["tokens"].build().load_weights({})
    for name in ("plain", "energy"):
        stream = CONFIGS[name].build()
        with pytest.raises(ConfigError, match="Resample it to 16000 Hz"):
            stream.encode(Audio(torch.zeros(800), 8000), stream.init_state(1))


def test_pitch_of_speech_hardly_moves_in_a_few_frames() -> None:
    files = sorted(SPEECH.glob("*.flac"))[:2]
    if not files:
        pytest.skip("needs recorded speech")
    for file in files:
        values = (
            Pitch.Config().build().encode(Audio.load(file, sample_rate=RATE, mono=True, seconds=6.0)).values[0, :, 0]
        )
        assert 0.02 < float(values.std()) < 0.6
        assert float((values[1:] - values[:-1]).abs().median()) < 0.05


def test_continuous_kinds_have_their_width() -> None:
    assert Pitch.Config(voicing=True).spec.kind == Continuous(2)
    assert Pitch.Config().spec.kind == Continuous(1)
    assert PitchVQ.Config().spec == StreamSpec(kind=Discrete(64), frame_rate=12.5, deduplicated=True)
