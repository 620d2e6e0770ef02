"""mini: the default model, to be talked to on a laptop; close to Freeze-Omni, LLaMA-Omni and DiVA in kind."""

from dataclasses import replace
from typing import Any

from lalia.layouts import Concat, Flat
from lalia.lm import HF, Linear, Lookup, Project, Sampler, Sampling, SpeechLM
from lalia.nn.spectral import LogMel
from lalia.recipe import Recipe, Stream, Talk
from lalia.recipes.mini_gslm import GAN_RATE, mini_gslm
from lalia.tokenizers import Letters, Manner, Phones, Pitch, SoftText, Text
from lalia.training import DistillText, Trainer, TrainPart, TrainStage
from lalia.vocoders import G2P, Chain, SourceVocos, UnitFastSpeech

LM, VOICES, MEL = "smollm2-135m-instruct", ("af_heart", "am_michael", "af_bella"), LogMel.Config(24000, bins=100)
RATE = Trainer.Config(4000, learning_rate=1e-3, warmup_steps=200, eval_every=100, save_every=100, precision="bf16")
FIT = replace(RATE, max_steps=300, learning_rate=1e-4, warmup_steps=20, weight_decay=0.0, eval_every=50)
SOUND = replace(GAN_RATE, max_steps=30_000, precision="bf16")
SPEAKS: dict[str, Any] = {"sample_rate": 24000, "num_speakers": 8, "predict_durations": True, "conditions": ("pitch",)}
SIZES: dict[str, Any] = {"upsample": 2, "dim": 384, "ffn_dim": 1024, "num_layers": 8, "lookahead": 1}


def mini() -> Recipe:
    """Whisper's words with its doubts, and how they are said -> SmolLM2 -> letters -> units and pitch -> Vocos."""
    talk, gslm = Talk(manner="manner"), mini_gslm()
    gan: Any = gslm.stages[1].task
    text, around = Text.Config(LM, vocabulary_size=49152, end=2), Lookup(tied_to="text")
    user: Any = {"question": SoftText.Config(text=LM), "manner": Manner.Config(text=LM), "typed": text}
    own: Any = {"text": text, "letters": Letters.Config(), "phones": Phones.Config()}
    heard, same = Project.Config(identity=True), Project.Config(identity=True, tied_to="question")
    llm = SpeechLM.Config(
        layout=Concat(tuple(Flat(s, closed=s in ("question", "text")) for s in talk.streams)),
        inputs={"before": around, "question": heard, "manner": same, "after": around, "text": Lookup()},
        backbone=HF.Config(LM),
        heads={"text": Linear.Config(tied=True)},
        sampler=Sampler(Sampling(temperature=0.0)),
    )
    vocos = SourceVocos.Config("units", **SPEAKS, **SIZES)
    sound: Any = replace(gan, gan=replace(gan.gan, mel=MEL, warmup_steps=1500), voices=VOICES)
    spell, utter = TrainPart("phones", max_tokens=6000), TrainPart("units", max_tokens=3000, voices=VOICES)
    return Recipe(
        name="mini",
        paper="after arXiv:2411.00774 and arXiv:2409.06666",
        streams={
            **dict.fromkeys(("before", "after"), Stream(text, text="")),
            **{name: Stream(tokenizer, channel="user") for name, tokenizer in user.items()},
            **{name: Stream(tokenizer) for name, tokenizer in own.items()},
            **gslm.streams,
            "pitch": Stream(Pitch.Config(voicing=True, normalize=None)),
        },
        lms={"llm": llm},
        vocoder=Chain.Config((G2P.Config("letters"), UnitFastSpeech.Config("phones", num_speakers=8)), vocos),
        talk=talk,
        stages=(
            TrainStage(name="spell", task=spell, train=("vocoder.stages.0.*",), trainer=RATE),
            TrainStage(name="utter", task=utter, train=("vocoder.stages.1.*",), trainer=RATE),
            TrainStage(name="sound", task=sound, train=("vocoder.vocoder.*",), trainer=SOUND),
            TrainStage(name="adapt", task=DistillText(), train=("lms.llm.inputs.*",), trainer=FIT, init="mini"),
        ),
    )
