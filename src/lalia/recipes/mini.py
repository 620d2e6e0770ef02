"""mini: the default model, to be talked to on a laptop; close to Freeze-Omni, LLaMA-Omni and DiVA in kind."""

from dataclasses import replace

from lalia.nn.spectral import LogMel
from lalia.recipe import Recipe, Stream
from lalia.recipes.mini_gslm import GAN_RATE, mini_gslm
from lalia.tokenizers import Letters, Phones, Pitch
from lalia.training import Trainer, TrainPart, TrainStage, TrainVocoder
from lalia.vocoders import G2P, Chain, UnitFastSpeech, UnitVocos

VOICES = ("af_heart", "am_michael", "af_bella")
MEL = LogMel.Config(24000, n_fft=1024, hop=256, bins=100)
FAST = Trainer.Config(
    6000, learning_rate=1e-3, warmup_steps=200, weight_decay=0.01, precision="bf16", eval_every=250, save_every=250
)


def mini() -> Recipe:
    """Letters -> phones -> units and pitch -> Vocos on these, 24 kHz; all of it as the text comes."""
    gslm = mini_gslm()
    gan = gslm.stages[1].task
    assert isinstance(gan, TrainVocoder)
    speech = replace(gan, gan=replace(gan.gan, mel=MEL), voices=VOICES)
    return Recipe(
        name="mini",
        paper="after arXiv:2411.00774 and arXiv:2409.06666",
        streams={
            **gslm.streams,
            "pitch": Stream(Pitch.Config(voicing=True)),
            "phones": Stream(Phones.Config()),
            "letters": Stream(Letters.Config()),
        },
        lms={},
        vocoder=Chain.Config(
            stages=(G2P.Config("letters"), UnitFastSpeech.Config("phones", num_speakers=8)),
            vocoder=UnitVocos.Config(
                "units",
                sample_rate=24000,
                num_speakers=8,
                predict_durations=True,
                conditions=("pitch",),
                upsample=2,
                dim=384,
                ffn_dim=1024,
                num_layers=8,
                lookahead=1,
            ),
        ),
        stages=(
            TrainStage(
                name="spell", task=TrainPart("phones", max_tokens=12_000), train=("vocoder.stages.0.*",), trainer=FAST
            ),
            TrainStage(
                name="speak",
                task=TrainPart("units", max_tokens=8000, voices=VOICES),
                train=("vocoder.stages.1.*",),
                trainer=FAST,
            ),
            TrainStage(
                name="vocoder",
                task=speech,
                train=("vocoder.vocoder.*",),
                trainer=replace(GAN_RATE, max_steps=30_000, precision="bf16"),
            ),
        ),
    )
