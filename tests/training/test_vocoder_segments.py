"""Segments for vocoders that read more than units: conditions beside them, or mel spectra of the sound."""

import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
from torch import nn

from lalia.audio import Audio
from lalia.config import to_dict
from lalia.data import Manifest, Mixture, Source, StreamInfo, TokenRow, Utterance, write_shard
from lalia.errors import DataError, RecipeError
from lalia.nn.spectral import LogMel
from lalia.streams import Continuous, Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import Mel, pool_by_runs
from lalia.training import TrainVocoder
from lalia.training.objectives.gan import VocoderGAN
from lalia.training.recordings import Recorded
from lalia.training.segments import SegmentBatches
from lalia.training.tasks import StageData, System
from lalia.vocoders import Chain, HifiGan, MelVocos, Tacotron2, UnitVocos
from lalia.vocoders.conditions import aligned

RATE, HOP = 8000, 160
MEL = Mel.Config(12, sample_rate=RATE, n_fft=320, hop=80)
SPECS = {
    "units": StreamSpec(kind=Discrete(20), frame_rate=50.0, deduplicated=True),
    "slow": StreamSpec(kind=Continuous(1), frame_rate=12.5),
    "pitch": StreamSpec(kind=Discrete(9), frame_rate=25.0, deduplicated=True),
    "unit_f0": StreamSpec(kind=Continuous(1), frame_rate=None),
}
GAN = VocoderGAN.Config(
    mel=LogMel.Config(RATE, n_fft=256, hop=64, bins=20), discriminators=VocoderGAN.Config().tiny().discriminators[:1]
).tiny()
VOCOS = UnitVocos.Config("units", sample_rate=RATE, dim=16, ffn_dim=32, num_layers=1, predict_durations=True)


def write(folder: Path, lengths: list[int], *, mel: bool = False) -> Recorded:
    """Utterances of noise with units, and streams beside them that tell the time."""
    folder.mkdir()
    info = {
        n: StreamInfo(s, "test", hashlib.sha256(n.encode()).hexdigest(), {"type": "test"}) for n, s in SPECS.items()
    }
    if mel:
        info["mel"] = StreamInfo(MEL.spec, "mel", MEL.build().identity, to_dict(MEL))
    rows, utterances = [], []
    for i, frames in enumerate(lengths):
        seconds = frames / 50
        sound = 0.1 * torch.randn(frames * HOP)
        path = folder / f"{i}.wav"
        soundfile.write(path, sound.numpy(), RATE, subtype="FLOAT")
        codes = torch.randint(0, 3, (1, 1, frames))
        units = TokenSequence(codes, torch.tensor([frames])).deduplicate()
        slow = torch.arange(-(-frames // 4)).float()[None, :, None]
        half = torch.randint(0, 3, (1, 1, -(-frames // 2)))
        streams = {
            "units": units,
            "slow": TokenSequence(slow, torch.tensor([slow.shape[1]])),
            "pitch": TokenSequence(half, torch.tensor([half.shape[2]])).deduplicate(),
            "unit_f0": pool_by_runs(TokenSequence(torch.randn(1, frames, 1), torch.tensor([frames])), units),
        }
        if mel:
            streams["mel"] = MEL.build().encode(Audio(sound, RATE))
        rows.append(TokenRow(f"{folder.name}-{i}", seconds, streams, "anna"))
        utterances.append(Utterance(f"{folder.name}-{i}", path, duration=seconds, speaker="anna"))
    write_shard(folder / "tokens-00000.parquet", rows, info)
    Manifest(utterances).save(folder / "manifest.jsonl")
    return Recorded.of(Mixture((Source(str(folder)),)).open(), [Manifest(utterances)])


def prepared(vocoder: Any, recorded: Recorded, task: TrainVocoder) -> Any:
    parts = SimpleNamespace(lms=nn.ModuleDict(), vocoder=vocoder)
    return task.prepare(parts, StageData(recorded, None), 0)  # type: ignore[arg-type]


TASK = TrainVocoder(gan=GAN, seconds=0.2, batch_size=3)


def test_conditions_are_cut_where_their_units_sound(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", [30, 41, 55])
    names = ("slow", "pitch", "unit_f0")
    batches = SegmentBatches(recorded, "units", sample_rate=RATE, frames=10, batch_size=4, conditions=names)
    for segment in batches._segments(0):
        given = batches.load([segment])["streams"]
        whole = recorded.tokens[segment.row].streams
        cut = slice(segment.start, segment.start + 10)
        assert torch.equal(given["units"].values, whole["units"].expand().values[:, :, cut])
        owner = torch.repeat_interleave(whole["units"].durations[0])[cut]
        assert torch.equal(given["unit_f0"].values, whole["unit_f0"].values[:, owner])
        assert given["slow"].values[0, :, 0].tolist() == [float((segment.start + t) // 4) for t in range(10)]
        pitch = whole["pitch"].expand().values[..., aligned(segment.start, 10, 50.0, 25.0)]
        assert torch.equal(given["pitch"].values, pitch)
        assert all(t.lengths.tolist() == [10] for t in given.values())
    with pytest.raises(DataError, match="hears 'energy', and the shards have units"):
        SegmentBatches(recorded, "units", sample_rate=RATE, frames=10, batch_size=4, conditions=("energy",))


def test_a_vocoder_learns_from_what_is_beside_its_units(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", [30, 41, 55])
    vocoder = replace(VOCOS, conditions=("slow", "pitch", "unit_f0")).build(SPECS)
    made = prepared(vocoder, recorded, TASK)
    (given,) = next(iter(made.batches))
    assert set(given["streams"]) == {"units", "slow", "pitch", "unit_f0"}
    for player in made.objective.players:
        made.objective.step = 5
        torch.stack(list(made.objective.losses(player, given).values())).sum().backward()
    learned = {name for name, p in vocoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {n for n in learned if n.startswith("conditions.")} == {
        n for n, _ in vocoder.named_parameters() if n.startswith("conditions.")
    }


@pytest.mark.parametrize(
    "config",
    [
        MelVocos.Config("mel", sample_rate=RATE).tiny(),
        HifiGan.Config(
            "mel",
            sample_rate=RATE,
            channels=16,
            upsample_rates=(10, 8),
            upsample_kernels=(20, 16),
            resblock_kernels=(3,),
            dilations=((1,),),
        ),
    ],
    ids=["vocos", "hifigan"],
)
def test_mel_of_a_segment_is_that_of_the_recording(tmp_path: Path, config: Any) -> None:
    recorded = write(tmp_path / "a", [30, 41, 55], mel=True)
    vocoder = config.build({"mel": MEL.spec})
    made = prepared(vocoder, recorded, TASK)
    batches = made.batches
    assert batches.frames == 20
    seen = batches._segments(0)
    assert {s.start for s in seen} != {0}
    for segment in seen:
        given = batches.load([segment])
        whole = recorded.tokens[segment.row].streams["mel"].values[:, segment.start : segment.start + 20]
        # The recording is kept in 16 bits.
        torch.testing.assert_close(given["streams"]["mel"].values, whole, atol=2e-2, rtol=0)
        assert given["audio"].samples.shape == (1, 1, 20 * 80)
    (given,) = next(iter(batches))
    losses = made.objective.losses("generator", given)
    losses["mel"].backward()
    assert all(p.grad is not None for p in vocoder.parameters())
    assert made.objective.counts(given)["mel"] == 3


def test_training_lowers_the_mel_loss(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", [30, 41, 55], mel=True)
    vocoder = MelVocos.Config("mel", sample_rate=RATE).tiny().build({"mel": MEL.spec})
    made = prepared(vocoder, recorded, replace(TASK, gan=replace(GAN, warmup_steps=1000)))
    optimizer = torch.optim.AdamW(vocoder.parameters(), 2e-3)
    history: list[float] = []
    while len(history) < 30:
        for (given,) in islice(made.batches, 30):
            loss = made.objective.losses("generator", given)["mel"] / 3
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(float(loss.detach()))
    assert sum(history[-5:]) < 0.8 * sum(history[:5])


def test_shards_need_not_have_the_mel_spectra(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", [30, 41])
    vocoder = MelVocos.Config("mel", sample_rate=RATE).tiny().build({"mel": MEL.spec})
    with pytest.raises(DataError, match=r"no stream 'mel', and no part makes it\. Give TrainVocoder its mel"):
        prepared(vocoder, recorded, TASK)
    given = prepared(vocoder, recorded, replace(TASK, mel=MEL)).batches
    assert next(iter(given))[0]["streams"]["mel"].values.shape == (3, 20, 12)
    with pytest.raises(DataError, match="Give TrainVocoder those of the recipe"):
        prepared(vocoder, recorded, replace(TASK, mel=replace(MEL, hop=160)))


def test_the_last_part_of_a_chain_learns_from_what_its_stage_says(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", [30, 41])
    stage = Tacotron2.Config("units", mel=LogMel.Config(RATE, n_fft=320, hop=80, bins=12)).tiny()
    bins = stage.mel.bins
    config = Chain.Config((stage,), MelVocos.Config("mel", sample_rate=RATE).tiny())
    chain = config.build({"units": SPECS["units"]})
    TASK.check("here", System({}, config, {}))
    made = prepared(chain, recorded, TASK)
    (given,) = next(iter(made.batches))
    assert given["streams"]["mel"].values.shape == (3, 20, bins)
    assert made.objective.vocoder is chain.vocoder
    with pytest.raises(RecipeError, match="names 2 voices, but the vocoder has 1"):
        replace(TASK, voices=("a", "b")).check("here", System({}, config, {}))
