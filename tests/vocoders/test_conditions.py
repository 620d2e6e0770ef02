import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, LayoutError
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers import durations_of
from lalia.vocoders import UnitHifiGan, UnitVocos
from lalia.vocoders.conditions import aligned, condition_of

SPECS = {
    "units": StreamSpec(kind=Discrete(20), frame_rate=50.0),
    "runs": StreamSpec(kind=Discrete(20), frame_rate=50.0, deduplicated=True),
    "f0": StreamSpec(kind=Continuous(2), frame_rate=50.0),
    "slow": StreamSpec(kind=Continuous(1), frame_rate=12.5),
    "fast": StreamSpec(kind=Discrete(7, num_codebooks=2), frame_rate=80.0),
    "pitch": StreamSpec(kind=Discrete(9), frame_rate=12.5, deduplicated=True),
    "style": StreamSpec(kind=Discrete(5), frame_rate=1.0),
    "unit_f0": StreamSpec(kind=Continuous(1), frame_rate=None),
    "unit_code": StreamSpec(kind=Discrete(4), frame_rate=None),
    "durations": StreamSpec(kind=Discrete(6), frame_rate=None),
    "log_durations": StreamSpec(kind=Continuous(1), frame_rate=None),
}
VOCOS = UnitVocos.Config("units", sample_rate=8000, dim=16, ffn_dim=24, num_layers=2)
CONFIGS = {
    "by time": replace(VOCOS, conditions=("f0", "slow", "fast")),
    "expressive": replace(VOCOS, stream="runs", predict_durations=True, conditions=("pitch", "style"), num_speakers=2),
    "pgslm": replace(VOCOS, stream="runs", durations="durations", conditions=("unit_f0",)),
    "all": replace(
        VOCOS, stream="runs", durations="log_durations", conditions=("slow", "unit_code", "pitch", "unit_f0")
    ),
    "only durations": replace(VOCOS, stream="runs", durations="durations"),
    "hifigan": UnitHifiGan.Config(
        "units",
        sample_rate=800,
        dim=8,
        channels=16,
        upsample_rates=(4, 2, 2),
        upsample_kernels=(8, 6, 2),
        resblock_kernels=(3,),
        dilations=((1, 3),),
        conditions=("f0", "style"),
        num_speakers=2,
    ),
}


def loud(vocoder: Any) -> Any:
    """Weights large enough for every path to matter in the samples."""
    with torch.no_grad():
        for name, p in vocoder.named_parameters():
            if name.endswith("original0"):
                p.fill_(1.2)
            elif p.ndim > 1 and "durations" not in name:
                p.copy_(torch.randn_like(p) * 0.3)
    return vocoder.eval()


@pytest.fixture(scope="module", params=CONFIGS)
def vocoder(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return loud(CONFIGS[request.param].build(SPECS))


def one(spec: StreamSpec, length: int, chance: torch.Generator) -> TokenSequence:
    """A sequence of what a spec says."""
    durations = torch.randint(1, 4, (1, length), generator=chance) if spec.deduplicated else None
    if isinstance(spec.kind, Discrete):
        size = (1, spec.kind.num_codebooks, length)
        values = torch.randint(0, spec.kind.codebook_size, size, generator=chance)
    else:
        values = torch.randn(1, length, spec.kind.dim, generator=chance)
    return TokenSequence(values, torch.tensor([length]), durations)


def material(vocoder: Any, units: list[int], share: float = 1.0, seed: int = 0) -> Streams:
    """Streams for rows of so many units; those with a clock last about ``share`` of the units' time."""
    chance = torch.Generator().manual_seed(seed)
    rows: list[Streams] = []
    for n in units:
        row = {vocoder.stream: one(SPECS[vocoder.stream], n, chance)}
        if vocoder.durations is not None or vocoder.config.durations:
            # What lasts as long as is predicted, or as another stream says, has no durations of its own.
            row[vocoder.stream] = TokenSequence(row[vocoder.stream].values, row[vocoder.stream].lengths)
        seconds = n / 50 * (3 if SPECS[vocoder.stream].deduplicated else 1)
        for name in vocoder.reads[1:]:
            spec = SPECS[name]
            length = n if spec.frame_rate is None else max(math.ceil(seconds * spec.frame_rate * share), 1)
            row[name] = one(spec, length, chance)
        rows.append(row)
    return {name: pad_batch([r[name] for r in rows]) for name in rows[0]}


def cut(tokens: TokenSequence, start: int, stop: int) -> TokenSequence:
    return tokens.cut(min(start, tokens.num_tokens), stop)


@settings(max_examples=12)
@given(
    units=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    share=st.sampled_from([0.5, 1.0, 1.5]),
    cuts=st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), max_size=4),
)
def test_streaming_equals_offline_however_each_stream_comes(
    vocoder: Any, units: list[int], share: float, cuts: list[list[float]]
) -> None:
    streams = material(vocoder, units, share)
    whole = vocoder.decode(streams)
    state, rows = vocoder.init_state(len(units)), [[] for _ in units]
    at = dict.fromkeys(streams, 0)
    places = [sorted(c) for c in zip(*cuts, strict=True)]  # of each stream
    for i in range(len(cuts) + 1):
        pieces = {}
        for (name, tokens), place in zip(streams.items(), places or [[]] * 6, strict=False):
            stop = tokens.num_tokens if i == len(cuts) else round(place[i] * tokens.num_tokens)
            pieces[name], at[name] = cut(tokens, at[name], stop), max(at[name], stop)
        made = vocoder.decode(pieces, state, final=i == len(cuts))
        for b, row in enumerate(rows):
            row.append(made.row(b).samples[0, 0])
    for b, row in enumerate(rows):
        torch.testing.assert_close(torch.cat(row), whole.row(b).samples[0, 0], atol=1e-5, rtol=0)


def test_a_row_is_the_same_alone_and_in_a_batch(vocoder: Any) -> None:
    streams = material(vocoder, [17, 6])
    both = vocoder.decode(streams)
    for b in range(2):
        alone = vocoder.decode({name: tokens.row(b) for name, tokens in streams.items()})
        torch.testing.assert_close(both.row(b).samples, alone.samples, atol=1e-5, rtol=0)


def test_rows_are_replaced_and_moved(vocoder: Any) -> None:
    a, b, c = (material(vocoder, [12], seed=s) for s in range(3))
    part = lambda x, start, stop: {  # noqa: E731
        n: cut(t, round(start * t.num_tokens), round(stop * t.num_tokens)) for n, t in x.items()
    }
    both = lambda x, y: {n: pad_batch([x[n], y[n]]) for n in x}  # noqa: E731
    state = vocoder.init_state(2)
    first = vocoder.decode(both(part(a, 0, 0.5), part(b, 0, 0.5)), state)
    state = reset_rows(state, vocoder.init_state(2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    second = vocoder.decode(both(part(b, 0.5, 1), c), state, final=True)
    joined = torch.cat([first.row(1).samples, second.row(0).samples], dim=-1)
    torch.testing.assert_close(joined, vocoder.decode(b).samples, atol=1e-5, rtol=0)
    torch.testing.assert_close(second.row(1).samples, vocoder.decode(c).samples, atol=1e-5, rtol=0)


# -- time -----------------------------------------------------------------------------------------


@given(
    st.integers(0, 500),
    st.integers(1, 40),
    st.sampled_from([50.0, 25.0]),
    st.sampled_from([1.0, 12.5, 50 / 3, 50.0, 80.0]),
)
def test_the_frame_that_sounds_in_the_middle(start: int, count: int, units_rate: float, rate: float) -> None:
    for g, index in zip(range(start, start + count), aligned(start, count, units_rate, rate).tolist(), strict=True):
        middle = (g + 0.5) / units_rate
        assert index / rate <= middle + 1e-6
        assert middle < (index + 1) / rate + 1e-6


def test_conditions_go_with_the_time_of_the_units() -> None:
    vocoder = loud(CONFIGS["all"].build(SPECS))
    chance = torch.Generator().manual_seed(0)
    frames = [3, 1, 5, 2]
    units = one(SPECS["units"], 4, chance)
    streams = {
        "runs": units,
        "log_durations": durations_of(TokenSequence(units.values, units.lengths, torch.tensor([frames]))),
        "slow": one(SPECS["slow"], 2, chance),
        "unit_code": one(SPECS["unit_code"], 4, chance),
        "pitch": TokenSequence(torch.tensor([[[3, 8]]]), torch.tensor([2]), torch.tensor([[1, 2]])),
        "unit_f0": one(SPECS["unit_f0"], 4, chance),
    }
    # By hand: frames of 20 ms, and of 80 ms for what is slow; the middles of frames 0 to 3 are within the first 80 ms.
    owner = [0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3]
    slow = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]  # it is shorter, and goes on as it ended
    pitch = [3, 3, 3, 3, 8, 8, 8, 8, 8, 8, 8]
    beside = {
        "slow": streams["slow"].values[:, slow],
        "unit_code": streams["unit_code"].values[:, :, owner],
        "pitch": torch.tensor([[pitch]]),
        "unit_f0": streams["unit_f0"].values[:, owner],
    }
    wanted = vocoder(units.values[:, :, owner], None, beside)
    torch.testing.assert_close(vocoder.decode(streams).samples[:, 0], wanted)
    recorded = TokenSequence(units.values, units.lengths, torch.tensor([frames]))
    for name, values in beside.items():
        made = condition_of(name, streams[name], SPECS[name], recorded, 50.0)
        assert torch.equal(made.values, values)
        assert made.lengths.tolist() == [11]


def test_every_condition_is_heard(vocoder: Any) -> None:
    streams = material(vocoder, [10])
    before = vocoder.decode(streams)
    for name in vocoder.config.conditions:
        tokens = streams[name]
        other = (tokens.values + 1) % SPECS[name].kind.codebook_size if tokens.discrete else tokens.values + 1
        changed = TokenSequence(other, tokens.lengths, tokens.durations)
        made = vocoder.decode({**streams, name: changed})
        assert made.samples.shape == before.samples.shape
        assert float((made.samples - before.samples).abs().max()) > 1e-3


def test_durations_of_a_stream_are_obeyed() -> None:
    vocoder = loud(CONFIGS["only durations"].build(SPECS))
    units = TokenSequence(torch.tensor([[[4, 4, 4, 7, 7, 1]]]), torch.tensor([6])).deduplicate()
    streams = {"runs": TokenSequence(units.values, units.lengths), "durations": durations_of(units, 6)}
    plain = loud(replace(VOCOS, stream="runs", predict_durations=True).build(SPECS))
    plain.load_state_dict(vocoder.state_dict(), strict=False)
    torch.testing.assert_close(vocoder.decode(streams).samples, plain.decode({"runs": units}).samples)


# -- training, saving, refusals -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["by time", "hifigan"])
def test_every_parameter_learns(name: str) -> None:
    vocoder = CONFIGS[name].build(SPECS)
    streams, voices = material(vocoder, [12, 12]), torch.tensor([0, vocoder.num_speakers - 1])
    rows = {
        n: pad_batch([condition_of(n, t.row(b), SPECS[n], streams["units"].row(b), 50.0) for b in range(2)])
        for n, t in streams.items()
        if n != "units"
    }
    made = vocoder.synthesize({"units": streams["units"], **rows}, voices)
    torch.testing.assert_close(made, vocoder.decode(streams, speaker=voices).samples[:, 0], atol=1e-5, rtol=0)
    made.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in vocoder.parameters())


def test_config_survives_and_old_weights_keep_their_names() -> None:
    for config in CONFIGS.values():
        assert from_dict(to_dict(config)) == config
        assert config.tiny().conditions == config.conditions
    before = set(VOCOS.build(SPECS).state_dict())
    after = set(CONFIGS["by time"].build(SPECS).state_dict())
    assert before < after
    assert all(name.startswith("conditions.") for name in after - before)


def test_wrong_configurations_are_refused() -> None:
    with pytest.raises(ConfigError, match="'nothing', which does not exist"):
        replace(VOCOS, conditions=("nothing",)).build(SPECS)
    with pytest.raises(ConfigError, match="Choose one of both"):
        replace(VOCOS, predict_durations=True, durations="durations").build(SPECS)
    with pytest.raises(ConfigError, match=r"durations of 'f0', which has 2 values per step at 50\.0 Hz"):
        replace(VOCOS, durations="f0").build(SPECS)


def test_wrong_streams_are_refused() -> None:
    vocoder = CONFIGS["pgslm"].build(SPECS).eval()
    streams = material(vocoder, [5])
    with pytest.raises(LayoutError, match="'unit_f0', which was not given"):
        vocoder.decode({n: t for n, t in streams.items() if n != "unit_f0"})
    with pytest.raises(LayoutError, match="'unit_f0' has 3 steps for 5 units"):
        vocoder.decode({**streams, "unit_f0": streams["unit_f0"].cut(0, 3)})
    with pytest.raises(LayoutError, match=r"Give features \[B, T, 1\]"):
        vocoder.decode({**streams, "unit_f0": streams["durations"]})
    expressive = CONFIGS["expressive"].build(SPECS).eval()
    streams = material(expressive, [5])
    bare = TokenSequence(streams["pitch"].values, streams["pitch"].lengths)
    with pytest.raises(LayoutError, match="came without durations"):
        expressive.decode({**streams, "pitch": bare})
    with pytest.raises(LayoutError, match="'style' is empty beside"):
        expressive.decode({**streams, "style": streams["style"].cut(0, 0)})
    with pytest.raises(LayoutError, match="'f0' has 2 steps for 3 units"):
        condition_of("f0", torch_features(2), SPECS["unit_f0"], one(SPECS["units"], 3, torch.Generator()), 50.0)


def torch_features(n: int) -> TokenSequence:
    return TokenSequence(torch.zeros(1, n, 1), torch.tensor([n]))
