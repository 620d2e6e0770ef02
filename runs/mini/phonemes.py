"""Text with its phonemes, without sound: ``phonemes.py MATERIALS OUTPUT [--most N]``, for the stage that spells.

The phonemes are those that Kokoro is given, by espeak-ng, of the text as it is read out (figures as words). Of this
there can be as much as there is text: pronunciation needs many words, and speech few.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from kokoro_onnx.tokenizer import Tokenizer

from lalia.cli.console import progress, tell
from lalia.data import ShardWriter, TokenRow, info_of
from lalia.data.synthesis import shuffled, split_sentences
from lalia.errors import LaliaError
from lalia.recipes.mini import mini
from lalia.tokenizers.spoken_form import spoken_form

LONGEST, AT_ONCE = 250, 64
SEEN = 6
"""A sentence of words that were all seen so often teaches nothing new."""


def texts(materials: Path) -> Iterator[str]:
    """Sentences of all prose and facts, and of what the model asks and answers."""
    for line in (materials / "prose.jsonl").read_text("utf-8").splitlines():
        yield from split_sentences(json.loads(line)["text"])
    for name in ("facts.txt", "replies.txt", "questions.txt"):
        if (materials / name).exists():
            yield from (materials / name).read_text("utf-8").splitlines()


def of_rare_words(sentences: list[str]) -> list[str]:
    """Those that have a word which was not seen often before."""
    seen: Counter[str] = Counter()
    kept = []
    for sentence in sentences:
        words = re.findall(r"[a-z']+|\d+", sentence.lower())
        if any(seen[word] < SEEN for word in words):
            kept.append(sentence)
            seen.update(words)
    return kept


def main() -> None:
    """Read the command line, and write token shards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("materials", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--most", type=int, help="sentences")
    given = parser.parse_args()
    materials, output = given.materials, given.output
    streams = mini().streams
    letters, phones = (streams[name].tokenizer.build() for name in ("letters", "phones"))
    found = (" ".join(text.split()) for text in texts(materials))
    chosen = of_rare_words(shuffled([text for text in found if 3 < len(text) <= LONGEST], seed=5))[: given.most]
    espeak = Tokenizer()
    info = {"letters": info_of(letters), "phones": info_of(phones)}
    with ShardWriter(output, info) as writer, progress("Phonemizing", "sentences") as report:
        for first in range(0, len(chosen), AT_ONCE):
            for i, text in enumerate(chosen[first : first + AT_ONCE], first):
                spelled = letters.encode(text)
                spoken = phones.spell(" ".join(espeak.phonemize(spoken_form(text)).split()))
                if spelled.num_tokens > 3 and 1 < spoken.num_tokens < 3 * spelled.num_tokens:
                    streams_ = {"letters": spelled, "phones": spoken}
                    writer.write(TokenRow(f"{i:06d}", spoken.num_tokens / 12, streams_, text=text))
            report(min(first + AT_ONCE, len(chosen)), len(chosen))
    tell(f"{output}: {len(chosen)} sentences")


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main()
    except LaliaError as error:
        sys.exit(f"error: {error}")
