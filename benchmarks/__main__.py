"""``python -m benchmarks [NAME...]``: measure, and print a table for each group."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.cases import CASES, Case, find
from benchmarks.measure import Failed, Machine, Probe, measure, measure_works
from benchmarks.report import Measured, as_data, heading, serving_table, table, turns_table, works_table
from benchmarks.serving import measure_serving
from benchmarks.turns import measure_turns
from lalia.files import atomic_write

_TABLES = {"recipes": works_table, "chat": turns_table, "serve": serving_table}
"""Of the groups that have another than the others."""


def main() -> int:
    """Exit status 1 when a case could not be measured, 2 for a wrong request; a missed aim is no failure."""
    groups = list(dict.fromkeys(case.group for case in CASES))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="How fast lalia is, beside a peer on the same machine."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(groups)}, or a case (--list); default: all"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--quick", action="store_true", help="less work in a round, and 3 rounds")
    parser.add_argument(
        "--rounds", type=int, help="turns of each side (default: 7, with --quick 3; chat: a question each)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each side (default: all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to a file, too")
    options = parser.parse_args()
    try:
        cases = find(options.names)
    except KeyError as error:
        parser.error(f"there is no benchmark {error}; name {', '.join(groups)}, or a case that --list shows")
    if options.list:
        print("\n".join(case.label for case in cases))
        return 0
    rounds = options.rounds if options.rounds is not None else 3 if options.quick else 7
    if rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"there is no folder {options.json.parent} for --json")

    machine = Machine.here(options.threads)
    print(heading(machine), flush=True)
    results: dict[str, Measured] = {}
    with Probe(options.threads) as probe:
        for group in groups:
            members = [case for case in cases if case.group == group]
            for case in members:
                how = {"threads": options.threads, "quick": options.quick, "tell": _teller(case)}
                try:
                    if group == "recipes":
                        results[case.label] = measure_works(case, rounds=rounds, **how)
                    elif group == "chat":
                        results[case.label] = measure_turns(case, **how)
                    elif group == "serve":
                        results[case.label] = measure_serving(case, quick=options.quick, tell=how["tell"])
                    else:
                        results[case.label] = measure(case, probe, rounds=rounds, **how)
                except Failed as error:
                    results[case.label] = str(error)
            if members:
                _clear()
                shown = _TABLES.get(group, table)(members, results)
                print("\n" + shown, flush=True)
    if options.json is not None:
        with atomic_write(options.json) as temporary:
            temporary.write_text(json.dumps(as_data(machine, results), indent=1) + "\n", encoding="utf-8")
    return int(any(isinstance(result, str) for result in results.values()))


def _teller(case: Case) -> Callable[[str], None]:
    def tell(text: str) -> None:
        _clear()
        if sys.stderr.isatty():
            print(f"{case.label}: {text}", end="", file=sys.stderr, flush=True)

    return tell


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
