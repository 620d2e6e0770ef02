"""The voice of a reply: text to sound as it is written, and which part of it is heard at what time."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from lalia.audio import Audio
from lalia.model.memory import tokens_of
from lalia.tokenizers import Letters

if TYPE_CHECKING:
    from lalia.model.model import Model

__all__ = ["Speech", "Spoken"]

_FEWEST, _MOST = 8, 48
"""Letters that wait before the speech decoder is run again. Few at first, for what plays by then is short and must
not run dry; twice as many each time, for a run costs the same whatever little it makes."""


class Speech:
    """Text to sound as it comes.

    :param whole: sentence by sentence, each by itself, as a synthesizer does that has to see a sentence to its end.
    """

    def __init__(self, model: "Model", voice: int | None, *, whole: bool) -> None:
        vocoder = model.vocoder
        assert vocoder is not None
        (self._stream,) = vocoder.reads
        letters = model.tokenizer(self._stream)
        assert isinstance(letters, Letters)
        self._vocoder, self._voice, self._writer, self._whole = vocoder, voice, letters.stream(), whole
        self._ends = torch.tensor([letters.config.alphabet.index(c) for c in ".?!" if c in letters.config.alphabet])
        self._state = vocoder.init_state(1)
        self._waiting = torch.zeros(0, dtype=torch.long)
        self._pushed, self._sounded, self._final = 0, False, False
        # Before all that it looks ahead at is there, a run would give nothing.
        self._enough = 1 if whole else 1 + vocoder.ahead

    @property
    def share(self) -> float:
        """Of the letters of the text so far, those that are in the sound; 1 where nothing is missing."""
        if self._final:
            return 1.0
        ahead = 0 if self._whole else self._vocoder.ahead
        return max(self._pushed - ahead, 0) / max(self._pushed + len(self._waiting), 1)

    def push(self, text: str, *, final: bool = False) -> Audio | None:
        """The sound that is certain by now; None where it is too little to be worth a run of the network."""
        self._waiting = torch.cat([self._waiting, self._writer.push(text, final=final).values[0, 0]])
        ready = len(self._waiting)
        if self._whole and not final:
            ends = torch.isin(self._waiting, self._ends).nonzero()
            ready = int(ends[-1]) + 1 if len(ends) else 0
        if not final and ready < self._enough:
            return None
        letters, self._waiting = self._waiting[:ready], self._waiting[ready:]
        self._pushed += ready
        self._final = final
        with torch.inference_mode():
            made = self._vocoder.decode(
                {self._stream: tokens_of(letters)}, self._state, final=final or self._whole, speaker=self._voice
            )
        if not self._whole:
            self._enough = min(2 * self._enough, _MOST) if self._sounded else _FEWEST
            self._sounded = self._sounded or made.samples.shape[-1] > 0
        return Audio(made.samples.float().cpu(), made.sample_rate)


@dataclass
class Spoken:
    """Which part of a reply is heard at what time.

    ``marks``: seconds of sound so far, and how many characters of the text are in it.
    """

    text: str = ""
    marks: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])

    def add(self, seconds: float, share: float) -> None:
        """Another piece of sound, after which this share of the letters of the text is voiced.

        Figures are spelled with more letters than they have: that is why it is a share.
        """
        # A word that may go on is not spelled yet.
        spelled = len(self.text) if share == 1 else self.text.rfind(" ") + 1
        self.marks.append((self.marks[-1][0] + seconds, spelled * share))

    def until(self, seconds: float) -> str:
        """The words of the text that were said by then; between two marks, letters take equally long."""
        if seconds >= self.marks[-1][0]:
            said = self.marks[-1][1]
        else:
            (start, before), (end, after) = next((a, b) for a, b in pairwise(self.marks) if seconds < b[0])
            said = before + max(seconds - start, 0.0) / (end - start) * (after - before)
        return self.text if said >= len(self.text) else self.text[: max(self.text.rfind(" ", 0, int(said) + 1), 0)]
