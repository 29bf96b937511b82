"""Command: `python -m benchmarks.tables` rewrites the README's tables from `benchmarks/results/*.json`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, each on a line of its own; what stands there is
replaced by the table in `NAME.json` and the line that says how it was measured.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT, Table
from vae.files import write_atomically

_BLOCK = re.compile(r"^<!-- table: (?P<name>\w+) -->\n(?P<body>.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
_VERSIONS = {"torch": "torch", "Ray": "ray"}


def rewritten(text: str, results: Path) -> str:
    """The text with its tables made anew.

    Args:
        text: Markdown.
        results: the folder of the figures.

    Raises:
        FileNotFoundError: a table has no figures.
    """

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        record = json.loads((results / f"{name}.json").read_text())
        return f"<!-- table: {name} -->\n{_body(record)}\n<!-- end -->"

    return _BLOCK.sub(block, text)


def _body(record: dict[str, Any]) -> str:
    rows = record.get("rows", [])
    by_row = bool(rows) and all("revision" in row for row in rows)
    measured = _origin_of_rows(rows) if by_row else _origin(record)
    return f"\n{Table(**record['table']).markdown()}\n\n{measured}\n"


def _origin(record: dict[str, Any]) -> str:
    machine = record["machine"]
    parts = [machine["processor"], f"{machine['cores']} cores", *machine["gpus"]]
    parts += [f"{name} {record['versions'][key]}" for name, key in _VERSIONS.items() if key in record["versions"]]
    return f"`{record['command']}` at {record['revision']} on {record['date']}: {', '.join(parts)}."


def _origin_of_rows(rows: list[dict[str, Any]]) -> str:
    """Where a table comes from whose rows were recorded one by one."""
    revisions = list(dict.fromkeys(_short(row["revision"]) for row in rows))
    machines = Counter(row["machine"]["processor"] for row in rows)
    on = " and ".join(f"{name} ({count} rows)" for name, count in machines.items())
    return f"Recorded row by row at {', '.join(revisions)}, on {on}; the file of the figures has the command of each."


def _short(revision: str) -> str:
    """What is told of changes that were not committed stays."""
    commit, changed, more = revision.partition("+")
    return f"{commit[:7]}{changed}{more}"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: with --check, 1 if a table is out of date."""
    parser = argparse.ArgumentParser("python -m benchmarks.tables", description="Rewrites the README's tables.")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE", help="default: README.md")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a table is out of date")
    args = parser.parse_args(argv)
    text = args.readme.read_text()
    try:
        new = rewritten(text, args.results)
    except FileNotFoundError as error:
        print(f"{error.filename}: no such figures; run the benchmark that writes them.", file=sys.stderr)
        return 2
    if args.check:
        return int(new != text)
    if new != text:
        write_atomically(args.readme, new.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
