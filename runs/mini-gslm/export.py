"""One model of two runs: ``export.py VOCODER_RUN LM_RUN OUTPUT``.

Each run left the best that it found on held-out speakers. Weights are stored in 16 bits, but what the tokenizer
learned is not: rounded units would be other units.
"""

import sys
from pathlib import Path

import torch

from lalia.cli.console import tell
from lalia.errors import CheckpointError, LaliaError
from lalia.model import Model


def export(vocoder_run: Path, lm_run: Path, output: Path) -> Path:
    """
    :raises CheckpointError: a run is missing or has not come far enough, or the two do not fit.
    """
    model, other = Model.load(vocoder_run), Model.load(lm_run)
    if model.identities != other.identities:
        raise CheckpointError(f"{vocoder_run} and {lm_run} are of different units. Train both on the same.")
    if model.recipe.lms != other.recipe.lms:
        raise CheckpointError(f"{vocoder_run} and {lm_run} have different language models. Train both alike.")
    model.lms.load_state_dict(other.lms.state_dict())
    model.save(output, dtype=torch.float16)
    return output


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: export.py VOCODER_RUN LM_RUN OUTPUT")
    try:
        made = export(*map(Path, sys.argv[1:]))
    except LaliaError as error:
        sys.exit(f"error: {error}")
    tell(f"{made}: {sum(f.stat().st_size for f in made.iterdir()) / 1e6:.1f} MB")
