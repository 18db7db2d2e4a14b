#!/bin/sh
# A database for POSTGRES_USER in a PGDATA that is empty, and then the server; over TCP with the password alone.
# Sockets are in /tmp: podman gives a tmpfs below its own /run to root.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  password=$(mktemp)
  printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
  initdb --encoding UTF8 --locale C.UTF-8 --username "$POSTGRES_USER" --pwfile "$password" --auth-local trust \
    ${POSTGRES_INITDB_ARGS:-}
  rm "$password"
  pg_ctl --wait --options "-c listen_addresses='' -k /tmp" start
  createdb --host /tmp --username "$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl --wait --mode fast stop
fi
exec "$@" -k /tmp -c listen_addresses='*'
