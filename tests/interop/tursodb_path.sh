#!/bin/sh
# Prints the path of the `tursodb` program that the npm package `turso` ships for this platform, installing the
# pinned packages first when they are missing. Must never print anything else on standard output: tests read it.
set -eu
cd "$(dirname "$0")"
[ -d node_modules/turso ] || npm ci --no-audit --no-fund >&2
for candidate in node_modules/@tursodatabase/cli-*/tursodb node_modules/@tursodatabase/cli-*/tursodb.exe; do
    if [ -x "$candidate" ]; then
        printf '%s/%s\n' "$PWD" "$candidate"
        exit 0
    fi
done
echo "tursodb_path.sh: the npm package turso ships no tursodb for this platform" >&2
exit 1
