"""Commands that listen and speak without words."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lalia.cli.console import show
from lalia.cli.options import (
    DEFAULT_MODEL,
    AudioPath,
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

__all__ = ["continue_", "resynthesize", "score"]

_OUT = Path("out.wav")


def continue_(
    audio: AudioPath,
    output: SoundFile = _OUT,
    model: ModelName = DEFAULT_MODEL,
    prompt_seconds: Annotated[float, typer.Option(help="How much of the recording to listen to.")] = 3.0,
    seconds: Annotated[float, typer.Option(help="How long to go on.")] = 10.0,
    temperature: Annotated[float | None, typer.Option(help="Of sampling; 0 is greedy. [default: the model's]")] = None,
    seed: Seed = 0,
    voice: Voice = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Go on speaking where a recording stops, without any text."""
    speaker = load_speaker(model, output, device, dtype)
    made = speaker.continue_(
        audio, prompt_seconds=prompt_seconds, seconds=seconds, temperature=temperature, seed=seed, voice=voice
    )
    made.audio.save(output)
    total = sum(made.timings.values())
    result = {
        "audio": str(output),
        "sample_rate": made.audio.sample_rate,
        "seconds": made.audio.seconds,
        "prompt_seconds": made.prompt_seconds,
        "tokens": made.tokens,
        "timings": {k.replace("_seconds", "_ms"): round(1000 * v, 1) for k, v in made.timings.items()}
        | {"total_ms": round(1000 * total, 1), "rtf": round(total / made.audio.seconds, 4)},
    }
    show(
        result,
        f"{output}: {made.audio.seconds:.1f} s of speech, the first {made.prompt_seconds:.1f} s of it the prompt; "
        f"made in {total:.1f} s",
        as_json=as_json,
    )


def resynthesize(
    audio: AudioPath,
    output: SoundFile = _OUT,
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", "--model", help="A model with a vocoder, or a codec.")
    ] = DEFAULT_MODEL,
    voice: Voice = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Encode a recording to tokens and vocode it back: what a model hears."""
    speaker = _load_codec(tokenizer, output) or load_speaker(tokenizer, output, device, dtype)
    speaker.voice(voice)
    recording = speaker.hear(audio)
    started = time.perf_counter()
    tokens = speaker.encode(recording)
    out = speaker.decode(tokens, voice=voice)
    took = time.perf_counter() - started
    out.save(output)
    count = sum(int(t.lengths[0]) for t in tokens.values())
    result = {
        **written(out, output),
        "tokens": count,
        "tokens_per_second": round(count / recording.seconds, 2),
        "timings": {"total_ms": round(1000 * took, 1), "rtf": round(took / recording.seconds, 4)},
    }
    show(result, f"{output}: {out.seconds:.1f} s from {count} tokens; made in {took:.1f} s", as_json=as_json)


def score(
    audio: AudioPaths,
    model: ModelName = DEFAULT_MODEL,
    reduction: Annotated[Literal["sum", "mean"], typer.Option(help="Over the tokens of a recording.")] = "sum",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Log-probability (nats) of recordings under a textless language model."""
    judge = load_model(model, device, dtype)
    # All are read once before the first is judged, so that a bad one stops the command before it printed anything;
    # what can be read again is not kept, for there may be hours of it.
    heard = {i: judge.hear(path) for i, path in enumerate(audio) if path == "-"}
    for i, path in enumerate(audio):
        if i not in heard and len(audio) > 1:
            judge.hear(path)
    results = []
    for i, path in enumerate(audio):
        s = judge.score(heard.get(i, path))
        value = s.sum if reduction == "sum" else s.mean
        results.append(
            {
                "path": path,
                "log_prob": value,
                "reduction": reduction,
                "tokens": s.tokens,
                "sum": s.sum,
                "mean": s.mean,
                "end_log_prob": s.end,
            }
        )
        if not as_json:
            print(f"{value:.4f}\t{s.tokens}\t{path}", flush=True)
    if as_json:
        show(results, "", as_json=True)


class _CodecSpeaker:
    """A codec alone, which hears and speaks as a model does."""

    speech_stream = "codes"

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def voice(self, voice: int | str | None) -> None:
        from lalia.errors import ConfigError

        if voice is not None:
            raise ConfigError("A codec speaks in the voice that it heard. Leave out --voice.")

    def hear(self, path: str) -> Any:
        from lalia.audio import Audio

        return Audio.load(path, mono=True, sample_rate=self.codec.sample_rate)

    def encode(self, recording: Any) -> dict[str, Any]:
        return {self.speech_stream: self.codec.encode(recording)}

    def decode(self, tokens: Any, *, voice: int | str | None = None) -> Any:
        return self.codec.decode(tokens[self.speech_stream])


def _load_codec(name: str, output: Path) -> _CodecSpeaker | None:
    """A codec whose sound can be written; None where the name is that of something else than a tokenizer."""
    from lalia.errors import ConfigError
    from lalia.model import find, holds_tokenizer, load_tokenizer

    folder = find(name)
    if not holds_tokenizer(folder):
        return None
    tokenizer = load_tokenizer(folder)
    if not hasattr(tokenizer, "decode"):
        raise ConfigError(f"{name} holds a tokenizer that cannot speak. Name a model with a vocoder, or a codec.")
    check_sound_file(output, tokenizer.sample_rate)
    return _CodecSpeaker(tokenizer)
