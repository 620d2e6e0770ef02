import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from training_toy import make, reports

from lalia.training import checkpoint, distributed

# Adam divides by the size of gradients: with a tiny eps it would blow rounding up where a gradient is all but zero.
SETTINGS: dict[str, Any] = {"max_steps": 10, "micro_batches": 2, "ema_decay": 0.9, "eval_every": 5, "save_every": 5}
SETTINGS |= {"eps": 1e-4}


def torchrun(run: Path, **settings: Any) -> None:
    program = Path(__file__).parent / "training_toy.py"
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(program), str(run), json.dumps(settings)]
    subprocess.run(command, check=True, env=environment, timeout=200, capture_output=True)


def assert_close(run: Path, other: Path) -> None:
    for split in ("train", "validation"):
        ours, theirs = reports(run, split), reports(other, split)
        assert [row["step"] for row in ours] == [row["step"] for row in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-6, rel=1e-6)
    for name in ("parameters", "average"):
        ours, theirs = (load_file(checkpoint.path_of(r, 10) / f"{name}.safetensors") for r in (run, other))
        for key, value in theirs.items():
            if key != "model.seen":  # counts forward passes, of which there are more with more micro-batches
                torch.testing.assert_close(ours[key], value, atol=1e-6, rtol=1e-6)


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Rows of unequal length, batches that one rank gets nothing of, and a branch that only rank 0 uses."""
    make(tmp_path / "one", **{**SETTINGS, "micro_batches": 1}).fit()
    torchrun(tmp_path / "two", **SETTINGS)
    assert_close(tmp_path / "two", tmp_path / "one")
    # What two processes began, one can finish.
    state = checkpoint.path_of(tmp_path / "two", 5)
    assert json.loads((state / "state.json").read_text())["world_size"] == 2
    (checkpoint.path_of(tmp_path / "two", 10) / "complete.json").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        make(tmp_path / "two", **SETTINGS).fit(resume=True)
    assert_close(tmp_path / "two", tmp_path / "one")


def test_alone_nothing_is_joined() -> None:
    with distributed.process_group("cpu") as world:
        assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
        assert distributed.is_main()
        assert distributed.sum_floats([1, True], world.device) == [1.0, 1.0]
        x = torch.ones(2)
        assert distributed.sum_over_ranks(x) is x
    assert not torch.distributed.is_initialized()


@given(
    sizes=st.lists(st.tuples(st.integers(0, 40), st.sampled_from([torch.float32, torch.int64])), max_size=20),
    limit=st.integers(1, 60),
)
def test_buckets_cover_every_tensor_once_in_order(sizes: list[tuple[int, torch.dtype]], limit: int) -> None:
    tensors = [torch.zeros(n, dtype=dtype) for n, dtype in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "BUCKET_ELEMENTS", limit)
        buckets = list(distributed._buckets(tensors))
    assert [id(t) for bucket in buckets for t in bucket] == [id(t) for t in tensors]
    for bucket in buckets:
        assert len({t.dtype for t in bucket}) == 1
        assert len(bucket) == 1 or sum(t.numel() for t in bucket) <= limit
