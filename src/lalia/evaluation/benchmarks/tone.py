"""Whether how something is said changes the reply."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from lalia.audio import Audio
from lalia.evaluation.benchmarks.base import Figure, Found
from lalia.evaluation.benchmarks.bench import Bench
from lalia.evaluation.benchmarks.bundled import TEXTS, recordings
from lalia.evaluation.benchmarks.conversing import replied
from lalia.evaluation.benchmarks.kept import Answer, Item, Kept
from lalia.evaluation.benchmarks.steps import InSteps
from lalia.evaluation.memory import fingerprint
from lalia.evaluation.significance import sign_flip
from lalia.evaluation.statistics import bootstrap_ratio

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


class Tone(InSteps):
    """The same words in different deliveries: how many replies differ from that to the neutral one.

    Replies may differ because other words were heard. So the words that were heard are typed too, and what counts is
    how many more pairs differ when spoken, tested in pairs with the signs of whole sentences flipped. A pair of which
    one is not understood, or has no reply, says nothing of tone, and is left out. A model that hears words alone has 0.
    """

    name = "tone"
    about = "replies that change with the tone of the voice"
    one_by_one = True

    def check(self, model: Any) -> None:
        model.dialogue(speak=False)

    def settings(self, bench: Bench) -> Mapping[str, Any]:
        return bench.talking

    def items(self, bench: Bench) -> list[Item]:
        found = []
        for number in range(1, len(TEXTS["tone"][: bench.limit]) + 1):
            for name, sound in _deliveries(number).items():
                asks = {"sentence": number, "delivery": name, "talking": dict(bench.talking)}
                found.append(Item.of(_id(number, name), asks, {"sound": fingerprint(sound)}))
        return found

    def ask(self, model: Any, items: Sequence[Item]) -> Sequence[Answer]:
        return [
            replied(model, _deliveries(x["sentence"])[x["delivery"]], None, x["talking"])
            for x in (i.asks for i in items)
        ]

    def answers(self, bench: Bench) -> Kept:
        own = self._both(bench, super().answers(bench))
        if bench.against is None:
            return own
        return replace(own, peer=self._both(bench.against, super().answers(bench.against)))

    def _both(self, bench: Bench, spoken: Kept) -> Kept:
        """What was heard, the reply to it, and the reply (``to_words``) to the same words, typed."""
        typed = bench.typed(a["heard"] for a in spoken.answers.values() if a["heard"].strip())
        told = {text: a["reply"] for text, a in typed.answers.items()}
        found: dict[str, Answer] = {}
        failed = dict(spoken.failed)
        for key, a in spoken.answers.items():
            if a["heard"] in typed.failed:
                failed[key] = typed.failed[a["heard"]]
            else:
                found[key] = {**a, "to_words": told.get(a["heard"], "")}
        return Kept(None, spoken.header, found, failed)

    def score(self, bench: Bench, kept: Kept) -> Found:
        items: list[dict[str, Any]] = []
        for number, sentence in enumerate(TEXTS["tone"][: bench.limit], start=1):
            names = list(_deliveries(number))
            sides = [
                [side.answers.get(_id(number, name)) for name in names]
                for side in ([kept] if kept.peer is None else [kept, kept.peer])
            ]
            differs = [_differences(side) for side in sides]
            for i, name in enumerate(names):
                own, *peer = ({**_told(side[i]), "differs": d[i]} for side, d in zip(sides, differs, strict=True))
                items.append({"sentence": sentence, "delivery": name, **own} | ({"peer": peer[0]} if peer else {}))
        pairs = _Pairs([x["differs"] for x in items], [x["sentence"] for x in items])
        figures = pairs.figures(bench.seed)
        p = {"words alone": sign_flip(pairs.beyond, seed=bench.seed)}
        if kept.peer is not None:
            others = _Pairs([x["peer"]["differs"] for x in items], [x["sentence"] for x in items])
            figures += others.figures(bench.seed, "peer_", f"{bench.peer_name}: ")
            more = [a - b for a, b in zip(pairs.beyond, others.beyond, strict=True)]
            p[str(bench.peer_name)] = sign_flip(more, seed=bench.seed)
        settings = {**self.settings(bench), "speak": False, "pitch": _PITCH, "peer": bench.peer_name, "p": p}
        notes = [f"beside {name}: p = {value:.4f} over {sum(pairs.pairs)} pairs" for name, value in p.items()]
        if not any(pairs.pairs):
            notes = ["no two deliveries of a sentence were understood"]
        return Found(figures, items, settings, notes)


def _id(number: int, delivery: str) -> str:
    return f"{number}-{delivery}"


@cache
def _deliveries(number: int) -> Mapping[str, Audio]:
    return dict(deliveries(number))


def _told(answer: Answer | None) -> dict[str, str]:
    if answer is None:
        return {}
    return {"heard": answer["heard"], "reply": answer["reply"], "reply_to_words": answer["to_words"]}


Differs = Mapping[str, bool] | None


def _differences(answers: Sequence[Answer | None]) -> list[Differs]:
    """Whether each reply is another than the first, spoken and typed; None for the first, and where it says nothing."""
    first = answers[0]
    found: list[Differs] = [None]
    for answer in answers[1:]:
        if first is None or answer is None or first["unclear"] or answer["unclear"]:
            found.append(None)
        else:
            found.append({k: answer[x] != first[x] for k, x in (("spoken", "reply"), ("words", "to_words"))})
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
