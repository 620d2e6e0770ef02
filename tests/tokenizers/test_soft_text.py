from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, WeightsError
from lalia.streaming import reset_rows, select_rows
from lalia.streams import Continuous, StreamSpec
from lalia.tokenizers import SoftText, SpeechTokenizer
from lalia.tokenizers.pauses import cut_at_pauses, end_of_sound
from lalia.tokenizers.spelling import Spelling

RATE = 16000
CONFIG = replace(SoftText.Config().tiny(), longest=1.5, draft_every=0.25, silence=0.1)
pytestmark = pytest.mark.usefixtures("one_thread")
SPEECH = Path(__file__).parents[2].parent / "shared/data/librispeech-mini"


def learned(tokenizer: SoftText, parts: tuple[str, ...] = ("encoder.",)) -> dict[str, torch.Tensor]:
    """An encoder that has learned something."""
    own = tokenizer.recognizer.net.named_parameters()
    return {n: (1.01 * p).half() for n, p in own if n.startswith(parts) and "embed" not in n}


def build(config: SoftText.Config = CONFIG, *, short: bool = True) -> SoftText:
    tokenizer: SoftText = config.build()
    if short:
        tokenizer.load_weights(learned(tokenizer))
    return tokenizer


@pytest.fixture(scope="module")
def soft() -> SoftText:
    return build()


def sound(n: int, seed: int = 0) -> Audio:
    return Audio(0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed)), RATE)


def batch(lengths: Sequence[int]) -> Audio:
    return Audio.batch([sound(n, seed) for seed, n in enumerate(lengths)])


def cut(audio: Audio, start: int, stop: int) -> Audio:
    return Audio(audio.samples[..., start:stop], RATE, (audio.lengths - start).clamp(0, stop - start))


@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(0, 40_000), min_size=1, max_size=2),
    cuts=st.lists(st.integers(1, 40_000), max_size=6),
)
def test_a_stream_gives_at_its_end_what_the_whole_gives(soft: SoftText, lengths: list[int], cuts: list[int]) -> None:
    audio = batch(lengths)
    whole = soft.encode(audio)
    state = soft.init_state(len(lengths))
    ends = [*sorted({c for c in cuts if c < audio.samples.shape[-1]}), audio.samples.shape[-1]]
    for start, stop in pairwise([0, *ends]):
        made = soft.encode(cut(audio, start, stop), state, final=stop == ends[-1])
        assert made.num_tokens == 0 or stop == ends[-1]
    assert made.lengths.tolist() == whole.lengths.tolist()
    torch.testing.assert_close(made.values, whole.values, atol=1e-3, rtol=1e-3)
    # The state is that of a new stream.
    again = soft.encode(audio, state, final=True)
    torch.testing.assert_close(again.values, whole.values, atol=1e-3, rtol=1e-3)


def test_rows_join_and_leave_a_stream(soft: SoftText) -> None:
    a, b, c = (sound(20_000, seed) for seed in range(3))
    state = soft.init_state(2)
    soft.encode(Audio.batch([cut(a, 0, 9000), cut(b, 0, 9000)]), state)
    state = reset_rows(state, soft.init_state(2), torch.tensor([True, False]))
    state = select_rows(state, torch.tensor([1, 0]))
    soft.encode(Audio.batch([cut(b, 9000, 12_000), cut(c, 0, 3000)]), state)
    rest = Audio.batch([cut(b, 12_000, 20_000), cut(c, 3000, 20_000)])
    made = soft.hear(rest, state, final=True)
    assert [one.text for one in made] == soft.transcribe(Audio.batch([b, c]))


def test_a_stream_makes_drafts_and_little_is_left_to_do(soft: SoftText) -> None:
    audio, state, passes = sound(16_000), soft.init_state(1), []
    hook = soft.recognizer.net.decoder.register_forward_hook(lambda *_: passes.append(1))
    (early,) = soft.hear(cut(audio, 0, 3000), state)
    assert not early.text
    assert not passes
    (draft,) = soft.hear(cut(audio, 3000, 16_000), state)
    assert draft.text == soft.transcribe(audio)[0]
    passes.clear()
    # Nothing came since the draft.
    (made,) = soft.hear(cut(audio, 16_000, 16_000), state, final=True)
    hook.remove()
    assert not passes
    assert made.text == draft.text


def test_silence_at_the_end_is_nothing_to_hear(soft: SoftText) -> None:
    """A draft is made as soon as a pause is noticed, and stands when the stream ends in it."""
    quiet = torch.zeros(9000)
    audio = Audio(torch.cat([sound(9500).samples[0, 0], quiet]), RATE)
    state, passes = soft.init_state(1), []
    soft.hear(cut(audio, 0, 9500), state)
    soft.hear(cut(audio, 9500, 13_000), state)
    hook = soft.recognizer.net.encoder.register_forward_hook(lambda *_: passes.append(1))
    for start in range(13_000, 18_000, 1000):
        soft.hear(cut(audio, start, start + 1000), state)
    (made,) = soft.hear(cut(audio, 18_000, 18_500), state, final=True)
    hook.remove()
    assert not passes
    (whole,) = soft.hear(audio)
    assert made.text == whole.text != ""
    torch.testing.assert_close(made.embeddings, whole.embeddings, atol=1e-3, rtol=1e-3)
    # Of silence alone, nothing at all is heard.
    (nothing,) = soft.hear(Audio(quiet, RATE))
    assert (nothing.text, nothing.no_speech, nothing.understood) == ("", 1.0, False)


def test_a_long_stream_is_heard_a_bounded_number_of_times(soft: SoftText) -> None:
    """What is heard again for drafts does not grow with the length of the stream, nor does what is kept of it."""
    state, heard = soft.init_state(1), []
    hook = soft.recognizer.net.encoder.register_forward_pre_hook(lambda _, args: heard.append(args[0].shape[-1] // 2))
    counts = []
    for i in range(60):
        soft.hear(sound(1600, seed=i), state)
        assert len(state.lines[0].samples) <= 1.5 * RATE
        counts.append(sum(heard))
    hook.remove()
    # In 0.1 s there are 5 frames; 3 s are two windows.
    assert counts[-1] - counts[29] <= 1.25 * (counts[29] + 1) < 12 * 150


def test_one_window_of_nonsense_does_not_spoil_the_others(soft: SoftText, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = sound(60_000)
    (plain,) = soft.hear(audio)
    read, seen = soft._read, []

    def disturbed(windows: Any, draft: Any = None) -> Any:
        made = [replace(t, looped=len(seen) + i == 1, log_probs=t.log_probs * 0) for i, t in enumerate(read(windows))]
        seen.extend(made)
        return made

    monkeypatch.setattr(soft, "_read", disturbed)
    (one,) = soft.hear(audio)
    assert len(seen) > 2
    assert seen[1].ids
    assert one.understood
    assert one.text == "".join(soft.recognizer.spell(t.ids).strip() + " " for t in (seen[0], *seen[2:])).strip()
    assert len(one.text) < len(plain.text)
    # Where nothing else was heard, it stands as it is.
    monkeypatch.setattr(soft, "_read", lambda windows: [replace(t, looped=True) for t in read(windows)])
    (alone,) = soft.hear(audio)
    assert (alone.text, alone.looped, alone.understood) == (plain.text, True, False)


def test_rows_are_heard_as_if_alone(soft: SoftText) -> None:
    audio = batch([9000, 0, 40_000, 16_000])
    for b, one in enumerate(soft.hear(audio)):
        (alone,) = soft.hear(audio.row(b))
        assert alone.text == one.text
        torch.testing.assert_close(alone.embeddings, one.embeddings, atol=1e-4, rtol=1e-3)
    (nothing,) = soft.hear(audio.row(1))
    assert (nothing.text, nothing.no_speech, nothing.understood) == ("", 1.0, False)
    assert nothing.embeddings.shape == (0, 64)


def test_without_its_weights_it_hears_the_padding_too() -> None:
    plain, x = build(short=False), sound(8000)
    assert not plain.fitted
    assert not plain.weights()
    padded = Audio(torch.nn.functional.pad(x.samples, (0, 30 * RATE - 8000)), RATE)
    wanted = plain.recognizer.listen(padded.samples[0, 0])
    torch.testing.assert_close(plain.recognizer.listen(x.samples[0, 0]), wanted)
    identity = plain.identity
    plain.load_weights(learned(plain))
    assert plain.fitted
    assert plain.identity != identity
    assert plain.recognizer.listen(x.samples[0, 0], silence=800).shape == (28, 32)


def test_what_it_learned_goes_from_one_to_another(soft: SoftText) -> None:
    other = build(short=False)
    other.load_weights(soft.weights())
    assert other.identity == soft.identity
    assert torch.equal(other.encode(sound(9000)).values, soft.encode(sound(9000)).values)
    with pytest.raises(ConfigError, match="does not fit"):
        other.load_weights({**soft.weights(), "encoder.conv1.weight": torch.zeros(3)})
    with pytest.raises(ConfigError, match=r"'decoder\.layer_norm\.bias' does not fit"):
        other.load_weights({**soft.weights(), "decoder.layer_norm.weight": torch.zeros(32)})
    with pytest.raises(ConfigError, match="context"):
        build(replace(CONFIG, context="full"), short=False).load_weights(soft.weights())


def test_the_decoder_may_have_learned_too(soft: SoftText) -> None:
    both = build(short=False)
    both.load_weights(learned(both, ("encoder.", "decoder.")))
    assert soft.weights().keys() < both.weights().keys()
    assert both.identity != soft.identity
    assert not any("embed" in name for name in both.weights())
    other = build(short=False)
    other.load_weights(both.weights())
    assert torch.equal(other.encode(sound(9000)).values, both.encode(sound(9000)).values)


def test_what_is_known_before_building() -> None:
    config = SoftText.Config()
    assert config.spec == StreamSpec(kind=Continuous(576), frame_rate=None)
    assert SoftText.Config(text="Qwen/Qwen2.5-0.5B-Instruct").spec.kind == Continuous(896)
    assert from_dict(to_dict(CONFIG)) == CONFIG
    assert config.tiny().tiny() == config.tiny()
    tokenizer: Any = CONFIG.build()
    assert isinstance(tokenizer, SpeechTokenizer)
    assert tokenizer.spec == CONFIG.spec
    assert tokenizer.encode(sound(8000)).values.shape[2] == 64
    for wrong in ({"longest": 31.0}, {"silence": -1.0}, {"keep": 0}, {"draft_every": 0.0}):
        with pytest.raises(ConfigError, match="SoftText"):
            SoftText.Config(**wrong)
    with pytest.raises(ConfigError, match="Set dim"):
        _ = SoftText.Config(text="some/unknown-lm").spec
    with pytest.raises(ConfigError, match="16000"):
        tokenizer.encode(Audio(torch.zeros(100), 8000), tokenizer.init_state(1))


def test_an_lm_chooses_among_what_may_have_been_said(soft: SoftText) -> None:
    audio = batch([9000, 40_000])
    asked: list[list[str]] = []

    def likes(wanted: int) -> Any:
        def score(texts: Sequence[str]) -> list[float]:
            asked.append(list(texts))
            return [1000.0 * (i == wanted) for i in range(len(texts))]

        return score

    plain = soft.transcribe(audio, beams=3)
    assert soft.transcribe(audio.row(0), beams=3, lm=likes(0)) == plain[:1]
    assert asked[0][0] == plain[0]
    assert soft.transcribe(audio.row(0), beams=3, lm=likes(len(asked[0]) - 1)) == [asked[0][-1]]
    assert asked[0][-1] != plain[0]
    asked.clear()
    # Of a long sound, for each window.
    assert soft.transcribe(audio.row(1), beams=3, lm=likes(0)) == plain[1:]
    assert len(asked) == 2
    with pytest.raises(ConfigError, match="more beams"):
        soft.transcribe(audio, lm=likes(0))


# -- spelling ------------------------------------------------------------------------------------


def test_an_expectation_goes_over_what_can_be_spelled() -> None:
    words = ["a", " b", " cd", "\N{REPLACEMENT CHARACTER}", ""]
    spelling, e = Spelling(words, "bytes", 6), None
    e = spelling.matrix
    # As many again as text has: the end of a transcript.
    likely = torch.tensor([[2, 0, 9], [2, 9, 3], [3, 0, 1], [4, 0, 1]])
    log_probs = torch.tensor([[0.6, 0.3, 0.1]] * 4).log()
    made = spelling(likely, log_probs)
    cd, space = e[[99, 100]].mean(0), e[[32, 99, 100]].mean(0)
    # The first step is spelled without its space, and the last two say nothing.
    torch.testing.assert_close(made, torch.stack([(2 * cd + e[97]) / 3, space]))
    torch.testing.assert_close(spelling(likely, log_probs, opening=False)[0], (2 * space + e[97]) / 3)
    assert spelling(likely[:0], log_probs[:0]).shape == (0, 6)


def test_an_lm_is_read_from_its_folder(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({**letters, "Ġh": 256, "hi": 257}, [("Ġ", "h"), ("h", "i")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    matrix = torch.randn(258, 4)
    save_file({"model.embed_tokens.weight": matrix}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(WeightsError, match=r"tokenizer\.json"):
        Spelling(["hi"], str(tmp_path), 4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    spelling = Spelling([" hi", "i"], str(tmp_path), 4)
    one = spelling(torch.tensor([[0], [0], [1]]), torch.zeros(3, 1))
    torch.testing.assert_close(
        one, torch.stack([matrix[257], matrix[[256, letters["i"]]].mean(0), matrix[letters["i"]]])
    )
    save_file({"head": matrix}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="embeddings"):
        Spelling(["hi"], str(tmp_path), 4)


# -- pauses --------------------------------------------------------------------------------------


@given(n=st.integers(0, 100_000), longest=st.integers(8000, 40_000), more=st.integers(0, 30_000))
def test_long_sounds_are_cut_alike_however_they_go_on(n: int, longest: int, more: int) -> None:
    x = sound(n + more).samples[0, 0]
    whole = cut_at_pauses(x, longest)
    assert all(0 < len(p) <= longest for p in whole)
    assert torch.equal(torch.cat([x[:0], *whole]), x)
    part = cut_at_pauses(x[:n], longest)
    assert [len(p) for p in part[:-1]] == [len(p) for p in whole[: max(len(part) - 1, 0)]]


def test_a_cut_is_made_in_the_pause() -> None:
    x = sound(48_000).samples[0, 0]
    x[26_000:30_000] *= 0.01
    first, second = cut_at_pauses(x, 32_000)
    assert 26_000 < len(first) < 30_000
    assert len(first) + len(second) == 48_000


def test_the_end_of_a_sound_is_where_only_noise_is_left() -> None:
    x = sound(32_000).samples[0, 0]
    assert end_of_sound(x) == 32_000
    assert end_of_sound(x[:0]) == end_of_sound(torch.zeros(8000)) == 0
    for level in (0.0, 1e-3, 0.05):
        noisy = x.clone()
        noisy[16_000:] *= level
        # The frame in which it ends, and 0.2 s.
        assert end_of_sound(noisy) == 16_000 + 3200
    # A faint end that the noise between the words does not reach is heard; one that begins again too.
    faint = x.clone()
    faint[8000:16_000] *= 0.01
    faint[16_000:24_000] *= 0.05
    faint[24_000:] *= 0.01
    assert end_of_sound(faint) == 24_000 + 3200


# -- with real weights ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> SoftText:
    if any(cached(KNOWN[name]) is None for name in ("whisper-tiny.en", "smollm2-135m-instruct")):
        pytest.skip("needs the weights of whisper-tiny.en and smollm2-135m-instruct")
    tokenizer: SoftText = SoftText.Config().build()
    return tokenizer


def test_the_lm_sees_what_was_said(real: SoftText) -> None:
    files = sorted(SPEECH.glob("*.flac"))
    if not files:
        pytest.skip("needs recorded speech")
    from lalia.checkpoints import fetch
    from tokenizers import Tokenizer

    (heard,) = real.hear(Audio.load(files[4], sample_rate=RATE).cut(0, 6.0))
    assert heard.understood
    assert heard.text.startswith("Before the sitt")
    # The nearest token of the LM at each step.
    table = torch.nn.functional.normalize(real.spelling.matrix.float(), dim=-1)
    nearest = (torch.nn.functional.normalize(heard.embeddings, dim=-1) @ table.T).argmax(-1)
    tokenizer = Tokenizer.from_file(str(fetch("smollm2-135m-instruct") / "tokenizer.json"))
    assert tokenizer.decode(nearest[-6:].tolist()) in heard.text
    assert tokenizer.decode(nearest[:1].tolist()) == "Before"


def test_silence_is_not_understood(real: SoftText) -> None:
    assert not real.hear(Audio(torch.zeros(32_000), RATE))[0].understood


def test_words_beyond_doubt_enter_as_the_lm_would_write_them() -> None:
    """Pieces that the LM cuts in another way: of those in doubt the mean, of the others its own tokens."""
    spelling = Spelling([" pen", "gu", "in", " fly", "?"], "bytes", 16)
    likely = torch.tensor([[0, 3], [1, 2], [2, 1], [3, 0], [4, 4]])
    certain = torch.tensor([[0.99, 0.01]] * 5).log()
    made = spelling.words(likely, certain, sure=0.9)
    ids = torch.tensor(list(b"penguin fly?"))
    assert torch.equal(made, spelling.matrix[ids].float())
    # One doubt makes a word one of expectations, and leaves the next alone.
    doubtful = certain.clone()
    doubtful[1] = torch.tensor([0.6, 0.4]).log()
    made = spelling.words(likely, doubtful, sure=0.9)
    assert torch.equal(made[:3], spelling(likely[:3], doubtful[:3]))
    assert torch.equal(made[3:], spelling.matrix[torch.tensor(list(b" fly?"))].float())
    assert torch.equal(spelling.words(likely, certain, sure=2.0), spelling(likely, certain))
    assert spelling.words(likely[:0], certain[:0], sure=0.9).shape == (0, 16)
