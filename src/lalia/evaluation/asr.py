"""Speech recognition by Whisper, made to be a measure: the same words every time, and no silent omissions."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.data import Word
from lalia.errors import ConfigError, DataError
from lalia.evaluation.alignment import attention_scores, monotonic_path
from lalia.evaluation.energy import mean_power, speech_span
from lalia.files import sha256

__all__ = ["Whisper", "read_segments"]

_SAMPLE_RATE = 16_000
_WINDOW = 30.0
_FRAME_RATE = 50
"""Frames of the encoder, and steps of a timestamp, per second."""

_SPACE = "\u0120"
"""How byte-level BPE writes a space."""

_FIRST_MERGE = (_SPACE, "t")

_MISSED = 1.0
_SHORTEST_ADVANCE = 0.5
_TOKENS, _TOKENS_PER_SECOND = 16, 10


class Whisper:
    """English transcripts and word times by Whisper (Radford et al., arXiv:2212.04356), on the CPU in float32.

    What keeps its known faults out of a measurement:

    - *Chance.* Greedy search (or beam search) at temperature 0, without the fallback to sampling; nothing
      is conditioned on earlier text. A batch gives what its recordings give alone, but for rounding.
    - *Omission.* Whisper stops early on some recordings, typically after a chapter heading. It decodes with
      timestamps, and where it says it stopped more than 1 s before the speech (by its power) ends, the rest
      is decoded by itself and appended. Recordings over 30 s are done in the same way, window by window.
    - *Repetition.* A looping transcript is cut at 16 tokens + 10 per second of sound, over twice as
      many as fast speech has. The loop up to there still counts as the insertions that it is.

    On speech that is not there it invents words; those count too, and nothing is filtered after the fact.

    :param weights: ``whisper-base``, ``whisper-tiny.en``, or the folder or hub id of another Whisper.
    :param batch_size: windows decoded at once; it changes speed and memory only.
    :param num_beams: 1 is greedy.
    :param resume: decode what was left out. Off, it is the plain recogniser, for comparison.
    :raises WeightsError: the weights cannot be had.
    """

    def __init__(
        self, weights: str | Path = "whisper-base", *, batch_size: int = 4, num_beams: int = 1, resume: bool = True
    ) -> None:
        if batch_size < 1 or num_beams < 1:
            raise ConfigError(f"Whisper has batch_size {batch_size} and num_beams {num_beams}. Give at least 1.")
        import transformers

        folder = fetch(weights)
        self.name = Path(weights).name
        self._folder, self.batch_size, self.num_beams, self.resume = folder, batch_size, num_beams, resume
        files = sorted(folder.glob("*.safetensors"))
        search = "greedy" if num_beams == 1 else f"{num_beams} beams"
        self.version = ", ".join(
            (
                f"weights {'+'.join(sha256(file)[:12] for file in files)}",
                f"transformers {transformers.__version__}",
                f"float32 {search} with timestamps",
                *(["resumed where it stops early"] if resume else []),
            )
        )
        self._parts: tuple[Any, Any] | None = None

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            from transformers import WhisperForConditionalGeneration, WhisperProcessor

            # Attention weights, which place the words, are only had from the plain implementation.
            with quiet():
                model = WhisperForConditionalGeneration.from_pretrained(
                    self._folder, dtype=torch.float32, attn_implementation="eager"
                )
                self._parts = model.eval(), WhisperProcessor.from_pretrained(self._folder)
        return self._parts

    # -- recognition ---------------------------------------------------------------------------

    @torch.inference_mode()
    def __call__(self, recordings: Sequence[Audio]) -> list[str]:
        """The text of each recording (row 0, mono), with case and punctuation.

        :raises DataError: a recording has more than one row.
        """
        rows = [_prepare(audio) for audio in recordings]
        ends = [speech_span(mean_power(row))[1] / _SAMPLE_RATE for row in rows]
        texts: list[list[str]] = [[] for _ in rows]
        pending = [(i, 0.0) for i in range(len(rows))]
        while pending:
            now, pending = pending[: self.batch_size], pending[self.batch_size :]
            goes_on = [ends[i] > start + _WINDOW for i, start in now]
            decoded = self._decode([rows[i].cut(start, _WINDOW) for i, start in now], goes_on)
            for (i, start), more, (text, reached) in zip(now, goes_on, decoded, strict=True):
                texts[i].append(text)
                if more or (self.resume and ends[i] - (start + reached) > _MISSED):
                    pending.append((i, start + reached))
        return [" ".join(part for part in parts if part) for parts in texts]

    def _decode(self, windows: Sequence[Audio], goes_on: Sequence[bool]) -> list[tuple[str, float]]:
        """The text of each window, and how many seconds of it that covers.

        :param goes_on: whether there is speech behind the window.
        """
        model, processor = self._load()
        caps = [_TOKENS + round(_TOKENS_PER_SECOND * window.seconds) for window in windows]
        prompt = len(self._prompt(timestamps=True))
        with quiet():
            sequences = model.generate(
                input_features=self._features(windows),
                return_timestamps=True,
                force_unique_generate_call=True,
                return_dict_in_generate=True,
                num_beams=self.num_beams,
                do_sample=False,
                max_new_tokens=min(max(caps), model.config.max_target_positions - prompt),
                **({"language": "en", "task": "transcribe"} if model.generation_config.is_multilingual else {}),
            ).sequences
        results = []
        for ids, cap, window, more in zip(sequences.tolist(), caps, windows, goes_on, strict=True):
            said, reached = read_segments(
                ids[prompt:][:cap],
                num_text=processor.tokenizer.convert_tokens_to_ids("<|endoftext|>"),
                first_timestamp=model.generation_config.no_timestamps_token_id + 1,
                seconds=window.seconds,
                goes_on=more,
            )
            results.append((processor.tokenizer.decode(said, skip_special_tokens=True).strip(), reached))
        return results

    def _features(self, pieces: Sequence[Audio]) -> torch.Tensor:
        _, processor = self._load()
        samples = [piece.samples[0, 0].numpy() for piece in pieces]
        features: torch.Tensor = processor(samples, sampling_rate=_SAMPLE_RATE, return_tensors="pt").input_features
        return features

    def _prompt(self, *, timestamps: bool) -> list[int]:
        model, _ = self._load()
        config = model.generation_config
        prompt = [config.decoder_start_token_id]
        if config.is_multilingual:
            prompt += [config.lang_to_id["<|en|>"], config.task_to_id["transcribe"]]
        return prompt if timestamps else [*prompt, config.no_timestamps_token_id]

    def _encoder(self) -> Any:
        """Text to tokens, as the model was trained to see it.

        Copies of the multilingual tokenizer are about that lack its first merge (a space and a "t"). They read
        tokens as they should, but write " the" as two that the model never says.
        """
        from tokenizers import Tokenizer

        data = json.loads((self._folder / "tokenizer.json").read_text(encoding="utf-8"))
        merges = data["model"]["merges"]
        pairs = [tuple(m.split(" ") if isinstance(m, str) else m) for m in merges]
        if _FIRST_MERGE not in pairs and "".join(_FIRST_MERGE) in data["model"]["vocab"]:
            data["model"]["merges"] = [_FIRST_MERGE, *pairs]
        return Tokenizer.from_str(json.dumps(data))

    # -- word times ----------------------------------------------------------------------------

    @torch.inference_mode()
    def align(self, audio: Audio, text: str) -> tuple[Word, ...]:
        """Where the words of a text are in a recording, of at most 30 s.

        The decoder is given the text, and the heads that the checkpoint names as following the sound say where.
        A word ends where its punctuation begins, if it has any: that is where a pause lies. Times by whisper-base
        are good to about 0.1 s; those by whisper-tiny.en are 0.15 s late.

        :raises DataError: the recording is longer, or the text has too many tokens for it.
        """
        model, processor = self._load()
        row = _prepare(audio)
        if row.seconds > _WINDOW:
            raise DataError(f"The recording lasts {row.seconds:.1f} s. Align at most {_WINDOW:.0f} s at a time.")
        tokenizer, prompt = processor.tokenizer, self._prompt(timestamps=False)
        ids = self._encoder().encode(f" {' '.join(text.split())}", add_special_tokens=False).ids if text.strip() else []
        frames = round(row.seconds * _FRAME_RATE)
        if len(prompt) + len(ids) + 1 > model.config.max_target_positions or len(ids) + 1 > frames:
            raise DataError(f"A text of {len(ids)} tokens does not fit {row.seconds:.2f} s of sound. Check the text.")
        if not ids:
            return ()
        encoded = model.model.encoder(self._features([row])).last_hidden_state
        decoded = model.model.decoder(
            input_ids=torch.tensor([[*prompt, *ids]]), encoder_hidden_states=encoded, output_attentions=True
        )
        heads = model.generation_config.alignment_heads
        attention = torch.stack([decoded.cross_attentions[layer][0, head] for layer, head in heads])
        # The step that reads a token predicts the next: the first token is said at the last step of the prompt,
        # and the step of the last one predicts the end, which takes the silence behind the speech.
        starts = monotonic_path(attention_scores(attention[:, len(prompt) - 1 :, :frames].double().numpy()))
        return _words(tokenizer, ids, [float(s) / _FRAME_RATE for s in starts])


def read_segments(
    ids: Sequence[int], *, num_text: int, first_timestamp: int, seconds: float, goes_on: bool
) -> tuple[list[int], float]:
    """What a window of tokens with timestamps says, and how many seconds of the window that covers.

    Segments are ``<start> text <end>``. One that was opened and not closed runs to the end of the window; if
    there is speech behind it, it was cut in two, and is left to the window that begins where it does (§3.8).

    :param num_text: text has the ids below this.
    :param first_timestamp: the id of 0.00 s; each one above it is 0.02 s later.
    :param seconds: the length of the window.
    :param goes_on: whether there is speech behind the window.
    :returns: ids of the text, and at least half a second, so that every recording comes to an end.
    """
    kept = [i for i in ids if i < num_text or i >= first_timestamp]
    stamps = [n for n, i in enumerate(kept) if i >= first_timestamp]
    text = [i for i in kept if i < num_text]
    if not stamps:
        return text, seconds
    last = (kept[stamps[-1]] - first_timestamp) / _FRAME_RATE
    if last < _SHORTEST_ADVANCE:
        return text, seconds
    if stamps[-1] == len(kept) - 1:
        return text, min(last, seconds)
    if goes_on:
        return [i for i in kept[: stamps[-1]] if i < num_text], min(last, seconds)
    return text, seconds


def _prepare(audio: Audio) -> Audio:
    if len(audio) != 1:
        raise DataError(f"The recording has {len(audio)} rows. Give one at a time.")
    return audio.row(0).mono().to(_SAMPLE_RATE)


def _words(tokenizer: Any, ids: Sequence[int], starts: Sequence[float]) -> tuple[Word, ...]:
    """Words out of tokens; ``starts`` has one more value than there are tokens, the end of the last."""
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    openings = [i for i, piece in enumerate(pieces) if i == 0 or piece.startswith(_SPACE)]
    words = []
    for a, b in pairwise([*openings, len(ids)]):
        spoken = [i for i in range(a, b) if any(c.isalnum() for c in tokenizer.decode([ids[i]]))]
        if spoken:
            text = tokenizer.decode(list(ids[a:b])).strip()
            words.append(Word(text, starts[spoken[0]], starts[spoken[-1] + 1]))
    return tuple(words)
