"""A codec in half precision, as it is bundled: rounded first, so that it is the same codec once it is read."""

import sys
from pathlib import Path

from lalia.model import load_tokenizer
from lalia.store import write_description, write_weights


def main(source: str, target: str) -> None:
    """Write the codec of one folder into another."""
    codec = load_tokenizer(source)
    halves = {name: t.half() for name, t in codec.weights().items()}
    codec.load_weights({name: t.float() for name, t in halves.items()})
    write_weights(Path(target), halves)
    write_description(Path(target), "tokenizer", codec.config, identity=codec.identity)


if __name__ == "__main__":
    main(*sys.argv[1:])
