"""Fails when a package is installed that breaks speech models by its mere presence."""

import importlib.metadata
import importlib.util
import sys

HARMFUL = ("torchaudio", "torchcodec")
"""Both install beside a CPU build of torch but cannot load there, and transformers then refuses its speech models."""


def find_harmful() -> list[str]:
    """Those of HARMFUL that can be imported or are installed here."""
    installed = {distribution.name.lower() for distribution in importlib.metadata.distributions() if distribution.name}
    return [name for name in HARMFUL if name in installed or importlib.util.find_spec(name) is not None]


def main() -> int:
    """Print what to do about them; 1 when there are any."""
    found = find_harmful()
    if found:
        print(
            f"error: {' and '.join(found)} found, beside which lalia's speech models cannot load. "
            f"Run: {sys.executable} -m pip uninstall {' '.join(found)}",
            file=sys.stderr,
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
