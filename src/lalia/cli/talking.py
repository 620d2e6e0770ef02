"""Commands of words: talk, transcribe, read out."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lalia.cli.console import show
from lalia.cli.options import (
    TALKING_MODEL,
    AudioPaths,
    Device,
    Dtype,
    Json,
    ModelName,
    Seed,
    SoundFile,
    Voice,
    check_sound_file,
    load_model,
    load_speaker,
    written,
)

__all__ = ["chat", "say", "transcribe"]


def chat(
    audio: Annotated[
        list[str] | None,
        typer.Argument(metavar="[AUDIO]...", help="What you say; several recordings are turns. - is standard input."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="What you type; again for another turn.")] = None,
    output: SoundFile = Path("reply.wav"),
    model: Annotated[str, typer.Option("--model", help="A model that answers: bundled, a directory, or a hub id.")] = (
        TALKING_MODEL
    ),
    lm: Annotated[
        str | None, typer.Option("--lm", help="Another text LM in the model: a directory, or a hub id.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instructions. [default: the model's]")] = None,
    seconds: Annotated[float, typer.Option(help="The longest answer.")] = 30.0,
    temperature: Annotated[float | None, typer.Option(help="Of sampling; 0 is greedy. [default: the model's]")] = None,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Write the answer, and do not speak it.")] = False,
    seed: Seed = 0,
    voice: Voice = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Talk to a model: one turn, or several of one conversation."""
    from lalia.errors import ConfigError

    turns = [(path, False) for path in audio or ()] + [(said, True) for said in text or ()]
    if not turns:
        raise ConfigError('Nothing was said. Give a recording, or --text "...".')
    speaker = load_model(model, device, dtype, lm)
    speak = not no_audio and speaker.vocoder is not None
    if speak:
        check_sound_file(output, speaker.vocoder.sample_rate)
    settings = {"seconds": seconds, "temperature": temperature, "seed": seed, "voice": voice, "speak": speak}
    if speaker.recipe.talk is None:
        if len(turns) > 1 or turns[0][1] or system is not None:
            raise ConfigError(f"Model {model!r} answers one recording, without instructions. Give it that.")
        replies = [(speaker.chat(turns[0][0], **settings), output)]
        if not as_json and replies[0][0].text:
            print(replies[0][0].text, flush=True)
    else:
        talk = speaker.dialogue(system=system, **settings)
        replies = [
            (_turn(talk, said, typed, quiet=as_json), _numbered(output, i)) for i, (said, typed) in enumerate(turns)
        ]
    results = [_save(reply, path, quiet=as_json) for reply, path in replies]
    if as_json:
        show(results[0] if len(results) == 1 else results, "", as_json=True)


def _turn(talk: Any, said: str, typed: bool, *, quiet: bool) -> Any:
    """A turn, of which the text is printed as it comes."""
    from lalia.model.dialogue import Heard, Said, Written

    reply = None
    for event in talk.turn(said, typed=typed):
        if isinstance(event, Said):
            reply = event.reply
        elif not quiet and isinstance(event, Heard) and event.text:
            print(f"> {event.text.strip()}", flush=True)
        elif not quiet and isinstance(event, Written):
            print(event.text, end="", flush=True)
    if not quiet:
        print(flush=True)
    return reply


def _numbered(output: Path, i: int) -> Path:
    """``reply.wav``, ``reply-2.wav``, ..."""
    return output.with_name(f"{output.stem}-{i + 1}{output.suffix}") if i else output


def _save(reply: Any, path: Path, *, quiet: bool) -> dict[str, Any]:
    said = reply.audio
    if said is not None:
        said.save(path)
    if not quiet:
        spoken = "nothing was said aloud" if said is None else f"{path}: {said.seconds:.1f} s of speech"
        first = reply.timings["first_audio_ms"] / 1000
        show(
            None,
            f"{spoken}, the first after {first:.2f} s; made in {reply.timings['total_ms'] / 1000:.1f} s",
            as_json=False,
        )
    return {
        "text": reply.text,
        **({"audio": None, "sample_rate": None, "seconds": 0.0} if said is None else written(said, path)),
        "timings": {k: round(v, 4) for k, v in reply.timings.items()},
    }


def transcribe(
    audio: AudioPaths,
    model: ModelName = TALKING_MODEL,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Write down what is said in recordings, one line for each."""
    listener = load_model(model, device, dtype)
    results = []
    for path in audio:
        results.append({"path": path, "text": listener.transcribe(path).strip()})
        if not as_json:
            print(results[-1]["text"], flush=True)
    if as_json:
        show(results, "", as_json=True)


def say(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to read out; - is standard input.")],
    output: SoundFile = Path("out.wav"),
    model: ModelName = TALKING_MODEL,
    voice: Voice = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Read a text out."""
    speaker = load_speaker(model, output, device, dtype)
    said = sys.stdin.read() if text == "-" else text
    started = time.perf_counter()
    made = speaker.say(said, voice=voice)
    took = time.perf_counter() - started
    made.save(output)
    result = {
        **written(made, output),
        "timings": {"total_ms": round(1000 * took, 1), "rtf": round(took / made.seconds, 4)},
    }
    show(result, f"{output}: {made.seconds:.1f} s of speech; made in {took:.1f} s", as_json=as_json)
