#!/bin/bash
# A decimal of 76 digits in Apache Arrow for JavaScript, as text.
#
# Guess before it was run: String(value) gives all digits, as it does for decimals of 38 digits; a reader that cannot do that throws.
#
# Seen on apache-arrow 21.2.0: of Decimal256 columns, String(value), template strings and JSON.stringify drop leading digits and say nothing.
# 255 becomes "5", 10^18 becomes "0", 2^128 + 1 becomes "7", 10^76 - 1 keeps 38 of its 76 nines. The same numbers in Decimal128 columns are
# right, and the value's 32-bit words are right in both. BigInt(value) throws above 2^53; the library's own bigNumToBigInt is as wrong as the
# text.
#
# What follows for whoever hands uint256 amounts to JavaScript as Arrow or Parquet: put them together from the words (Array.from(value), the
# lowest first), or send text or bytes.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-fund --no-audit apache-arrow@21.2.0 >/dev/null
cat >digits.js <<'JS'
const { Decimal, makeData, tableFromIPC, tableToIPC, Table, util, Vector } = require("apache-arrow");

// A column of one value, written as a stream and read back, as it comes from a server.
function through(value, bits, precision) {
  const words = new Uint32Array(bits / 32);
  for (let word = 0, rest = BigInt.asUintN(bits, value); word < words.length; word++, rest >>= 32n) words[word] = Number(rest & 0xffffffffn);
  const column = new Vector([makeData({ type: new Decimal(0, precision, bits), length: 1, data: words })]);
  return tableFromIPC(tableToIPC(new Table({ v: column }))).getChild("v").get(0);
}

const cases = [
  [255n, "5"],
  [10n ** 18n, "0"],
  [2n ** 53n + 1n, "3"],
  [2n ** 128n + 1n, "7"],
  [2n ** 160n - 1n, "5932542975"],
  [10n ** 76n - 1n, "9".repeat(38)],
  [7n, "7"],
];
let changed = false;
const check = (what, answer, expected) => {
  const note = answer === expected ? "" : `   CHANGED, was ${expected}`;
  changed ||= note !== "";
  console.log(`${what}: ${answer}${note}`);
};
for (const [number, wrong] of cases) {
  const large = through(number, 256, 76);
  check(`${number} in 76 digits, String`, String(large), wrong);
  check("  JSON", JSON.parse(JSON.parse(JSON.stringify({ large })).large), wrong);
  check("  bigNumToBigInt", String(util.bigNumToBigInt(large)), String(BigInt(wrong)));
  check("  words", String(Array.from(large).reduceRight((sum, word) => (sum << 32n) + BigInt(word), 0n)), String(number));
  if (number < 10n ** 38n) check("  in 38 digits, String", String(through(number, 128, 38)), String(number));
}
process.exit(changed ? 1 : 0);
JS
node digits.js
