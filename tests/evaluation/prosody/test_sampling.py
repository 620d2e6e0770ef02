"""A tiny pGSLM goes on with one stream, all else as recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.data import Utterance
from lalia.errors import ConfigError
from lalia.evaluation.prosody import ProsodyStreams, evaluate_prosody
from lalia.model import Model
from lalia.recipes.gslm import gslm
from lalia.recipes.pgslm import pgslm

EXAMPLE = Path(__file__).parents[3] / "examples" / "question.flac"


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    made = Model(pgslm().tiny())
    clip = Audio.load(EXAMPLE).mono()
    for stream in made.recipe.streams:
        tokenizer = made.tokenizer(stream)
        if not getattr(tokenizer, "fitted", True):
            tokenizer.fit([clip])
    return made


def utterances(speaker: str | None = "s") -> list[Utterance]:
    seconds = Audio.load(EXAMPLE).seconds
    return [
        Utterance("a", EXAMPLE, duration=seconds, speaker=speaker),
        Utterance("b", EXAMPLE, duration=seconds / 2, speaker=speaker),
        Utterance("c", EXAMPLE, duration=0.3, start=0.5, speaker=speaker),
    ]


def test_pitch_and_durations_in_their_turn(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    lm: Any = model.lms["ulm"]
    asked: list[tuple[set[str], dict[str, int]]] = []
    whole = type(lm).generate

    def generate(self: Any, known: Any, **settings: Any) -> Any:
        (drawn,) = settings["limits"]
        sizes = {name: tokens.num_tokens for name, tokens in known.items()}
        asked.append((set(settings["complete"]), sizes))
        assert sizes.pop(drawn) < settings["limits"][drawn] == max(sizes.values()) == min(sizes.values())
        return whole(self, known, **settings)

    monkeypatch.setattr(type(lm), "generate", generate)
    found = evaluate_prosody(model, utterances(), prefix_frames=40, samples=3, shortest=0)
    assert [forced for forced, _ in asked] == [{"units", "durations"}, {"units", "log_f0"}] * 2
    assert (found["asked"], found["answered"], found["failed"]) == (3, 2, 1)
    assert found["failures"][0]["id"] == "c"
    assert "of which the prompt is to have 40" in found["failures"][0]["reason"]
    for kind in ("pitch", "durations"):
        figures = found["figures"][kind]
        assert figures["correctness"]["value"] > 0
        assert figures["expressiveness"]["value"] > 0
        assert figures["recorded"]["expressiveness"]["value"] > 0
        assert figures["correctness"]["n"] == 2
    again = evaluate_prosody(model, utterances()[::-1], prefix_frames=40, samples=3, shortest=0)
    assert again == found
    more = evaluate_prosody(model, utterances(), prefix_frames=40, samples=6, shortest=10**6)
    assert more["figures"]["pitch"]["consistency"]["value"] is None


def test_targets_are_relative_to_the_speaker(model: Model) -> None:
    from lalia.evaluation.prosody.sampling import _levels, _recorded

    names = ProsodyStreams.of(model)
    assert names == ProsodyStreams("ulm", "units", "durations", "log_f0")
    one, two, _ = utterances()
    level = _levels(model, names, [one, two])["s"]
    assert level == pytest.approx(model.tokenizer("log_f0").level([one.load().mono(), two.load().mono()]))
    known = _recorded(model, names, two, {"s": level}, 40).values
    alone = _recorded(model, names, two, {}, 40).values
    own = model.tokenizer("log_f0").level([two.load().mono()])
    assert alone["log_f0"] - known["log_f0"] == pytest.approx(np.full(len(known["log_f0"]), level - own), abs=1e-5)
    assert known["durations"].sum() == _recorded(model, names, two, {}, 40).frames
    assert known["durations"][: _recorded(model, names, two, {}, 40).prefix].sum() <= 40


def test_what_is_asked_for_wrongly(model: Model) -> None:
    for settings in ({"samples": 0}, {"prefix_frames": 0}, {"shortest": -1}):
        with pytest.raises(ConfigError, match="were asked for"):
            evaluate_prosody(model, utterances(), **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is for 'f0'"):
        evaluate_prosody(model, utterances(), temperature={"f0": 1.0})
    with pytest.raises(ConfigError, match="no language model of units with their durations"):
        ProsodyStreams.of(Model(gslm().tiny()))
    colder = evaluate_prosody(
        model, utterances()[1:2], prefix_frames=40, samples=2, temperature={"log_f0": 0.0, "durations": 0.0}
    )
    assert colder["settings"]["temperature"] == {"log_f0": 0.0, "durations": 0.0}
