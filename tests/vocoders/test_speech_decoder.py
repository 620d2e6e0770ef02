"""Letters to phones, phones to units and pitch: trained, whole and in pieces."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.errors import ConfigError, LayoutError
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers import Letters, Phones
from lalia.vocoders import G2P, Chain, SourceVocos, UnitFastSpeech

SPECS = {
    "letters": Letters.Config().spec,
    "phones": Phones.Config().spec,
    "units": StreamSpec(kind=Discrete(20), frame_rate=50.0, deduplicated=True),
    "pitch": StreamSpec(kind=Continuous(2), frame_rate=50.0),
}
SPELL = G2P.Config("letters", dim=16, ffn_dim=32, lookahead=(2, 1))
SPEAK = UnitFastSpeech.Config(
    "phones", num_speakers=2, dim=16, ffn_dim=32, phone_lookahead=(2, 1), frame_lookahead=(1, 1)
)
VOCOS = SourceVocos.Config(
    "units", num_speakers=2, predict_durations=True, conditions=("pitch",), upsample=2, dim=16, ffn_dim=32, num_layers=1
)
CHAIN = Chain.Config((SPELL, SPEAK), VOCOS)
TEXTS = ["The quick brown fox jumps over the lazy dog.", "A cat."]


def built(config):
    torch.manual_seed(0)
    made = config.build(SPECS).eval()
    for p in made.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.4)
    return made


def letters(*texts: str) -> TokenSequence:
    return Letters.Config().build().encode(texts)


def test_a_chain_reads_letters_and_may_make_streams_that_recordings_have() -> None:
    chain = built(CHAIN)
    assert (chain.reads, CHAIN.makes, chain.num_speakers) == (("letters",), ("phones", "units", "audio"), 2)
    assert chain.part("pitch") is chain.part("units")
    other = {**SPECS, "units": replace(SPECS["units"], frame_rate=25.0), "pitch": SPECS["pitch"]}
    with pytest.raises(ConfigError, match="Give two features at 25 Hz"):
        CHAIN.build(other)


@settings(max_examples=6)
@given(st.lists(st.integers(1, 44), max_size=4), st.integers(0, 1))
def test_a_text_in_pieces_sounds_like_the_whole(cuts: list[int], voice: int) -> None:
    chain, given_ = built(CHAIN), letters(*TEXTS)
    whole = chain.decode({"letters": given_}, speaker=voice)
    state, rows = chain.init_state(2), [[], []]
    edges = [0, *sorted(set(cuts)), given_.num_tokens]
    for a, b in pairwise(edges):
        audio = chain.decode({"letters": given_.cut(a, b)}, state, final=b == edges[-1], speaker=voice)
        for i in range(2):
            rows[i].append(audio.samples[i, 0, : int(audio.lengths[i])])
    for i, row in enumerate(rows):
        torch.testing.assert_close(torch.cat(row), whole.samples[i, 0, : int(whole.lengths[i])], atol=1e-4, rtol=1e-4)
    # The state is fresh again.
    again = chain.decode({"letters": given_}, state, final=True, speaker=voice)
    torch.testing.assert_close(again.samples, whole.samples, atol=1e-4, rtol=1e-4)


def test_a_row_does_not_depend_on_the_others() -> None:
    chain = built(CHAIN)
    both, alone = (chain.decode({"letters": letters(*t)}) for t in (TEXTS, TEXTS[1:]))
    length = int(alone.lengths[0])
    assert int(both.lengths[1]) == length > 0
    torch.testing.assert_close(both.samples[1, 0, :length], alone.samples[0, 0], atol=1e-4, rtol=1e-4)


def test_rounding_durations_loses_no_time() -> None:
    speak = built(SPEAK)
    state = speak.init_state(1)
    speak.log_durations = lambda hidden: torch.full(hidden.shape[:-1], 1.3).log1p()  # type: ignore[method-assign]
    counts = [speak._frames(torch.zeros(n, 16), state, 0) for n in (3, 1, 6)]
    assert int(torch.cat(counts).sum()) == 13
    assert set(torch.cat(counts).tolist()) == {1, 2}


def spoken(phones: str) -> dict[str, TokenSequence]:
    """A row as a corpus would have it: a phone lasts as many frames as its id says, and its unit is that id."""
    row = Phones.Config().build().spell(phones)
    ids = row.values[0, 0] % 20
    durations = ids % 4 + 1
    frames = torch.repeat_interleave(ids, durations)
    codes, runs = torch.unique_consecutive(frames, return_counts=True)
    pitch = torch.stack([frames / 10 - 1, (frames % 2).float()], dim=-1)
    return {
        "phones": replace(row, durations=durations[None]),
        "units": TokenSequence(codes[None, None], torch.tensor([len(codes)]), runs[None]),
        "pitch": TokenSequence(pitch[None], torch.tensor([len(frames)])),
    }


def test_it_learns_durations_units_and_pitch() -> None:
    speak = replace(SPEAK, num_speakers=0, dim=32, dropout=0.0).build(SPECS).train()
    rows = [spoken("həlˈoʊ wˈɜːld"), spoken("ɐ kˈæt.")]
    batch = {n: pad_batch([r[n] for r in rows]) for n in rows[0]}
    optimizer = torch.optim.Adam(speak.parameters(), lr=1e-2)
    for _ in range(80):
        losses, counts = speak.losses(batch), speak.counts(batch)
        assert set(losses) == set(speak.terms) == set(counts)
        optimizer.zero_grad()
        sum(loss / counts[n] for n, loss in losses.items()).backward()
        optimizer.step()
    made = speak.eval().convert({"phones": batch["phones"]})
    for b, row in enumerate(rows):
        units, truth = made["units"].row(b), row["units"].expand()
        assert units.values.tolist() == truth.values.tolist()
        pitch = made["pitch"].row(b).values
        torch.testing.assert_close(pitch, row["pitch"].values, atol=0.25, rtol=0.0)
    with pytest.raises(LayoutError, match="came without durations"):
        speak.losses({**batch, "phones": replace(batch["phones"], durations=None)})


def test_it_learns_to_spell() -> None:
    spell = replace(SPELL, dim=48, ffn_dim=96).build(SPECS).train()
    words = {"cat": "kˈæt", "box": "bˈɑːks", "the quick": "ðə kwˈɪk"}
    phones = Phones.Config().build()
    batch = {"letters": letters(*words), "phones": pad_batch([phones.spell(p) for p in words.values()])}
    optimizer = torch.optim.Adam(spell.parameters(), lr=1e-2)
    for _ in range(100):
        loss = spell.losses(batch)["ctc"] / spell.counts(batch)["ctc"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = spell.eval().convert({"letters": batch["letters"]})["phones"]
    assert phones.decode(made) == [f" {p}" for p in words.values()]
    # Padding taught nothing: each alone gives the same.
    assert phones.decode(spell.convert({"letters": letters("cat")})["phones"]) == [" kˈæt"]


def test_a_spelling_without_a_word_is_silence() -> None:
    chain = built(CHAIN)
    audio = chain.decode({"letters": letters("")})
    assert audio.samples.shape == (1, 1, 0)
