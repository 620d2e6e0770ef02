"""One model of several runs: ``export.py WORK OUTPUT``; and the cascade of the same parts beside it.

Each stage has a run of its own under WORK (``run-spell``, ``run-utter``, ``run-sound``), which left the best that it
found on held-out speech, or else stays as it was in OUTPUT; ``hearing.safetensors`` is what hears short sounds. Weights
are stored in 16 bits, but what the units' tokenizer learned is not: rounded units would be other units. The text LM
stays what its makers published, and is fetched.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from lalia.cli.console import tell
from lalia.errors import CheckpointError, LaliaError
from lalia.model import Model, load
from lalia.model.text_lm import fetched_of
from lalia.recipes import find
from lalia.store import write_description

STAGES = {"spell": "vocoder.stages.0.", "utter": "vocoder.stages.1.", "sound": "vocoder.vocoder."}
FETCHED = fetched_of("llm")


def part(run: Path, prefix: str, before: Path) -> dict[str, torch.Tensor]:
    """The weights of a stage from its run; of one that has not ended, the best so far.

    :param before: the model that was exported before, whose part it is where the stage was not run again.
    :raises CheckpointError: there are none.
    """
    found = [run / "model.safetensors", *sorted(run.glob("stages/*/best/model.safetensors"))]
    for path in [*found, before / "model.safetensors"]:
        if path.exists():
            return {n: t for n, t in load_file(path).items() if n.startswith(prefix)}
    raise CheckpointError(f"{run} holds no model. Train that stage first.")


def export(work: Path, output: Path) -> Path:
    """
    :raises CheckpointError: a run is missing, or of another recipe.
    """
    units = load("mini-gslm")
    learned = {"units": dict(units.tokenizer("units").weights())}
    hearing = work / "hearing.safetensors"
    if hearing.exists():
        learned["question"] = load_file(hearing)
    model = Model(find("mini"), learned=learned)
    state = model.module.state_dict()
    for stage, prefix in STAGES.items():
        tensors = part(work / f"run-{stage}", prefix, output)
        wanted = {n for n in state if n.startswith(prefix)}
        if set(tensors) != wanted:
            raise CheckpointError(f"{work}/run-{stage} is of another recipe ({min(set(tensors) ^ wanted)}).")
        state |= tensors
    model.module.load_state_dict(state)
    model.tokenizers.identities |= {s: model.tokenizer(s).identity for s in learned}
    model.save(output, dtype=torch.float16, fetched=FETCHED)
    cascade = find("cascade")
    write_description(
        output.parent / "cascade",
        "recipe",
        cascade,
        tokenizers={s: i for s, i in model.identities.items() if s in cascade.streams and s != "question"},
        fetched=list(FETCHED),
        weights={"of": output.name, "without": ["tokenizers.question.*", "lms.llm.inputs.question.*"]},
    )
    return output


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: export.py WORK OUTPUT")
    try:
        made = export(*map(Path, sys.argv[1:]))
    except LaliaError as error:
        sys.exit(f"error: {error}")
    tell(f"{made}: {sum(f.stat().st_size for f in made.iterdir()) / 1e6:.1f} MB")
