#!/bin/bash
# Numbers in Parquet, read by chDB (ClickHouse) as types that the reader names.
#
# Guess before it was run: fixed bytes of 32 read as UInt256 are big-endian, as Parquet's own decimals are and as the EVM's words, or are
# refused; a number that does not fit the named type is refused, as a decimal is (Code 407).
#
# Seen on chDB 4.4.0 (ClickHouse 26.9):
#   - FIXED_LEN_BYTE_ARRAY(32) as UInt256: the bytes are taken lowest first. The word of 1 becomes 2^248.
#   - reinterpretAsUInt256(reverse(word)) of the same word is right; so is a DECIMAL(76, 0) as UInt256.
#   - INT64 as Int32: cut to 32 bits. Block 4294967297 becomes 1. -1 as UInt64 becomes 18446744073709551615. No error.
#   - a DECIMAL(38, 0) that does not fit UInt64 is refused.
#
# What follows: read a uint256 as it was stored and say reinterpretAsUInt256(reverse(column)); leave integers the types that the file has.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pyarrow==25.0.1 chdb==4.4.0
cat >words.py <<'PY'
import decimal, sys
import pyarrow, pyarrow.parquet

decimal.getcontext().prec = 80
pyarrow.parquet.write_table(
    pyarrow.table(
        {
            "word": pyarrow.array([(1).to_bytes(32, "big")], pyarrow.binary(32)),
            "amount": pyarrow.array([decimal.Decimal(10**75 + 1)], pyarrow.decimal256(76, 0)),
            "supply": pyarrow.array([decimal.Decimal(10**30)], pyarrow.decimal128(38, 0)),
            "block": pyarrow.array([2**32 + 1], pyarrow.int64()),
            "change": pyarrow.array([-1], pyarrow.int64()),
        }
    ),
    "words.parquet",
)
import chdb


def ask(what, columns=None):
    given = f", '{columns}'" if columns else ""
    try:
        return int(str(chdb.query(f"SELECT {what} FROM file('words.parquet', Parquet{given})", "TSV")))
    except RuntimeError as error:
        return "refused" if "DECIMAL_OVERFLOW" in str(error) else str(error)


tries = {
    "the word of 1 as UInt256": (ask("word", "word UInt256"), 2**248),
    "the word of 1, reversed": (ask("reinterpretAsUInt256(reverse(word::FixedString(32)))"), 1),
    "10^75 + 1 of DECIMAL(76, 0) as UInt256": (ask("amount", "amount UInt256"), 10**75 + 1),
    "10^30 of DECIMAL(38, 0) as UInt64": (ask("supply", "supply UInt64"), "refused"),
    "4294967297 of INT64 as Int32": (ask("block", "block Int32"), 1),
    "-1 of INT64 as UInt64": (ask("change", "change UInt64"), 2**64 - 1),
}
changed = False
for name, (answer, expected) in tries.items():
    note = "" if answer == expected else f"   CHANGED, was {expected}"
    changed |= bool(note)
    print(f"{name}: {answer}{note}")
sys.exit(changed)
PY
env/bin/python words.py
