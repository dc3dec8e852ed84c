#!/bin/bash
# Miller over CSV as psql and most tools write it: token amounts in base units, and addresses.
#
# Guess before it was run: a whole number that 64 bits do not hold is read as floating point, as Miller's reference says, so that sums are
# inexact; addresses, which are 20 bytes, are text.
#
# Seen on Miller 6.6.0 (Debian 12's package):
#   - a number of 20 digits or more, such as 10 tokens of 18 decimals, is text. `stats1 -a sum` leaves it out without a word, and counts it:
#     1 and 10 tokens have a count of 2, a sum of 1 token and a mean of 1 token. Arithmetic in `put` says (error).
#   - an address that begins with 12 bytes of zeros is a number, as are precompiled and system contracts; other addresses are text. JSON output
#     then has 0x… without quotes, which no parser of JSON takes.
#   - 0x8000000000000000 is a negative number.
#
# What follows for analysts: sum amounts in SQL, where numeric(78,0) is exact, or divide by the token's decimals before the export. Miller's
# option -S (no inference) keeps addresses and hashes as text.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -o APT::Sandbox::User=root download 'miller=6.6.0-2*' >/dev/null
dpkg-deb -x miller_6.6.0-2*.deb .
mlr=usr/bin/mlr
[[ $($mlr --version) == "mlr 6.6.0" ]]
cat >transfers.csv <<'CSV'
token,value,flags
0x52908400098527886E0F7030069857D2E4169EE7,1000000000000000000,0x7fffffffffffffff
0x0000000000000000000000000000000000000004,10000000000000000000,0x8000000000000000
CSV
set -x
$mlr --icsv --ojson stats1 -a sum,count,mean -f value transfers.csv | tee sum
# shellcheck disable=SC2016
$mlr --icsv --ojson put -q 'emit {"type": typeof($value), "more": $value + 1}' transfers.csv | tee more
# shellcheck disable=SC2016
$mlr --icsv --ojson put '$flags = $flags + 0' transfers.csv | tee rows
{ set +x; } 2>/dev/null
grep -q '"value_sum": 1000000000000000000,' sum
grep -q '"value_count": 2,' sum
grep -q '"value_mean": 1000000000000000000$' sum
grep -q '"type": "string"' more
grep -q '"more": (error)' more
grep -q '"token": "0x52908400098527886E0F7030069857D2E4169EE7"' rows
grep -q '"token": 0x0000000000000000000000000000000000000004' rows
grep -q '"flags": -9223372036854775808' rows
if python3 -m json.tool rows >/dev/null 2>&1; then
    echo "the JSON can be read now"
    exit 1
fi
echo "as described"
