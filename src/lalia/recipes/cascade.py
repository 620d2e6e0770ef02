"""cascade: recognise, answer in text, read out; the same parts as mini, and only words between them."""

from dataclasses import replace

from lalia.layouts import Concat, Flat
from lalia.lm import Lookup
from lalia.recipe import Recipe, Stream
from lalia.recipes.mini import mini
from lalia.tokenizers import Text, Transcript


def cascade() -> Recipe:
    """Whisper -> its one best text -> SmolLM2 -> sentences -> mini's speech decoder."""
    base = mini()
    llm, text, talk = base.lms["llm"], base.streams["text"].tokenizer, base.talk
    assert isinstance(text, Text.Config)
    assert talk is not None
    talk = replace(talk, manner=None, by_sentence=True)
    turns = Concat(tuple(Flat(s, closed=s == "text") for s in talk.streams))
    words = {s: c for s, c in base.streams.items() if s != "manner"}
    inputs = {s: c for s, c in llm.inputs.items() if s != "manner"}
    return replace(
        base,
        name="cascade",
        paper="the baseline of arXiv:2410.03751",
        streams={**words, "question": Stream(Transcript.Config(text), channel="user")},
        lms={"llm": replace(llm, layout=turns, inputs={**inputs, "question": Lookup(tied_to="text")})},
        talk=talk,
        stages=(),
    )
