#!/bin/bash
# Fixed-length values that end in zero bytes (addresses, words), read from Parquet.
#
# Guess before it was run: a FIXED_LEN_BYTE_ARRAY(20) has 20 bytes in whatever reads it.
#
# Seen, with three addresses of which two end in zero bytes:
#   - fastparquet 2026.9.0 (also behind pandas.read_parquet(engine="fastparquet")): the zero bytes at the end are gone. 0x1111…0000 has 18
#     bytes, the zero address none. No error; the same bytes as BYTE_ARRAY are whole.
#   - chDB 4.4.0 (ClickHouse 26.9): whole as long as the engine chooses the type (FixedString). Where the reader is told that the column is a
#     String, the zero bytes are gone, and WHERE on the whole address finds nothing.
#
# What follows: write addresses and hashes as BYTE_ARRAY. Of numbers in fixed bytes (a uint256, big-endian) every multiple of 256 is another
# number for such a reader: pad to the length on the right before it is taken for a number. A round amount like 10^18 ends in zero bytes.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pyarrow==25.0.1 fastparquet==2026.9.0 pandas==3.1.1 chdb==4.4.0
cat >zeros.py <<'PY'
import sys
import fastparquet, pandas, pyarrow, pyarrow.parquet

ADDRESSES = [bytes.fromhex("22" * 20), bytes.fromhex("11" * 18 + "0000"), bytes(20)]
AMOUNT = (10**18).to_bytes(32, "big")
pyarrow.parquet.write_table(
    pyarrow.table(
        {
            "fixed": pyarrow.array(ADDRESSES, pyarrow.binary(20)),
            "free": pyarrow.array(ADDRESSES, pyarrow.binary()),
            "amount": pyarrow.array([AMOUNT] * 3, pyarrow.binary(32)),
        }
    ),
    "addresses.parquet",
)
import chdb

lengths = lambda values: [len(value) for value in values]
ask = lambda question: [int(word) for word in str(chdb.query(question, "TSV")).split()]
frame = fastparquet.ParquetFile("addresses.parquet").to_pandas()
by_pandas = pandas.read_parquet("addresses.parquet", engine="fastparquet")
whole = "unhex('1111111111111111111111111111111111110000')"
tries = {
    "pyarrow, fixed": (lengths(pyarrow.parquet.read_table("addresses.parquet")["fixed"].to_pylist()), [20, 20, 20]),
    "fastparquet, fixed": (lengths(frame["fixed"]), [20, 18, 0]),
    "fastparquet, of free length": (lengths(frame["free"]), [20, 20, 20]),
    "fastparquet, 10^18 read as a number": (int.from_bytes(frame["amount"][0], "big"), 10**18 // 2**16),
    "pandas with fastparquet, fixed": (lengths(by_pandas["fixed"]), [20, 18, 0]),
    "chDB, type of its own choice": (ask("SELECT length(fixed) FROM file('addresses.parquet', Parquet)"), [20, 20, 20]),
    "chDB, as String": (ask("SELECT length(fixed) FROM file('addresses.parquet', Parquet, 'fixed String')"), [20, 18, 0]),
    "chDB, rows of an address": (ask(f"SELECT count() FROM file('addresses.parquet', Parquet) WHERE fixed = {whole}"), [1]),
    "chDB, as String, rows of an address": (
        ask(f"SELECT count() FROM file('addresses.parquet', Parquet, 'fixed String') WHERE fixed = {whole}"),
        [0],
    ),
}
changed = False
for name, (answer, expected) in tries.items():
    note = "" if answer == expected else f"   CHANGED, was {expected}"
    changed |= bool(note)
    print(f"{name}: {answer}{note}")
sys.exit(changed)
PY
env/bin/python -W ignore zeros.py
