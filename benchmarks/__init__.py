"""How fast lalia is, beside a named peer on the same machine at the same time: ``python -m benchmarks``."""
