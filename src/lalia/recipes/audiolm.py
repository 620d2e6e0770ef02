"""AudioLM (Borsos et al. 2022): meaning first, then sound, coarse before fine, by three language models."""

from lalia.layouts import Concat, Flat
from lalia.lm import Linear, Lookup, SpeechLM, Transformer
from lalia.recipe import Recipe, Stream
from lalia.tokenizers import Codec, ResidualVQ, SEANet, SSLUnits
from lalia.training import PredictTokens, Trainer, TrainStage
from lalia.vocoders import CodecDecoder


def audiolm() -> Recipe:
    """w2v-BERT units -> 4 coarse codes of a SoundStream -> 8 fine ones -> its decoder."""
    codec = Codec.Config(16000, SEANet(strides=(2, 4, 5, 8)), ResidualVQ.Config(1024, 12))
    backbone = Transformer.Config(num_layers=12, num_heads=16, dim=1024, ffn_dim=4096, activation="gelu", dropout=0.1)

    def lm(*streams: str) -> SpeechLM.Config:
        parts = tuple(Flat(s) for s in streams)
        return SpeechLM.Config(
            layout=Concat(parts),
            inputs={s: Lookup() for s in streams},
            backbone=backbone,
            heads={streams[-1]: Linear.Config()},
        )

    def stage(name: str, seconds: float) -> TrainStage:
        trainer = Trainer.Config(1_000_000, learning_rate=3e-4, warmup_steps=2000, precision="bf16")
        task = PredictTokens(name, max_tokens=32768, seconds=seconds)
        return TrainStage(name=name, task=task, train=(f"lms.{name}.*",), trainer=trainer)

    return Recipe(
        name="audiolm",
        paper="arXiv:2209.03143",
        streams={
            "semantic": Stream(SSLUnits.Config("w2v-bert-xl", layer=7, clusters=1024, pool=2, deduplicate=True)),
            "codes": Stream(codec),
            "coarse": Stream(codec, codebooks=(0, 4)),
            "fine": Stream(codec, codebooks=(4, 12)),
        },
        lms={"semantic": lm("semantic"), "coarse": lm("semantic", "coarse"), "fine": lm("coarse", "fine")},
        vocoder=CodecDecoder.Config("codes", codec),
        stages=(stage("semantic", 30.0), stage("coarse", 10.0), stage("fine", 3.0)),
        notes={
            "unverified": "the shape of the language models, 0.3 B each, and the numbers of the stages",
            "weights": "none were published: neither w2v-BERT XL nor this SoundStream",
        },
    )
