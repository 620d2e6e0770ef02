"""What can be told of the mini sets without hearing what they ask: ``check.py SETS [MODEL]``.

SETS is a folder with sets that were made (``lalia.evaluation.sets.make_set``). Of each it prints, by task:

- how often a judge is right that knows nothing but how long and how loud recordings are: it must be chance;
- how often a text LM (SmolLM2-135M) is right that reads what is said: the most that can be hoped for;
- how often MODEL is right (mini-gslm when not given).

And how many words whisper-base gets wrong of the sentences: what cannot be understood cannot be judged.
"""

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lalia
from lalia.audio import Audio
from lalia.checkpoints import fetch
from lalia.cli.console import tell
from lalia.evaluation import Basic, Whisper, bootstrap_ratio, load_pairs, score_pairs, word_edits
from lalia.evaluation.pairs import Pair
from lalia.evaluation.sets.balance import level
from lalia.evaluation.statistics import Estimate, mean

FOLDS, STEPS = 5, 300
UNDERSTOOD = 40


def by_unit(pairs: Sequence[Pair], wins: Sequence[float]) -> Estimate:
    """The accuracy, whose interval is over what is asked, not over how many voices read it."""
    of: dict[str, list[float]] = defaultdict(list)
    for p, win in zip(pairs, wins, strict=True):
        of[p.id].append(win)
    return mean([float(np.mean(w)) for w in of.values()])


def deaf(pairs: Sequence[Pair]) -> dict[str, Estimate]:
    """Judges by length, by loudness, and by both with weights that were learned on others (5 folds)."""
    features = []
    for p in pairs:
        a, b = Audio.load(p.positive), Audio.load(p.negative)
        features.append([a.seconds - b.seconds, level(a) - level(b)])
    x = np.array(features)
    x = np.where(np.abs(x) < 1e-6, 0, x) / (x.std(axis=0) + 1e-9)
    longer, louder = ((np.sign(x[:, i]) + 1) / 2 for i in (0, 1))
    # What belongs together has one number: learning of one half of it would give the other half away.
    units = [re.match(r"\d+|\D+", p.id)[0] for p in pairs]  # type: ignore[index]
    order = sorted(set(units))
    random.Random(0).shuffle(order)
    fold = np.array([order.index(u) % FOLDS for u in units])
    wins = np.zeros(len(pairs))
    for k in range(FOLDS):
        train, weights = x[fold != k], np.zeros(2)
        for _ in range(STEPS):
            weights += 0.5 * (train / (1 + np.exp(train @ weights))[:, None]).mean(axis=0)
        wins[fold == k] = (np.sign(np.round(x[fold == k] @ weights, 9)) + 1) / 2
    return {name: by_unit(pairs, w) for name, w in (("longer", longer), ("louder", louder), ("learned", wins))}


class Reader:
    """A causal text LM that says how likely a text is."""

    def __init__(self, name: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = fetch(name)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.start = self.tokenizer.convert_tokens_to_ids("<|endoftext|>")

    @torch.inference_mode()
    def __call__(self, text: str) -> tuple[float, float]:
        """(Sum, mean) of the log-probabilities of its tokens."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        logits = self.model(torch.tensor([[self.start, *ids]])).logits[0, :-1].log_softmax(-1)
        total = float(logits.gather(-1, torch.tensor(ids)[:, None]).sum())
        return total, total / len(ids)


def read(pairs: Sequence[Pair], reader: Reader) -> dict[str, Estimate]:
    """How often the text of the positive is likelier, by sum and by mean."""
    asked = {p.id: p for p in pairs}
    wins: dict[str, list[float]] = {"sum": [], "mean": []}
    for p in asked.values():
        start = f"{p.prompt_text} " if p.prompt_text else ""
        scores = [reader(f"{start}{text}") for text in (p.positive_text, p.negative_text)]
        for name, a, b in zip(wins, *scores, strict=True):
            wins[name].append(0.5 if a == b else float(a > b))
    return {name: mean(w) for name, w in wins.items()}


def understood(files: Sequence[tuple[Path, str]]) -> Estimate:
    """The word error rate of whisper-base on some of the recordings."""
    chosen = random.Random(0).sample(list(files), min(UNDERSTOOD, len(files)))
    normalize = Basic()
    heard = Whisper("whisper-base")([Audio.load(path) for path, _ in chosen])
    edits = [word_edits(normalize(text), normalize(h)) for (_, text), h in zip(chosen, heard, strict=True)]
    return bootstrap_ratio([e.errors for e in edits], [e.length for e in edits])


def show(name: str, found: dict[str, Estimate]) -> None:
    """A line of figures."""
    tell(f"  {name:10}" + "   ".join(f"{key} {e.percent()}" for key, e in found.items()))


def main() -> None:
    """Read the command line, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", type=Path)
    parser.add_argument("model", nargs="?", default="mini-gslm")
    given = parser.parse_args()
    reader, model = Reader("smollm2-135m-instruct"), lalia.load(given.model)
    for manifest in sorted(given.sets.glob("*/pairs.jsonl")):
        pairs = load_pairs(manifest)
        tell(manifest.parent.name)
        if not any(p.split is not None and p.positive_text == p.negative_text for p in pairs):
            said = [(p.positive, " ".join(filter(None, (p.prompt_text, p.positive_text)))) for p in pairs]
            show("whisper", {"WER": understood(said)})
        scored = score_pairs(model, pairs)
        ordered = sorted(pairs, key=lambda p: p.key)
        assert len(scored["items"]) == len(ordered), scored["failures"]
        for task in dict.fromkeys(p.task for p in pairs):
            of = [p for p in pairs if p.task == task]
            tell(f" {task}: {len(of)} pairs")
            show("deaf", deaf(of))
            if any(p.positive_text != p.negative_text for p in of):
                show("text", read(of, reader))
            heard = [(p, i["wins"]) for p, i in zip(ordered, scored["items"], strict=True) if p.task == task]
            show(
                given.model,
                {r: by_unit([p for p, _ in heard], [w[r] for _, w in heard]) for r in ("sum", "mean")},
            )


if __name__ == "__main__":
    main()
