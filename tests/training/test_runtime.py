import sys

import pytest

from lalia.training.runtime import MemoryGuard, resident_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's C library is asked")
def test_freed_memory_is_given_back() -> None:
    guard = MemoryGuard()
    if guard._trim is None:
        pytest.skip("this C library cannot give memory back")
    guard.check()
    # Blocks too small to be mapped alone; one in a hundred stays and holds the heap open.
    blocks = [bytes(100_000) for _ in range(6000)]
    blocks[:] = [b"x" * 100_000 for _ in blocks]
    kept = blocks[::100]
    blocks.clear()
    before = resident_bytes()
    guard.check()
    assert resident_bytes() < before - (200 << 20)
    assert len(kept) == 60
    after = guard._least
    guard.check()
    assert guard._least == after, "nothing has grown, so nothing is given back"
