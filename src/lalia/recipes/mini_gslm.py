"""mini-gslm: GSLM at the size of a laptop, trained here; the default of every textless command."""

from dataclasses import replace
from typing import Any

from lalia.layouts import Flat
from lalia.lm import Linear, Lookup, Sampler, Sampling, SpeechLM, Transformer
from lalia.nn.discriminators import MultiPeriod, MultiResolution
from lalia.nn.spectral import LogMel
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import SSLUnits
from lalia.training import PredictTokens, Trainer, TrainStage, TrainVocoder
from lalia.training.objectives.gan import VocoderGAN
from lalia.vocoders import UnitVocos

VOICES = ("af_heart", "am_michael", "bf_emma", "bm_george", "af_bella", "am_puck", "af_nicole", "am_fenrir")
MEL = LogMel.Config(16000, n_fft=1024, hop=160)
LM_RATE = Trainer.Config(
    700, learning_rate=1e-3, warmup_steps=50, weight_decay=0.1, precision="bf16", eval_every=100, save_every=100
)
REPORTS: dict[str, Any] = {"eval_every": 500, "save_every": 500, "log_every": 50, "best_metric": "mel"}
GAN_RATE = Trainer.Config(
    3200, learning_rate=5e-4, betas=(0.8, 0.99), warmup_steps=200, max_grad_norm=10.0, ema_decay=0.999, **REPORTS
)


def mini_gslm() -> Recipe:
    """Whisper-tiny.en units -> a small Transformer -> Vocos on units, 16 kHz."""
    units = SSLUnits.Config("whisper-tiny.en", layer=2, clusters=500, deduplicate=True, standardize=True)
    lm = SpeechLM.Config(
        layout=Flat("units"),
        inputs={"units": Lookup()},
        backbone=Transformer.Config(num_layers=6, num_heads=5, dim=320, ffn_dim=896),
        heads={"units": Linear.Config(tied=True)},
        sampler=Sampler(Sampling(temperature=0.8, top_p=0.95)),
    )
    vocos: dict[str, Any] = {"upsample": 2, "dim": 256, "ffn_dim": 768, "num_layers": 8}
    opponents = (
        MultiPeriod.Config(channels=(16, 32, 64, 128, 128)),
        MultiResolution.Config(channels=8, sizes=(512, 1024)),
    )
    gan = VocoderGAN.Config(mel=MEL, warmup_steps=1500, stft_weight=1.0, judged_frames=25, discriminators=opponents)
    tokens, speech = PredictTokens(max_tokens=6144), TrainVocoder(gan, seconds=1.0, batch_size=12, voices=VOICES)
    return Recipe(
        name="mini_gslm",
        paper="after arXiv:2102.01192",
        streams={"units": Stream(units)},
        lms={"ulm": lm},
        vocoder=UnitVocos.Config("units", num_speakers=256, predict_durations=True, **vocos),
        stages=(
            TrainStage(name="pretrain", task=tokens, train=("lms.*",), trainer=LM_RATE),
            TrainStage(name="vocoder", task=speech, train=("vocoder.*",), trainer=replace(GAN_RATE, precision="bf16")),
        ),
    )
