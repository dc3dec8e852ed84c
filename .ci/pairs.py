#!/usr/bin/env python3
"""Compares the outputs of .ci/pairs: .ci/pairs.py FOLDER reads the Markdown tables that the benchmarks printed there.

A pair gives one ratio, new/old. The report has the median of these ratios, and an interval for the true median, which is the median of all
possible pairs. The confidence of the interval follows from ranks alone, for every distribution of the ratios: the true median lies outside
the k-th smallest and the k-th largest of n ratios with the probability 2 P(Binomial(n, 1/2) < k). The script takes the largest k with a
confidence of at least 95 %. With five ratios, the confidence is 93.75 %: no interval of five ratios has more.
"""

import math
import re
import statistics
import sys
from pathlib import Path

# The benchmark, the name of the figure, and its place: the head of its table, the beginning of its row, the number of its cell, from 1.
# The last word is the kind of the figure: `ours`, where less is better, or a `control`, which does not depend on our code.
FIGURES = [
    *(
        (bench, figure, r"^\| median", row, 2, kind)
        for bench in ("replay", "anvil")
        for figure, row, kind in [
            ("start to last row, s", "seconds from start to last row", "ours"),
            ("last row to last index, s", "seconds from there to the last index", "ours"),
            ("indexer: CPU, µs an event", "indexer: CPU", "ours"),
            ("PostgreSQL: CPU, µs an event", "PostgreSQL: CPU", "ours"),
            ("node: CPU, µs an event", "node: CPU", "ours"),
            ("indexer: peak RSS, MB", "indexer: peak RSS", "ours"),
            ("the rows copied raw, rows/s", "ruler of typed rows only", "control"),
        ]
    ),
    *(
        (bench, f"{figure}, {rows}", r"^\| situations, median", row, cell, kind)
        for bench in ("young", "outage", "midnight", "busy-day", "devnet")
        for rows, cell in [("raw + typed", 2), ("typed", 3)]
        for figure, row, kind in [
            ("start to last row, s", "seconds from start to last row", "ours"),
            ("last row to last index, s", "seconds from there to the last index", "ours"),
            ("events/s to the last row", r"\*\*events/s, to the last row", "ours"),
            ("events/s to the last index", "events/s, to the last index", "ours"),
            ("indexer: CPU, µs an event", "indexer: CPU", "ours"),
            ("PostgreSQL: CPU to the last row, µs an event", "PostgreSQL: CPU to the last row", "ours"),
            ("PostgreSQL: CPU to the last index and a VACUUM, µs an event", "PostgreSQL: CPU to the last index", "ours"),
            ("bytes an event", "bytes an event", "ours"),
            ("the rows copied raw, events/s", "ruler: the same rows", "control"),
        ]
    ),
    *(
        ("latency", f"{figure}{what}, ms", r"^\| mined block to visible rows", row, cell, kind)
        for figure, row in [
            ("1 event, 1/s", "1 event a block, 1 a second "),
            ("100 events, 1/s", "100 events a block, 1 a second "),
            ("1 event, 10/s", "1 event a block, 10 a second "),
            ("100 events, 10/s", "100 events a block, 10 a second "),
            ("1 event, 10/s, beside a load", "1 event a block, 10 a second,"),
            ("100 events, 10/s, beside a load", "100 events a block, 10 a second,"),
        ]
        for what, cell, kind in [(": p50", 2, "ours"), (": p50 of the floor", 5, "control")]
    ),
    *(
        ("reorg", f"{blocks}: {figure}, ms", r"^\| rows stored", rf"[0-9]+ \| {blocks},", cell, "ours")
        for blocks in ("3 blocks", "64 blocks")
        for figure, cell in [("unwind", 3), ("append", 4), ("together", 5)]
    ),
    ("retire", "a day goes, ms", r"^\| [0-9]+ rows of a day go", "ours:", 2, "ours"),
    ("retire", "longest COPY meanwhile, ms", r"^\| beside a writer and a reader", "ours:", 3, "ours"),
    ("retire", "by DELETE and VACUUM, ms", r"^\| [0-9]+ rows of a day go", "DELETE", 2, "control"),
    ("leaves", "inventory, 1,000 leaves, ms", r"^\| ms, of a table with", "inventory read ", 2, "ours"),
    ("leaves", "inventory, 5,000 leaves, ms", r"^\| ms, of a table with", "inventory read ", 3, "ours"),
    ("leaves", "audit, 5,000 leaves, ms", r"^\| ms, of a table with", r"\*\*audit", 3, "ours"),
    ("leaves", "made beside 10, ms a leaf", r"^\| 7 leaves of each", "beside 10 ", 3, "ours"),
    ("leaves", "made beside 1,000, ms a leaf", r"^\| 7 leaves of each", "beside 1000 ", 3, "ours"),
]


def figure(text, table, row, cell):
    """The first number of a cell; None if the output has no such row."""
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif re.search(table, line):
            inside = True
        elif inside and re.match(r"\| " + row, line):
            number = re.match(r"\s*([0-9][0-9,]*(?:\.[0-9]+)?)", line.split("|")[cell])
            return float(number[1].replace(",", "")) if number else None
    return None


def outside(n, k):
    """The probability that the true median lies below the k-th smallest of n ratios, or above the k-th largest."""
    return 2 * sum(math.comb(n, below) for below in range(k)) / 2**n


def interval(ratios):
    """The interval's lower end, its upper end and its confidence."""
    n, k = len(ratios), 1
    while 2 * (k + 1) <= n and outside(n, k + 1) <= 0.05:
        k += 1
    ordered = sorted(ratios)
    return ordered[k - 1], ordered[n - k], 1 - outside(n, k)


def verdict(low, high, kind):
    if low <= 1 <= high:
        return ""
    if kind == "control":
        return "the machine differed"
    return "less" if high < 1 else "more"


def read(folder, bench):
    """The outputs of each complete pair: old, new."""
    numbers = sorted(int(path.name.split(".")[1]) for path in folder.glob(f"{bench}.*.old"))
    sides = [[folder / f"{bench}.{number}.{side}" for side in ("old", "new")] for number in numbers]
    return [[path.read_text() for path in pair] for pair in sides if all(path.exists() for path in pair)]


def compared(name, both, kind):
    """A row of the report, from the figures of both sides of each pair."""
    olds, news = zip(*both)
    ratios = [new / old for old, new in both]
    middle = [f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" for value in map(statistics.median, (olds, news))]
    if len(ratios) < 5:
        return f"| {name} | {' | '.join(middle)} | {statistics.median(ratios):.3f} | {len(ratios)} pairs are too few | |"
    low, high, sure = interval(ratios)
    return (
        f"| {name} | {' | '.join(middle)} | {statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} ({100 * sure:.1f} %) "
        f"| {verdict(low, high, kind)} |"
    )


def loads(folder):
    loads = sorted(float(line.split()[0]) for line in (folder / "load").read_text().splitlines())
    low, high, middle = loads[0], loads[-1], statistics.median(loads)
    return f"load average at the start of each run, of other programs and of the previous run: {low} to {high}, median {middle}"


def main(folder):
    for line in [*(folder / "about").read_text().splitlines(), loads(folder)]:
        print(f"- {line}")
    outputs = {bench: read(folder, bench) for bench in dict.fromkeys(bench for bench, *_ in FIGURES)}
    print("\n| figure (median) | old | new | new/old | interval | new is |\n|---|---:|---:|---:|---:|---|")
    rows, unsure, unknown = 0, 0.0, []
    for bench, name, table, row, cell, kind in FIGURES:
        found = [[figure(text, table, row, cell) for text in pair] for pair in outputs[bench]]
        both = [pair for pair in found if all(pair)]
        if both:
            shown = f"{bench}: {name}" + (" (control)" if kind == "control" else "")
            print(compared(shown, both, kind))
            rows, unsure = rows + 1, unsure + (1 - interval([1.0] * len(both))[2] if len(both) >= 5 else 0)
        if len(both) < len(found):
            unknown.append(f"{bench}: {name} ({len(found) - len(both)} of {len(found)} pairs)")
    if unknown:
        print(f"\nMissing or zero on one side, or on both: {'; '.join(unknown)}.")
    print(f"\nBy chance alone, {unsure:.1f} of these {rows} intervals are expected to miss the true median.")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] == "--help":
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
