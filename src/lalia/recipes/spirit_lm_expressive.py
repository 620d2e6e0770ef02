"""SpiRit-LM expressive (Nguyen et al. 2024): spans of speech with pitch and style tokens among its units, and text."""

from dataclasses import replace

from lalia.layouts import Switch
from lalia.lm import Linear, Lookup
from lalia.recipe import Recipe, Stream
from lalia.recipes.spirit_lm import spirit_lm
from lalia.recipes.twist import VOCODER
from lalia.tokenizers import PitchVQ, Style
from lalia.training import Interleave, PredictTokens


def spirit_lm_expressive() -> Recipe:
    """Units, pitch and style merged by time, and text by turns -> Llama 2 -> a unit HiFi-GAN that has all three."""
    base = spirit_lm()
    beside = ("style", "pitch")
    own = ("switch", "speech", "text", *beside)
    (stage,) = base.stages
    return replace(
        base,
        name="spirit_lm_expressive",
        streams={
            **base.streams,
            "style": Stream(Style.Config("facebook/wav2vec2-base", clusters=100)),
            "pitch": Stream(PitchVQ.Config(clusters=64)),
        },
        lms={
            "lm": replace(
                base.lms["lm"],
                layout=Switch(("speech", "text"), beside={"speech": beside}),
                inputs={s: Lookup("all") for s in own},
                heads={s: Linear.Config() for s in own},
            )
        },
        vocoder=replace(VOCODER, stream="speech", num_speakers=4, conditions=beside),
        stages=(
            replace(
                stage,
                task=PredictTokens(
                    interleave=Interleave("speech", "text", first_words=(5, 15), second_words=(10, 30), beside=beside),
                    max_tokens=1_000_000,
                    max_length=4096,
                ),
            ),
        ),
        notes={
            "departure": "k-means in place of the pitch's VQ-VAE and the style's classifier; lalia's pitch tracker",
            "unverified": "four speakers of the vocoder (those of Expresso)",
        },
    )
