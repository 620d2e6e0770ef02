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
    turns = Concat(tuple(Flat(s, closed=s == "text") for s in ("before", "question", "after", "text")))
    return replace(
        base,
        name="cascade",
        paper="the baseline of arXiv:2410.03751",
        streams={**base.streams, "question": Stream(Transcript.Config(text), channel="user")},
        lms={"llm": replace(llm, layout=turns, inputs={**llm.inputs, "question": Lookup(tied_to="text")})},
        talk=replace(talk, by_sentence=True),
        stages=(),
    )
