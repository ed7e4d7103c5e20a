"""Run benchmarks, keep what they measured in results.json, and show it: a table here and in docs/, a picture.

Usage: python -m benchmarks [NAME ...] [--servers] [--pairs N] [--quick]
"""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.options import Options
from benchmarks.pairs import PAIRS
from benchmarks.results import RESULTS, Figure, keep, load
from benchmarks.table import print_table, write_page

BENCHMARKS = ("ingest", "reads", "training", "freshness", "growth", "tikv_drivers")
"""Modules of this package; each has `run(options)`, which gives its figures."""


def main() -> int:
    """Run what is asked for; exit code 1 if a goal is missed in a run that is kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--servers", action="store_true", help="on Kafka, TiDB and TiKV instead of embedded")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"pairs a figure (default {PAIRS})")
    parser.add_argument("--quick", action="store_true", help="little work, figures not kept: does it run at all?")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    options = Options(asked.servers, asked.pairs, asked.quick)
    measured: list[Figure] = []
    for name in asked.names or BENCHMARKS:
        print(f"{name} …", flush=True)
        figures = list(importlib.import_module(f"benchmarks.{name}").run(options))
        if not options.quick:
            keep(figures)
        measured += figures
    print_table(measured)
    if not options.quick:
        from benchmarks import growth_figures, growth_picture, picture

        kept, conditions = load()
        pictures = f"{picture.draw(kept)}, {growth_picture.draw(kept)}"
        tables = f"{write_page(kept, conditions)}, {growth_figures.write_tables(kept)}"
        print(f"kept in {RESULTS}; tables: {tables}; pictures: {pictures}")
    return 1 if not options.quick and any(each.holds is False for each in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
