#!/bin/bash
# hyparquet's filters on the columns by which logs are looked for: block numbers (INT64) and addresses (bytes).
#
# Guess before it was run: a filter that works as a range works as an equality, and bytes are ordered as bytes.
#
# Seen on hyparquet 1.31.5, with 3,000 rows:
#   - INT64 comes as BigInt. { block_number: { $gte: 1500, $lte: 1500 } } finds the row, { $eq: 1500 } and { $in: [1500] } find none, and $nin
#     leaves the row in. With 1500n each is right. No error.
#   - $eq of 20 bytes finds its row. $gt and $lt of the same bytes compare their decimal numbers as text ("9,…" is above "10,…"): of the 118
#     addresses whose first byte is below 10, $lt finds 24; of the 12 from 9 to 10, $gte and $lt find none.
#   - DECIMAL(38, 0) comes as a double, with all digits after the seventeenth lost.
#
# What follows: ask for block numbers with BigInt, for addresses by equality only, and do not write amounts as decimals for it.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pyarrow==25.0.1
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit hyparquet@1.31.5 >/dev/null
cat >write.py <<'PY'
import decimal, pyarrow, pyarrow.parquet

# 3,000 addresses whose first byte goes through 0 to 255, in order.
rows = range(3000)
table = pyarrow.table(
    {
        "block_number": pyarrow.array(rows, pyarrow.int64()),
        "address": pyarrow.array([bytes([row * 256 // 3000]) + row.to_bytes(19, "big") for row in rows], pyarrow.binary(20)),
        "amount": pyarrow.array([decimal.Decimal(10**37 + row) for row in rows], pyarrow.decimal128(38, 0)),
    }
)
pyarrow.parquet.write_table(table, "logs.parquet", compression="none", row_group_size=500)
PY
env/bin/python write.py
cat >ask.mjs <<'JS'
import { asyncBufferFromFile, parquetQuery, parquetReadObjects } from "hyparquet";

const file = await asyncBufferFromFile("logs.parquet");
const rows = await parquetReadObjects({ file });
const count = async (filter) => (await parquetQuery({ file, filter })).length;
const from = (byte) => Uint8Array.from([byte, ...new Array(19).fill(0)]);

let changed = false;
const check = (what, answer, expected) => {
  const note = answer === expected ? "" : `   CHANGED, was ${expected}`;
  changed ||= note !== "";
  console.log(`${what}: ${answer}${note}`);
};
check("$gte and $lte 1500", await count({ block_number: { $gte: 1500, $lte: 1500 } }), 1);
check("$eq 1500", await count({ block_number: { $eq: 1500 } }), 0);
check("$in [1500]", await count({ block_number: { $in: [1500] } }), 0);
check("$nin [1500]", await count({ block_number: { $nin: [1500] } }), 3000);
check("$eq 1500n", await count({ block_number: { $eq: 1500n } }), 1);
check("$in [1500n]", await count({ block_number: { $in: [1500n] } }), 1);
check("$eq of an address", await count({ address: { $eq: rows[1500].address } }), 1);
check("addresses below 10", rows.filter(({ address }) => address[0] < 10).length, 118);
check("$lt of them", await count({ address: { $lt: from(10) } }), 24);
check("addresses from 9 to 10", rows.filter(({ address }) => address[0] === 9).length, 12);
check("$gte and $lt of them", await count({ address: { $gte: from(9), $lt: from(10) } }), 0);
check("10^37 + 1500", `${typeof rows[1500].amount} ${rows[1500].amount}`, "number 1e+37");
process.exit(changed ? 1 : 0);
JS
node ask.mjs
