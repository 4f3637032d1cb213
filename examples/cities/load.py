"""Makes a SQLite database of the cities that export.mjs prints: `node export.mjs | python3 load.py cities.db`."""

import json
import sqlite3
import sys

SCHEMA = """
CREATE TABLE city(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  alternative TEXT,
  country TEXT NOT NULL,
  province TEXT,
  kind TEXT NOT NULL,
  population INTEGER NOT NULL,
  latitude REAL NOT NULL,
  longitude REAL NOT NULL
);
CREATE TABLE visit(id INTEGER PRIMARY KEY, city INTEGER NOT NULL REFERENCES city(id), day TEXT, note TEXT);
"""
INDEXES = """
CREATE INDEX city_by_name ON city(name);
CREATE INDEX city_by_country ON city(country, population);
CREATE INDEX visit_by_city ON visit(city);
"""


def main(path: str) -> None:
    db = sqlite3.connect(path)
    db.executescript(SCHEMA)
    with db:
        rows = (json.loads(line) for line in sys.stdin)
        db.executemany("INSERT INTO city VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    # Indexes afterwards: their pages then lie together, as in a database that was restored or vacuumed.
    db.executescript(INDEXES + "ANALYZE; PRAGMA optimize;")
    db.close()


if __name__ == "__main__":
    main(sys.argv[1])
