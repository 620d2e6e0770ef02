"""Draw what a dialogue does in time: ``timeline.py QUESTION.flac OUT.svg [MODEL]``.

The question is fed as it would be spoken, and everything that comes out is drawn where it came. The clock is this
machine's: run it while nothing else does.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from torch import Tensor

import lalia
from lalia.audio import Audio
from lalia.errors import LaliaError
from lalia.model.dialogue import Dialogue, Heard, Sound, Written

PIECE = 0.1
WIDTH, LEFT, RIGHT = 1000, 96, 16
BLUE, GREEN, GRAY, INK = "#3b6fb6", "#2f8f5b", "#9aa3ad", "#1f2933"
Moment = tuple[float, str]


def main(question: str, output: str, model: str = "mini") -> None:
    """Have the conversation, and write the picture."""
    talk = lalia.load(model).dialogue()
    talk.warm_up()
    asked = Audio.load(question, mono=True)
    drafts = list(listen(talk, asked))
    start = time.perf_counter()
    words: list[Moment] = []
    sounds: list[tuple[float, Audio]] = []
    for event in talk.turn():
        now = time.perf_counter() - start
        if isinstance(event, Heard):
            drafts.append((now, event.text))
        elif isinstance(event, Written):
            words.append((now, event.text))
        elif isinstance(event, Sound):
            sounds.append((now, event.audio))
    Path(output).write_text(draw(asked, drafts, words, sounds), encoding="utf-8")


def listen(talk: Dialogue, asked: Audio) -> Iterator[Moment]:
    """What is understood while the question is spoken, with the times before its end."""
    start, n = time.perf_counter(), round(PIECE * asked.sample_rate)
    last = ""
    for i in range(0, asked.samples.shape[-1], n):
        # A piece is there when it has been spoken.
        time.sleep(max(0.0, start + min(i + n, asked.samples.shape[-1]) / asked.sample_rate - time.perf_counter()))
        draft = talk.listen(Audio(asked.samples[..., i : i + n], asked.sample_rate))
        if draft != last:
            yield time.perf_counter() - start - asked.seconds, draft
            last = draft


def draw(asked: Audio, drafts: Sequence[Moment], words: Sequence[Moment], sounds: Sequence[tuple[float, Audio]]) -> str:
    """The picture, with the end of the question at 0 s."""
    first, end = sounds[0][0], sounds[0][0] + sum(a.seconds for _, a in sounds)
    low, high = -asked.seconds - 0.1, min(end, 6.0) + 0.1
    scale = (WIDTH - LEFT - RIGHT) / (high - low)

    def x(t: float) -> float:
        return LEFT + (min(max(t, low), high) - low) * scale

    parts = [f'<rect width="{WIDTH}" height="330" fill="white"/>']
    for y, name in ((52, "you"), (132, "heard"), (190, "written"), (270, "spoken")):
        parts.append(_text(LEFT - 14, y + 4, name, anchor="end", weight="600"))
    parts.append(_wave(asked.samples[0, 0], x(-asked.seconds), asked.seconds * scale, 52, GRAY))
    parts += [_line(x(t), 96, 142, BLUE) for t, _ in drafts]
    understood, question = drafts[-1]
    parts.append(_text(x(understood) - 4, 136, question, fill=BLUE, anchor="end"))
    row = 0.0
    for t, text in words:
        parts.append(_line(x(t), 160, 172, GREEN))
        at = max(x(t), row)
        if at + 7 * len(text) < WIDTH - RIGHT:
            parts.append(_text(at, 192, text.strip(), fill=GREEN))
            row = at + 7.2 * len(text.strip()) + 6
        else:
            parts.append(_text(min(at, WIDTH - RIGHT - 12), 192, "…", fill=GREEN))
            break
    at_time = first
    for made, audio in sounds:
        parts.append(_line(x(made), 222, 234, GREEN))
        shown = min(audio.seconds, high - at_time)
        if shown > 0:
            part = audio.samples[0, 0, : round(shown * audio.sample_rate)]
            parts.append(_wave(part, x(at_time), shown * scale, 270, GREEN))
        at_time += audio.seconds
    parts += [_line(x(t), 18, 306, INK) for t in (0.0, first)]
    parts.append(_text(x(0) - 4, 14, "the question ends", anchor="end"))
    parts.append(_text(x(first) + 4, 14, f"first sound, {1000 * first:.0f} ms later"))
    for t in range(int(low), int(high) + 1):
        parts.append(_line(x(t), 306, 311, INK))
        parts.append(_text(x(t), 324, f"{t} s", anchor="middle"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 330" font-family="sans-serif" font-size="12">\n'
        f"{body}\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, fill: str = INK, anchor: str = "start", weight: str = "400") -> str:
    style = f'fill="{fill}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, color: str) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="{color}"/>'


def _wave(samples: Tensor, x: float, width: float, y: float, color: str, height: float = 30.0) -> str:
    """The loudest sample of each pixel, up and down."""
    count = max(1, round(width))
    peaks = [float(part.abs().max()) for part in samples.tensor_split(count)]
    loudest = max(*peaks, 0.05)
    steps = "".join(
        f"M{x + i:.1f} {y - height * p / loudest:.1f}V{y + height * p / loudest:.1f}" for i, p in enumerate(peaks)
    )
    return f'<path d="{steps}" stroke="{color}"/>'


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: timeline.py QUESTION OUT.svg [MODEL]")
    try:
        main(*sys.argv[1:])
    except LaliaError as error:
        sys.exit(f"error: {error}")
