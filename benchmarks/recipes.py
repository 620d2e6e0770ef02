"""Every recipe in its tiny form: updates of each of its stages, and generation by its language models.

The tokenizers have random encoders, so that nothing is fetched; what they make of a few recordings, with made-up
words, is what the stages learn from.
"""

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.tokenizing import recordings
from benchmarks.worker import Gate
from lalia.audio import Audio
from lalia.data import Manifest, Utterance, Word, discover, tokenize_corpus
from lalia.lm import Graph, SpeechLM
from lalia.model import Model, save_tokenizer
from lalia.model.producing import Wanted, produce
from lalia.model.speaking import is_duplex
from lalia.recipe import Recipe
from lalia.recipes import find
from lalia.train.conversations import make_conversations
from lalia.train.material import TOKENIZERS, Material
from lalia.train.preparing import RecipeStreams
from lalia.training import TrainStage
from lalia.training.gradients import backward, total_counts
from lalia.training.learner import Learner
from lalia.training.metrics import measure
from lalia.training.runtime import train_mode

__all__ = ["lalia"]

_FILES = 4
_SECONDS_PER_WORD = 0.4
_PROMPT_SECONDS = 1.0
_TOKENS_PER_SECOND = 25
"""Of streams without a clock."""


@dataclass(frozen=True)
class _Work:
    """A piece of work and how much it is.

    :param tokens: that are predicted; 0 where it is not known.
    :param seconds: of sound that is learned from or made; 0 where no clock tells.
    """

    do: Callable[[], object]
    steps: int
    tokens: float
    seconds: float


def lalia(gate: Gate, options: Mapping[str, Any]) -> dict[str, float]:
    """The only side; each round is every work once, and its answer has the times of each."""
    recipe = find(options["recipe"]).tiny()
    with tempfile.TemporaryDirectory() as folder:
        held = _material(recipe, Path(folder))
        works = {
            **{_name(stages): _training(recipe, held, stages[0], options["steps"]) for stages in _kinds(recipe)},
            "generate": _generation(Model(recipe, learned=held.learned), options["seconds"]),
        }
        amounts = {n: {"steps": w.steps, "tokens": w.tokens, "seconds": w.seconds} for n, w in works.items()}
        for _ in gate.rounds(works=amounts):
            spent = {}
            for name, work in works.items():
                wall, cpu = time.perf_counter(), time.process_time()
                work.do()
                spent[name] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            gate.note(works=spent)
    return {}


def _material(recipe: Recipe, folder: Path) -> Material:
    manifest = Manifest([_with_words(u) for u in discover(recordings()[:_FILES])])
    if len(recipe.channels) > 1:
        manifest = make_conversations(manifest, folder / "conversations", sample_rate=16000)
    maker = RecipeStreams(recipe)
    tokenize_corpus(manifest, maker, folder)
    for name in maker.names:
        if hasattr(maker.tokenizer(name), "weights"):
            save_tokenizer(maker.tokenizer(name), folder / TOKENIZERS / name)
    return Material.open([folder])


def _with_words(u: Utterance) -> Utterance:
    said = itertools.cycle(("the", "sea", "was", "calm", "and", "nobody", "spoke", "of", "it", "again"))
    count = int(u.duration / _SECONDS_PER_WORD)
    starts = (_SECONDS_PER_WORD * i for i in range(count))
    words = tuple(Word(next(said), start, start + 0.75 * _SECONDS_PER_WORD) for start in starts)
    return replace(u, words=words, text=" ".join(w.text for w in words))


def _kinds(recipe: Recipe) -> list[list[TrainStage]]:
    """The stages, those together that differ in data and duration alone."""
    alike: dict[Any, list[TrainStage]] = {}
    for stage in recipe.stages:
        alike.setdefault(repr((stage.task, stage.train, stage.lora)), []).append(stage)
    return list(alike.values())


def _name(stages: list[TrainStage]) -> str:
    return f"train {stages[0].name}" + (f" and {len(stages) - 1} alike" if len(stages) > 1 else "")


def _training(recipe: Recipe, held: Material, stage: TrainStage, steps: int) -> _Work:
    model = Model(recipe, learned=held.learned, identities=held.identities)
    stage.freeze(model.module)
    prepared = stage.task.prepare(model, held.stage_data(), 0)
    objective, settings = prepared.objective, stage.trainer
    learner = Learner(
        objective,
        learning_rates=dict.fromkeys(objective.players, settings.learning_rate),
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        no_decay=settings.no_decay,
        ema_decay=None,
    )
    train_mode(learner.modules)
    endless = itertools.chain.from_iterable(iter(prepared.batches) for _ in itertools.count())
    batches = list(itertools.islice(endless, steps))

    def do() -> None:
        for micro in batches:
            counts = total_counts(objective, micro, learner.device)
            for player in learner.players:
                with learner.turn(player):
                    backward(objective, player, micro, counts, nullcontext, settings.max_grad_norm)
                player.update(1.0)

    do()
    tokens, seconds = (sum(measure(b, what) for micro in batches for b in micro) for what in ("tokens", "seconds"))
    return _Work(do, steps, tokens, seconds)


def _generation(model: Model, seconds: float) -> _Work:
    """All language models of a recipe in turn, as ``lalia continue`` and ``lalia chat`` run them, but without ends."""
    recipe = model.recipe
    lms = {n: lm for n, lm in model.lms.items() if isinstance(lm, SpeechLM)}
    names = dict.fromkeys(s for n in lms for s in Graph(lms).streams(n))
    # One that answers hears the user; any other goes on with what it has said itself.
    answers = "user" in recipe.channels
    heard = [s for s in names if not answers or recipe.streams[s].channel == "user"]
    listens_on = answers and is_duplex(recipe)
    sound = Audio.load(recordings()[0], mono=True, seconds=_PROMPT_SECONDS + (seconds if listens_on else 0.0))
    known = model.listener.hear(dict.fromkeys(recipe.channels, sound), heard, text="", words=())
    known = {s: t for s, t in known.items() if s in names}
    total = seconds if answers and not listens_on else seconds + _PROMPT_SECONDS

    def tokens(stream: str) -> int:
        before = int(known[stream].lengths[0]) if stream in known else 0
        return before + math.ceil(_TOKENS_PER_SECOND * seconds)

    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    def do() -> Any:
        complete = heard if answers else []
        return produce(lms, known, Wanted(total, tokens, ends=False), complete=complete)

    hooks = [lm.register_forward_hook(count) for lm in lms.values()]
    made = do()
    for hook in hooks:
        hook.remove()
    new, clocks = 0, [0.0]
    for stream in {s for lm in lms.values() for s in lm.heads if s in made and s in recipe.streams}:
        tokens_made = int(made[stream].lengths[0]) - (int(known[stream].lengths[0]) if stream in known else 0)
        new += tokens_made * (made[stream].values.shape[1] if made[stream].discrete else 1)
        spec = recipe.streams[stream].spec
        if spec.clocked and spec.frame_rate is not None:
            clocks.append(tokens_made / spec.frame_rate)
    return _Work(do, calls, float(new), max(clocks))
