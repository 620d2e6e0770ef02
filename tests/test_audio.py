import io
import os
import struct
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lalia.audio import Audio, read_blocks
from lalia.errors import AudioError, LaliaError, OutputError

RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    """[N, C] float32; channel c is c + 1 times as high."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * hertz * (c + 1) * t) for c in range(channels)], axis=1).astype(np.float32)


def wav(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def frequency(x: torch.Tensor, rate: int) -> float:
    """The strongest frequency of samples [N] in Hz, between the bins of the spectrum."""
    power = torch.fft.rfft(x.double() * torch.hann_window(len(x), dtype=torch.float64)).abs()
    k = int(power[1:-1].argmax()) + 1
    a, b, c = (float(power[i].log()) for i in (k - 1, k, k + 1))
    return (k + 0.5 * (a - c) / (a - 2 * b + c)) * rate / len(x)


# -- reading what is right ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_16", 3.1e-5),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_U8", 8e-3),
        ("wav", "FLOAT", 0.0),
        ("flac", "PCM_16", 3.1e-5),
        ("ogg", "VORBIS", 0.1),
        ("ogg", "OPUS", 0.1),
        ("mp3", None, 0.1),
        ("aiff", None, 3.1e-5),
    ],
)
def test_formats(tmp_path: Path, suffix: str, subtype: str | None, tolerance: float) -> None:
    x = tone(2.0, channels=2)
    audio = Audio.load(wav(tmp_path / f"a.{suffix}", x, subtype=subtype))
    assert audio.sample_rate == RATE
    assert audio.samples.shape == (1, 2, 2 * RATE)
    assert audio.samples.dtype == torch.float32
    assert np.abs(audio.samples[0].T.numpy() - x)[:-400].max() <= tolerance


def test_mono_is_the_average_and_channel_picks_one(tmp_path: Path) -> None:
    x = tone(channels=2)
    path = wav(tmp_path / "a.wav", x, subtype="FLOAT")
    torch.testing.assert_close(Audio.load(path, mono=True).samples[0, 0], torch.from_numpy(x.mean(axis=1)))
    for c in (0, 1):
        torch.testing.assert_close(Audio.load(path, channel=c).samples[0, 0], torch.from_numpy(x[:, c]))
        torch.testing.assert_close(Audio.load(path).channel(c).samples[0, 0], torch.from_numpy(x[:, c]))
    torch.testing.assert_close(Audio.load(path).mono().samples, Audio.load(path, mono=True).samples)


@pytest.mark.parametrize("channel", [-1, 2])
def test_channel_that_is_not_there(tmp_path: Path, channel: int) -> None:
    path = wav(tmp_path / "a.wav", tone(channels=2))
    with pytest.raises(AudioError, match=rf"has 2 channels, not channel {channel}"):
        Audio.load(path, channel=channel)
    with pytest.raises(AudioError, match=rf"has 2 channels, not channel {channel}"):
        Audio.load(path).channel(channel)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_start_and_seconds(tmp_path: Path, suffix: str) -> None:
    path = wav(tmp_path / f"a.{suffix}", tone(3.0))
    whole = Audio.load(path)
    part = Audio.load(path, start=1.25, seconds=0.5)
    assert part.samples.shape[-1] == RATE // 2
    torch.testing.assert_close(part.samples, whole.cut(1.25, 0.5).samples, atol=1e-6, rtol=0)
    assert Audio.load(path, start=2.5, seconds=9.0).samples.shape[-1] == RATE // 2


@pytest.mark.parametrize(
    ("start", "seconds", "message"),
    [
        (1.0, None, "is 1.00 s long and has nothing at 1.0 s. Start earlier."),
        (5.0, 1.0, "is 1.00 s long and has nothing at 5.0 s. Start earlier."),
        (-1.0, None, "Start at 0 or later"),
        (0.0, 0.0, "read some"),
        (0.0, -1.0, "read some"),
        (float("nan"), None, "Start at 0 or later"),
    ],
)
def test_part_that_is_not_there(tmp_path: Path, start: float, seconds: float | None, message: str) -> None:
    with pytest.raises(AudioError, match=message.replace("(", r"\(")):
        Audio.load(wav(tmp_path / "a.wav", tone()), start=start, seconds=seconds)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        buffer = io.BytesIO()

    soundfile.write(Terminal.buffer, tone(), RATE, format="FLAC")
    Terminal.buffer.seek(0)
    monkeypatch.setattr(sys, "stdin", Terminal)
    assert Audio.load("-").seconds == 1.0
    with pytest.raises(AudioError, match=r"^standard input is empty\. Pipe a recording into it\.$"):
        Audio.load("-")


def test_wave_file_of_unknown_length(tmp_path: Path) -> None:
    """What ffmpeg writes to a pipe: sizes of 0xFFFFFFFF, because it cannot go back to fill them in."""
    header = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    data = (tone()[:, 0] * 32767).astype("<i2").tobytes()
    audio = Audio.load(io.BytesIO(header + b"data\xff\xff\xff\xff" + data))
    assert audio.lengths.tolist() == [RATE]
    assert abs(frequency(audio.samples[0, 0], RATE) - 440) < 0.1


@pytest.mark.parametrize("rate", [RATE, 8000])
@pytest.mark.parametrize("seconds", [30, 31])  # a block is 30 s
def test_flac_of_unknown_length(tmp_path: Path, rate: int, seconds: int) -> None:
    path = wav(tmp_path / "a.flac", tone(seconds))
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples is the last 36 bits before the checksum of STREAMINFO
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert soundfile.info(path).frames > 1 << 60
    assert Audio.load(path, sample_rate=rate).lengths.tolist() == [seconds * rate]
    assert Audio.load(path, sample_rate=rate, start=seconds - 0.5).lengths.tolist() == [rate // 2]
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="cannot be decoded"):
        Audio.load(path)


def test_header_that_promises_too_much_takes_no_memory(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.flac", tone())
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4  # 68 719 476 735 samples
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"(breaks off before its end|cannot be decoded)"):
        Audio.load(path)


def test_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(), RATE, format="WAV")
    writer = threading.Thread(target=pipe.write_bytes, args=(buffer.getvalue(),))
    writer.start()
    assert Audio.load(pipe).seconds == 1.0
    writer.join()


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wav(tmp_path / "a.wav", tone())
    assert Audio.load("~/a.wav").seconds == 1.0


# -- reading what is wrong ----------------------------------------------------------------------


def refused(path: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as caught:
        Audio.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.count(". ") >= 1, f"a message says what is wrong and what to do: {message}"
    assert message.endswith(".")
    return message


def test_missing(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.wav") == f"{tmp_path}/no.wav does not exist. Check the path."
    (tmp_path / "f").write_text("x")
    assert "does not exist" in refused(tmp_path / "f" / "a.wav")
    assert "cannot be opened (File name too long)" in refused(tmp_path / ("a" * 300))
    assert "cannot be opened (embedded null byte)" in refused("a\0b.wav")


def test_directory_and_device(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path} is a directory. Name a sound file."
    assert "is a device" in refused("/dev/zero")


def test_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("This is text.\n" * 100)
    assert refused(path) == f"{path} is not a sound file (Format not recognised). Convert it to WAV or FLAC."
    assert refused(io.BytesIO(b"text" * 100)).startswith("the recording is not a sound file")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert refused(tmp_path / "a.wav") == f"{tmp_path}/a.wav is empty. Give a recording with speech in it."


@pytest.mark.parametrize("suffix", ["wav", "ogg", "aiff"])
@pytest.mark.parametrize("rate", [None, 8000])
def test_header_only(tmp_path: Path, suffix: str, rate: int | None) -> None:
    path = wav(tmp_path / f"a.{suffix}", tone(0.0))
    assert refused(path, sample_rate=rate) == f"{path} is empty. Give a recording with speech in it."
    assert Audio.load(path, sample_rate=rate, check=False).samples.shape == (1, 1, 0)


@pytest.mark.parametrize("rate", [None, 8000, 48_000])
def test_one_sample(tmp_path: Path, rate: int | None) -> None:
    path = wav(tmp_path / "a.wav", np.array([0.5]), 44_100)
    assert refused(path, sample_rate=rate) == f"{path} has only 1 sample (0.0 ms). Give at least 50 ms of speech."


def test_shortest(tmp_path: Path) -> None:
    assert Audio.load(wav(tmp_path / "a.wav", tone(0.05))).lengths.tolist() == [800]
    assert "has only 799 samples (49.9 ms)" in refused(wav(tmp_path / "a.wav", tone(0.05)[:-1]))


@pytest.mark.parametrize("level", [0.0, 0.0009])
def test_silence(tmp_path: Path, level: float) -> None:
    path = wav(tmp_path / "a.wav", level * 2 * tone())
    assert refused(path) == f"{path} is silent (its peak is under -60 dBFS). Check the microphone or the file."
    assert Audio.load(path, check=False).seconds == 1.0


def test_silence_around_a_constant(tmp_path: Path) -> None:
    assert "is silent" in refused(wav(tmp_path / "a.wav", np.full((RATE, 2), [0.2, -0.3])))


def test_quiet_speech_is_not_silence(tmp_path: Path) -> None:
    assert Audio.load(wav(tmp_path / "a.wav", 0.004 * tone())).seconds == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [None, 8000])
def test_not_finite(tmp_path: Path, bad: float, rate: int | None) -> None:
    x = tone()
    x[12345] = bad
    path = wav(tmp_path / "a.wav", x, subtype="FLOAT")
    assert refused(path, sample_rate=rate) == f"{path} contains NaN or infinite samples. Export it again."


def test_integers_in_a_floating_point_file(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", 16_384 * 2 * tone(), subtype="FLOAT")
    assert "has samples up to 16384. Scale them to [-1, 1]." in refused(path)
    assert Audio.load(wav(tmp_path / "b.wav", 4 * tone(), subtype="FLOAT")).seconds == 1.0


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_cut_short(tmp_path: Path, suffix: str) -> None:
    path = wav(tmp_path / f"a.{suffix}", tone(20.0) + 0.01 * np.random.default_rng(0).standard_normal((20 * RATE, 1)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "Copy or export it again." in refused(path)


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_cut_short_where_the_format_does_not_tell(tmp_path: Path, suffix: str) -> None:
    path = wav(tmp_path / f"a.{suffix}", tone(20.0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < Audio.load(path).seconds < 20


def test_mp3_without_length_is_read_to_its_end(tmp_path: Path) -> None:
    """Without a Xing tag its length is a guess from the first frame's bit rate, here far too long."""
    path = tmp_path / "a.mp3"
    quiet, loud = 0.001 * tone(10.0), np.random.default_rng(0).standard_normal((20 * RATE, 1)) / 4
    soundfile.write(path, np.concatenate([quiet, loud]), RATE, bitrate_mode="VARIABLE", compression_level=0.5)
    assert Audio.load(path).lengths.tolist() == [30 * RATE]
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"\xff\xf3\x18") :])  # from the first frame at 8 kbit/s on
    assert soundfile.info(path).duration > 60
    assert 29 < Audio.load(path).seconds < 31


@pytest.fixture
def as_anybody() -> Iterator[Path]:
    """A folder outside of this user's own, and the rights of a user who may not do everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        wav(folder / "a.wav", tone()).chmod(0o000)
        wav(folder / "b.wav", tone()).chmod(0o644)
        (folder / "closed").mkdir(mode=0o000)
        privileged = os.geteuid() == 0
        if privileged:
            os.seteuid(65534)
        yield folder
        if privileged:
            os.seteuid(0)


def test_no_permission(as_anybody: Path) -> None:
    assert refused(as_anybody / "a.wav") == f"{as_anybody}/a.wav may not be read. Check its permissions."
    assert "may not be read" in refused(as_anybody / "closed" / "a.wav")
    assert Audio.load(as_anybody / "b.wav").seconds == 1.0


def test_hour_in_the_memory_of_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 8000, 2, "PCM_U8") as file:
        minute = (tone(60.0, 8000, channels=2) * 32767).astype(np.int16)
        for _ in range(60):
            file.write(minute)
    tracemalloc.start()
    try:
        audio = Audio.load(path, mono=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert audio.lengths.tolist() == [3600 * 8000]
    assert peak < 1.1 * audio.samples.nbytes


# -- resampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_rates(tmp_path: Path, rate: int, channels: int) -> None:
    """A tone keeps its pitch and its level, and nothing is added: no clicks, no images."""
    path = wav(tmp_path / "a.wav", tone(1.0, rate, channels=channels), rate, "FLOAT")
    audio = Audio.load(path, sample_rate=RATE)
    assert audio.samples.shape == (1, channels, RATE)
    for c in range(channels):
        x = audio.samples[0, c, 800:-800].double()
        assert abs(frequency(x, RATE) - 440 * (c + 1)) < 0.01
        clean = torch.from_numpy(tone(1.0, channels=channels)[800:-800, c]).double()
        assert float((x - clean).abs().max()) < 1e-4


def test_what_the_new_rate_cannot_hold_is_removed(tmp_path: Path) -> None:
    audio = Audio.load(wav(tmp_path / "a.wav", tone(1.0, 48_000, hertz=11_000), 48_000), sample_rate=RATE, check=False)
    assert float(audio.samples[..., 800:-800].abs().max()) < 1e-4


@pytest.mark.parametrize(("rate", "to"), [(44_100, 16_000), (8000, 16_000), (96_000, 16_000)])
def test_no_clicks_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, to: int) -> None:
    monkeypatch.setattr("lalia.audio.reading._BLOCK_SECONDS", 1.0)
    x = tone(3.5, rate, channels=2)
    path = wav(tmp_path / "a.wav", x, rate, "FLOAT")
    blocks = list(read_blocks(path, sample_rate=to))
    assert len(blocks) == 4
    assert all(r == to and b.shape[0] == 2 and b.dtype == np.float32 for b, r in blocks)
    whole = Audio(x.T, rate).to(to)
    np.testing.assert_allclose(np.concatenate([b for b, _ in blocks], axis=1), whole.samples[0], atol=1e-6)
    torch.testing.assert_close(Audio.load(path, sample_rate=to).samples, whole.samples, atol=1e-6, rtol=0)


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=3),
    rate=st.sampled_from([8000, 16_000, 22_050, 44_100, 96_000]),
    to=st.sampled_from([8000, 16_000, 22_050, 24_000, 48_000]),
)
@example(lengths=[800, 1, 2], rate=16_000, to=22_050)  # halves
def test_row_of_a_batch_is_resampled_as_it_is_alone(lengths: list[int], rate: int, to: int) -> None:
    rows = [Audio(torch.randn(n, generator=torch.Generator().manual_seed(n)), rate) for n in lengths]
    batch = Audio.batch(rows).to(to)
    for b, row in enumerate(rows):
        alone = row.to(to)
        assert int(alone.lengths[0]) == alone.samples.shape[-1] == (2 * lengths[b] * to + rate) // (2 * rate)
        torch.testing.assert_close(batch.row(b).samples, alone.samples, atol=1e-6, rtol=0)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_blocks_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """A frame of a lossy format depends on those before it, also on those of the block before."""
    path = wav(tmp_path / f"a.{suffix}", tone(3.5))
    monkeypatch.setattr("lalia.audio.reading._BLOCK_SECONDS", 0.3)
    np.testing.assert_allclose(Audio.load(path).samples[0, 0], soundfile.read(path)[0], atol=1e-6)


def test_to_the_same_rate_is_free() -> None:
    audio = Audio(tone().T, RATE)
    assert audio.to(RATE) is audio


# -- values -------------------------------------------------------------------------------------


def test_integers_are_scaled() -> None:
    full = np.array([-32768, 0, 16384], np.int16)
    assert Audio(full, RATE).samples.flatten().tolist() == [-1.0, 0.0, 0.5]
    assert Audio(full.astype(np.int32) << 16, RATE).samples.flatten().tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">i2"])
def test_number_types(dtype: Any) -> None:
    x = (tone()[:, 0] * (32767 if dtype == ">i2" else 1)).astype(dtype)
    assert Audio(x, RATE).samples.dtype == torch.float32
    np.testing.assert_allclose(Audio(x, RATE).samples.flatten(), tone()[:, 0], atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_arrays_that_torch_does_not_take() -> None:
    x = tone()[:, 0]
    np.testing.assert_array_equal(Audio(x[::-1], RATE).samples.flatten(), x[::-1])
    x.flags.writeable = False
    np.testing.assert_array_equal(Audio(x, RATE).samples.flatten(), x)
    np.testing.assert_array_equal(Audio(x.tolist(), RATE).samples.flatten(), x)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((1, 1, 1, 1)), RATE, "has 4 dimensions"),
        (np.zeros(100, np.int64), RATE, "samples of type torch.int64"),
        (np.zeros(100, bool), RATE, "samples of type torch.bool"),
        (np.zeros(100, np.uint8), RATE, "samples of type torch.uint8"),
        ("abc", RATE, "str holds no samples"),
        ([[1.0], [1.0, 2.0]], RATE, "list holds no samples"),
        (None, RATE, "NoneType holds no samples"),
        (np.zeros(100), 0, "sample rate of 0 Hz"),
        (np.zeros(100), -1, "sample rate of -1 Hz"),
        (np.zeros(100), 10**7, "sample rate of 10000000 Hz"),
        (np.zeros(100), 16000.5, "sample rate of 16000.5"),
        (np.zeros(100), "16k", "sample rate of '16k'"),
        (np.zeros(100), None, "sample rate of 'NoneType'"),
        (np.zeros((RATE, 2)).repeat(50, axis=1)[:90], RATE, None),
        (np.zeros((RATE, 70)), RATE, r"16000 channels of 70 samples. Give samples as \[C, N\], not \[N, C\]"),
        (np.zeros((0, 100)), RATE, "0 channels"),
    ],
)
def test_values_that_are_no_audio(samples: Any, rate: Any, message: str | None) -> None:
    if message is None:
        Audio(samples, rate)
        return
    with pytest.raises(AudioError, match=message):
        Audio(samples, rate)


def test_lengths_must_fit() -> None:
    with pytest.raises(AudioError, match=r"Audio of 2 rows has lengths of shape \(3,\)"):
        Audio(torch.zeros(2, 1, 10), RATE, torch.tensor([1, 2, 3]))


def test_batch_pads_and_rows_come_back() -> None:
    rows = [Audio(tone(s).T, RATE) for s in (0.5, 1.0, 0.1)]
    batch = Audio.batch(rows)
    assert batch.samples.shape == (3, 1, RATE)
    assert batch.lengths.tolist() == [8000, 16000, 1600]
    assert batch.seconds == 1.0
    assert float(batch.samples[2, :, 1600:].abs().max()) == 0
    for b, row in enumerate(rows):
        assert torch.equal(batch.row(b).samples, row.samples)
        assert batch.row(b).lengths.tolist() == row.lengths.tolist()


def test_batch_that_cannot_be() -> None:
    with pytest.raises(AudioError, match="no recordings"):
        Audio.batch([])
    with pytest.raises(AudioError, match=r"rates \[8000, 16000\] Hz and channel counts \[1, 2\]"):
        Audio.batch([Audio(tone().T, 8000), Audio(tone(channels=2).T, RATE)])


def test_padding_is_not_checked_and_rows_are() -> None:
    batch = Audio.batch([Audio(tone(s).T, RATE) for s in (0.5, 1.0)])
    batch.samples[0, :, 8000:] = float("nan")
    batch.check()
    batch.samples[1] = 0
    with pytest.raises(AudioError, match="is silent"):
        batch.check()


def test_cut() -> None:
    batch = Audio.batch([Audio(tone(s).T, RATE) for s in (0.5, 1.0)])
    part = batch.cut(0.25, 0.5)
    assert part.samples.shape == (2, 1, 8000)
    assert part.lengths.tolist() == [4000, 8000]
    assert torch.equal(part.samples, batch.samples[..., 4000:12000])
    assert batch.cut(0.75).lengths.tolist() == [0, 4000]
    assert batch.cut(2.0).lengths.tolist() == [0, 0]
    with pytest.raises(AudioError, match="from -1 s on"):
        batch.cut(-1)


def test_repr() -> None:
    assert repr(Audio(tone(channels=2).T, RATE)) == "Audio(1 x 2 channels, 1.00 s at 16000 Hz)"


# -- what a caller may hand over ----------------------------------------------------------------


def test_of_a_path_a_pair_and_an_audio(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", tone(), subtype="FLOAT")
    audio = Audio.of(path)
    assert torch.equal(Audio.of(str(path)).samples, audio.samples)
    assert torch.equal(Audio.of((tone()[:, 0], RATE)).samples, audio.samples)
    assert torch.equal(Audio.of((torch.from_numpy(tone()[:, 0]), np.int64(RATE))).samples, audio.samples)
    assert torch.equal(Audio.of((tone(), 16000.0)).samples, audio.samples)
    assert Audio.of(audio) is audio


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_of_either_order_of_channels(channels: int) -> None:
    x = tone(channels=channels)  # [N, C], as soundfile reads
    for given_ in (x, x.T, torch.from_numpy(x), torch.from_numpy(x.T)):
        audio = Audio.of((given_, RATE))
        assert audio.samples.shape == (1, channels, RATE)
        np.testing.assert_array_equal(audio.samples[0].T, x)


def test_of_what_soundfile_reads(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.flac", tone(channels=2))
    assert torch.equal(Audio.of(soundfile.read(path, dtype="float32")).samples, Audio.load(path).samples)
    assert torch.equal(Audio.of(soundfile.read(path, dtype="int16")).samples, Audio.load(path).samples)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((np.zeros((100, 100)), RATE), r"Samples of shape \(100, 100\) may be \[C, N\] or \[N, C\]"),
        ((np.zeros((70, 100)), RATE), r"Samples of shape \(70, 100\) may be \[C, N\] or \[N, C\]"),
        ((RATE, tone()), r"sample rate of 'ndarray'. Give \(samples, sample_rate\)"),
        ((tone(), "16000"), "sample rate of '16000'"),
        ((np.zeros(RATE), RATE), "the given samples is silent"),
        ((np.zeros(0), RATE), "the given samples is empty"),
        (tone(), "ndarray is not audio. Give a path"),
        (b"RIFF", "bytes is not audio"),
        (None, "NoneType is not audio"),
        (3.0, "float is not audio"),
        ((1, 2, 3), "tuple is not audio"),
        (Audio(np.zeros(RATE), RATE), "the recording is silent"),
    ],
)
def test_of_what_is_not_audio(source: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        Audio.of(source)


# -- writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [("wav", 3.1e-5), ("flac", 3.1e-5), ("ogg", 0.1), ("opus", 0.1), ("mp3", 0.1), ("WAV", 3.1e-5)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_saved_and_loaded(tmp_path: Path, suffix: str, tolerance: float, channels: int) -> None:
    audio = Audio(tone(2.0, channels=channels).T, RATE)
    path = audio.save(tmp_path / f"a.{suffix}")
    assert path == tmp_path / f"a.{suffix}"
    again = Audio.load(path)
    assert again.sample_rate == RATE
    assert again.samples.shape == audio.samples.shape
    # The end of an Opus file is faded.
    assert float((again.samples - audio.samples)[..., :-400].abs().max()) <= tolerance
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_sixteen_bits_are_copied_exactly(tmp_path: Path, suffix: str) -> None:
    x = np.arange(-32768, 32768, dtype=np.int16)
    path = Audio(x, RATE).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(soundfile.read(path, dtype="int16")[0], x)
    assert Audio.load(Audio.load(path).save(tmp_path / f"b.{suffix}")).samples.equal(Audio(x, RATE).samples)


def test_saved_without_a_suffix_is_a_wave_file(tmp_path: Path) -> None:
    assert soundfile.info(str(Audio(tone().T, RATE).save(tmp_path / "out"))).format == "WAV"


def test_only_the_valid_part_of_the_first_row_is_saved(tmp_path: Path) -> None:
    batch = Audio.batch([Audio(tone(s).T, RATE) for s in (0.5, 1.0)])
    assert Audio.load(batch.save(tmp_path / "a.wav")).lengths.tolist() == [8000]


def test_loud_samples_are_clipped(tmp_path: Path) -> None:
    Audio(3 * tone().T, RATE).save(tmp_path / "a.wav")
    assert 0.999 < float(Audio.load(tmp_path / "a.wav").samples.max()) <= 1


def test_long_ogg(tmp_path: Path) -> None:
    """libsndfile's encoder ends the process when it is given this much at once."""
    code = (
        "import sys, resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))\n"
        "import torch\nfrom lalia.audio import Audio\n"
        "Audio(0.1 * torch.randn(2, 300_000), 48_000).save(sys.argv[1])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.ogg")], check=True, env=environment)
    assert soundfile.info(tmp_path / "a.ogg").frames == 300_000


@pytest.mark.parametrize(
    ("name", "rate", "channels", "message"),
    [
        ("a.xyz", RATE, 1, "a.xyz has a suffix that cannot be written. Use .wav"),
        ("a.py", RATE, 1, "has a suffix"),
        ("no/a.wav", RATE, 1, r"no/a.wav cannot be written \(No such file or directory\)"),
        ("a.mp3", 96_000, 1, "a.mp3 cannot hold 1 channels at 96000 Hz"),
        ("a.mp3", RATE, 3, "a.mp3 cannot hold 3 channels at 16000 Hz"),
        ("a.opus", 44_100, 1, "a.opus cannot hold 1 channels at 44100 Hz"),
        ("a.flac", 768_000, 1, "a.flac cannot hold 1 channels at 768000 Hz"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, name: str, rate: int, channels: int, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        Audio(tone(0.1, channels=channels).T, rate).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_samples_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    x = tone(10.0)
    x[-1] = np.nan
    with pytest.raises(AudioError, match="NaN or infinite"):
        Audio(x.T, RATE).save(tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    path = Audio(tone().T, RATE).save(tmp_path / "a.mp3")
    before = path.read_bytes()
    with pytest.raises(LaliaError):
        Audio(tone().T, 96_000).save(path)
    assert path.read_bytes() == before
