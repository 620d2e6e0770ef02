"""Whether how something is said changes the reply."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lalia.audio import Audio
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench, converse
from lalia.evaluation.benchmarks.bundled import TEXTS, recordings
from lalia.evaluation.statistics import bootstrap_ratio, sign_flip

__all__ = ["Tone", "deliveries"]

_PITCH = 1.15


def deliveries(number: int) -> Iterator[tuple[str, Audio]]:
    """The ways in which a sentence is said, the neutral one first.

    Whispered (another voice), slowly and fast by the synthesizer; loud, quiet, and higher or lower by playing it at
    another speed, from the neutral one.

    :param number: of the sentence, from 1.
    """
    spoken = {u.id.rpartition("-")[2]: u.load() for u in recordings(f"tone-{number}-")}
    neutral = spoken.pop("neutral")
    yield "neutral", neutral
    yield from spoken.items()
    peak = float(neutral.samples.abs().max())
    yield "loud", Audio(neutral.samples * (0.98 / peak), neutral.sample_rate)
    yield "quiet", Audio(neutral.samples * (0.05 / peak), neutral.sample_rate)
    for name, factor in (("higher", _PITCH), ("lower", 1 / _PITCH)):
        yield name, Audio(neutral.samples, round(neutral.sample_rate * factor)).to(neutral.sample_rate)


@dataclass(frozen=True)
class _Answer:
    """What was heard, the reply to it, and the reply to the same words, typed."""

    heard: str
    reply: str
    to_words: str


class Tone:
    """The same words in different deliveries: how many replies differ from that to the neutral one.

    Replies may differ because other words were heard. So the words that were heard are typed too, and what counts is
    how many more pairs differ when spoken, tested in pairs with the signs of whole sentences flipped. A pair of which
    one is not understood says nothing of tone, and is left out. A model that hears words alone has 0.
    """

    name = "tone"
    about = "replies that change with the tone of the voice"

    def check(self, model: Any) -> None:
        model.dialogue(speak=False)

    def run(self, bench: Bench) -> Found:
        count = len(TEXTS["tone"][: bench.limit])
        items: list[dict[str, Any]] = []
        for number in range(1, count + 1):
            told = [(name, _ask(bench, bench.model, s), _ask(bench, bench.peer, s)) for name, s in deliveries(number)]
            own = _differences([x for _, x, _ in told], bench.unclear_of(bench.model))
            peer = _differences([x for *_, x in told], bench.unclear_of(bench.peer))
            for i, (name, answer, other) in enumerate(told):
                items.append(
                    {"sentence": TEXTS["tone"][number - 1], "delivery": name, **_told(answer), "differs": own[i]}
                    | ({} if other is None else {"peer": {**_told(other), "differs": peer[i]}})
                )
            bench.progress("asking in other tones", number, count)
        pairs = _Pairs([x["differs"] for x in items], [x["sentence"] for x in items])
        figures = pairs.figures(bench.seed)
        p = {"words alone": sign_flip(pairs.beyond, seed=bench.seed)}
        if bench.peer is not None:
            others = _Pairs([x["peer"]["differs"] for x in items], [x["sentence"] for x in items])
            figures += others.figures(bench.seed, "peer_", f"{bench.peer_name}: ")
            more = [a - b for a, b in zip(pairs.beyond, others.beyond, strict=True)]
            p[str(bench.peer_name)] = sign_flip(more, seed=bench.seed)
        settings = {**bench.talking, "speak": False, "pitch": _PITCH, "peer": bench.peer_name, "p": p}
        notes = [f"beside {name}: p = {value:.4f} over {sum(pairs.pairs)} pairs" for name, value in p.items()]
        if not any(pairs.pairs):
            notes = ["no two deliveries of a sentence were understood"]
        return Found(figures, items, settings, notes)


def _ask(bench: Bench, model: Any, sound: Audio) -> _Answer | None:
    if model is None:
        return None
    heard, reply = converse(model, sound, **bench.talking, speak=False)
    return _Answer(heard, reply.text, bench.typed(model, heard) if heard.strip() else "")


def _told(answer: _Answer | None) -> dict[str, str]:
    return {} if answer is None else {"heard": answer.heard, "reply": answer.reply, "reply_to_words": answer.to_words}


Differs = Mapping[str, bool] | None


def _differences(answers: Sequence[_Answer | None], unclear: str | None) -> list[Differs]:
    """Whether each reply is another than the first, spoken and typed; None for the first, and where it says nothing."""
    first = answers[0]
    found: list[Differs] = [None]
    for answer in answers[1:]:
        if first is None or answer is None or unclear in (first.reply, answer.reply):
            found.append(None)
        else:
            found.append({"spoken": answer.reply != first.reply, "words": answer.to_words != first.to_words})
    return found


class _Pairs:
    """Counts by sentence: ``pairs``, those that differ when ``spoken``, and those ``beyond`` what the words explain."""

    def __init__(self, differs: Sequence[Differs], sentences: Sequence[str]) -> None:
        self.beyond, self.spoken, self.pairs = [], [], []
        for sentence in dict.fromkeys(sentences):
            pairs = [d for d, s in zip(differs, sentences, strict=True) if s == sentence and d is not None]
            self.pairs.append(len(pairs))
            self.spoken.append(sum(d["spoken"] for d in pairs))
            self.beyond.append(sum(d["spoken"] - d["words"] for d in pairs))

    def figures(self, seed: int, prefix: str = "", label: str = "") -> list[Figure]:
        words = [s - b for s, b in zip(self.spoken, self.beyond, strict=True)]
        columns = (
            ("beyond_words", self.beyond, "beyond what other words explain"),
            ("differ", self.spoken, "replies that differ"),
            ("differ_words", words, "replies to the words heard that differ"),
        )
        return [
            Figure(prefix + key, label + about, "share", bootstrap_ratio(values, self.pairs, seed=seed))
            for key, values, about in columns
        ]
