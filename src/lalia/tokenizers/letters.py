"""Letters: a text as it is read out, letter by letter; what a speech decoder spells."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lalia.config import Configurable
from lalia.errors import ConfigError
from lalia.streams import Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import identity_of
from lalia.tokenizers.spoken_form import spoken_word

__all__ = ["LetterStream", "Letters"]

_ALPHABET = " abcdefghijklmnopqrstuvwxyz',.?!;:-"

_PLAIN = str.maketrans("àáâãäåçèéêëìíîïñòóôõöøùúûüýÿ", "aaaaaaceeeeiiiinoooooouuuuyy")


class Letters(Configurable):
    """A text to ids [B, 1, T] of its spoken form: every word is preceded by a space, the first as well.

    Figures, signs and abbreviations are words first (English). Letters outside the alphabet lose their accents, or are
    left out.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        """
        :param alphabet: what there is, one id for each; it begins with the space.
        """

        alphabet: str = _ALPHABET

        def __post_init__(self) -> None:
            if self.alphabet[:1] != " " or len(set(self.alphabet)) < len(self.alphabet):
                raise ConfigError(f"Letters have the alphabet {self.alphabet!r}. Begin with a space; name each once.")

        @property
        def spec(self) -> StreamSpec:
            return StreamSpec(kind=Discrete(len(self.alphabet)), frame_rate=None)

    def __init__(self, config: Config) -> None:
        self.config, self.spec = config, config.spec
        self.identity = identity_of(config, {})
        self._ids = {c: i for i, c in enumerate(config.alphabet)}

    def encode(self, text: str | Sequence[str]) -> TokenSequence:
        """The ids of one text or of several."""
        rows = [self.stream().push(t, final=True) for t in ([text] if isinstance(text, str) else text)]
        return pad_batch(rows)

    def decode(self, tokens: TokenSequence) -> list[str]:
        """The spoken form of each row."""
        rows = (tokens.row(b).values[0, 0].tolist() for b in range(len(tokens)))
        return ["".join(self.config.alphabet[i] for i in row).strip() for row in rows]

    def stream(self) -> "LetterStream":
        """Spells a text as it comes."""
        return LetterStream(self)

    def spell(self, word: str) -> list[int]:
        """The ids of a word in its spoken form, with the space before each of its parts."""
        plain = " ".join(word.lower().replace("’", "'").translate(_PLAIN).split())
        spelled = [self._ids[c] for c in f" {plain}" if c in self._ids] if plain else []
        return spelled if any(self.config.alphabet[i].isalpha() for i in spelled) else spelled[1:]


class LetterStream:
    """A text in pieces to letters, word by word: a word is spelled once the space behind it has come."""

    def __init__(self, letters: Letters) -> None:
        self._letters, self._held, self._before = letters, "", ""

    def push(self, text: str, *, final: bool = False) -> TokenSequence:
        """The ids [1, 1, T] that this piece completes.

        :param final: the text ends here.
        """
        self._held += text
        words = self._held.split()
        unfinished = not final and self._held and not self._held[-1].isspace()
        self._held = words.pop() if unfinished and words else ""
        ids: list[int] = []
        for word in words:
            ids += self._letters.spell(spoken_word(word, self._before))
            self._before = word
        if final:
            self._before = ""
        return TokenSequence(torch.tensor(ids, dtype=torch.long)[None, None], torch.tensor([len(ids)]))
