import json
from dataclasses import replace

import pytest
import soundfile
import torch

from lalia.audio import Audio
from lalia.config import from_dict, to_dict
from lalia.errors import CheckpointError, DataError, OutputError
from lalia.model import load, load_tokenizer
from lalia.nn.quantize import ResidualVQ
from lalia.nn.seanet import SEANet
from lalia.recipes import find
from lalia.tokenizers import Codec
from lalia.train import CodecRun, train, train_codec

SET = (
    "--set",
    "codec.network.width=24",
    "--set",
    "codec.quantizer.num_codebooks=2",
    "--set",
    "task.seconds=0.2",
    "--set",
    "trainer.tensorboard=false",
    "--set",
    "trainer.log_every=2",
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plan():
    codec = Codec.Config(16000, SEANet((5, 8, 8), 2, 16, normalize=True), ResidualVQ.Config(16, 2, dropout=0.5))
    run = replace(CodecRun().tiny(), codec=codec)
    trainer = replace(run.trainer, max_steps=8, tensorboard=False, learning_rate=3e-3, warmup_steps=0, log_every=4)
    return replace(run, task=replace(run.task, seconds=0.2), trainer=trainer)


def losses(run, split):
    lines = [json.loads(line) for line in (run / "training" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def test_the_default_is_written_and_read(plan):
    assert from_dict(to_dict(CodecRun())) == CodecRun()
    assert CodecRun().codec.spec.frame_rate == 50.0
    assert plan.codec.spec.frame_rate == 50.0


def test_a_run_becomes_a_tokenizer(corpus, plan, tmp_path):
    torch.manual_seed(1)
    run = train_codec(plan, [corpus], tmp_path / "codec")
    codec = load_tokenizer(run)
    assert not codec.config.network.normalize
    assert codec.identity != plan.codec.build().identity
    before, *_, after = losses(run, "train")
    assert after["mel"] < before["mel"]
    with pytest.raises(OutputError, match="--resume"):
        train_codec(plan, [corpus], run)
    longer = replace(plan, trainer=replace(plan.trainer, max_steps=12))
    train_codec(longer, [corpus], run, resume=True)
    assert load_tokenizer(run).identity != codec.identity
    other = replace(plan, task=replace(plan.task, batch_size=3))
    with pytest.raises(CheckpointError, match=r"another task\.batch_size"):
        train_codec(other, [corpus], run, resume=True)


def test_a_run_begins_with_a_codec_that_is_there(corpus, plan, shards, tmp_path):
    first = load_tokenizer(train_codec(plan, [corpus], tmp_path / "codec"))
    still = replace(plan, trainer=replace(plan.trainer, max_steps=1, learning_rate=1e-12))
    again = load_tokenizer(train_codec(still, [corpus], tmp_path / "again", init=tmp_path / "codec"))
    assert again.config == first.config
    moved = {n: (t - first.weights()[n]).abs().max() for n, t in again.weights().items() if "quantizer" not in n}
    assert max(moved.values()) < 1e-6
    with pytest.raises(CheckpointError, match="holds SSLUnits, not a Codec"):
        train_codec(still, [corpus], tmp_path / "units", init=shards / "tokenizers" / "units")


def test_broken_recordings_are_left_out(corpus, plan, tmp_path, noise):
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", noise(1.0, seed=i), 16000)
    soundfile.write(tmp_path / "silent.wav", 0 * noise(1.0), 16000)
    told = []
    short = replace(plan, trainer=replace(plan.trainer, max_steps=4))
    train_codec(short, [tmp_path], tmp_path / "codec", tell=told.append)
    assert len(told) == 1
    assert "silent" in told[0]


def test_recordings_that_are_too_short(corpus, plan, tmp_path):
    long = replace(plan, task=replace(plan.task, seconds=60.0))
    with pytest.raises(DataError, match="shorter segments"):
        train_codec(long, [corpus], tmp_path / "codec")
    assert not list(tmp_path.iterdir())


def test_the_command_and_what_takes_a_codec(lalia, corpus, clip, tmp_path):
    run = tmp_path / "codec"
    ran = lalia("fit-codec", corpus, "-o", run, "--tiny", "--steps", 4, *SET, "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["sample_rate"], ran.json["frame_rate"], ran.json["num_codebooks"]) == (16000, 50.0, 2)
    made = lalia("tokenize", corpus, "-o", tmp_path / "shards", "--tokenizer", run, "--json")
    assert made.status == 0, made.err
    assert made.json["identity"] == ran.json["identity"]
    out = tmp_path / "out.wav"
    spoken = lalia("resynthesize", clip, "-o", out, "--tokenizer", run, "--json")
    assert spoken.status == 0, spoken.err
    assert spoken.json["tokens"] == 250
    assert soundfile.info(out).duration == pytest.approx(5.0)
    ran = lalia("fit-codec", corpus, "-o", run, "--tiny", "--steps", 6, *SET, "--resume", "--json")
    assert ran.status == 0, ran.err
    assert ran.json["identity"] != made.json["identity"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "codec.strides"), "has no '='"),
        (("--set", "codec.stride=1"), "has no field 'stride'"),
        (("--minutes", "0"), "Invalid value for '--minutes'"),
    ],
)
def test_wrong_options_are_one_line(options, message, lalia, corpus, tmp_path):
    ran = lalia("fit-codec", corpus, "-o", tmp_path / "codec", *options)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_cannot_speak(lalia, clip, shards, tmp_path):
    ran = lalia("resynthesize", clip, "-o", tmp_path / "out.wav", "--tokenizer", shards / "tokenizers" / "units")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "cannot speak" in ran.err


def _as_audiolm(codec):
    """Of twelve codebooks, as AudioLM's coarse and fine codes have them, but at twice its frame rate."""
    return replace(codec, network=replace(codec.network, strides=(5, 8, 4)), quantizer=ResidualVQ.Config(16, 12))


def test_a_trained_codec_is_heard_through_its_own_decoder(corpus, plan, clip, tmp_path):
    run = train_codec(replace(plan, codec=_as_audiolm(plan.codec)), [corpus], tmp_path / "codec")
    codec = load_tokenizer(run)
    trained = train(
        find("audiolm"),
        [corpus],
        tmp_path / "run",
        tiny=True,
        stage="semantic",
        tokenizers={"codes": run},
        overrides={"stages.semantic.trainer.max_steps": "2"},
    )
    model = load(trained)
    # Twice as many tokens: twice as many fit.
    own = find("audiolm").tiny().stages[0].task
    assert model.recipe.stages[0].task == replace(own, max_tokens=2 * own.max_tokens, max_length=2 * own.max_length)
    # One tokenizer for the codes and their two slices, stored once.
    assert set(model.learned) == {"semantic", "codes"}
    assert model.tokenizer("fine") is model.tokenizer("coarse")
    assert model.tokenizer("fine").identity == codec.identity
    ours, theirs = model.vocoder.synthesizer.state_dict(), codec.synthesizer.state_dict()
    assert [n for n in theirs if not torch.equal(ours[n], theirs[n])] == []
    untrained = codec.config.build().synthesizer.state_dict()
    assert any(not torch.equal(theirs[n], untrained[n]) for n in theirs)
    audio = Audio.load(clip, sample_rate=16000, seconds=1.0)
    codes = model.listener.hear({None: audio}, ("coarse", "fine"))
    assert torch.equal(model.decode(codes).samples, codec.decode(codec.encode(audio)).samples)


def test_tokenizers_that_do_not_fit(lalia, corpus, clip, tmp_path):
    made = lalia("fit-codec", corpus, "-o", tmp_path / "codec", "--tiny", "--steps", 2, *SET)
    assert made.status == 0, made.err
    for tokenizer, message in (
        ("codes", "has no '='"),
        (f"code={tmp_path / 'codec'}", "Did you mean 'codes'?"),
        (f"codes={tmp_path / 'nothing'}", "There is no model"),
        (f"codes={tmp_path / 'codec'}", "Codebooks 0 to 4 are not in"),
    ):
        ran = lalia("train", "audiolm", "--tiny", "--data", corpus, "-o", tmp_path / "run", "--tokenizer", tokenizer)
        assert (ran.status, ran.err.count("\n")) == (2, 1), ran.err
        assert message in ran.err
    assert not (tmp_path / "run").exists()
