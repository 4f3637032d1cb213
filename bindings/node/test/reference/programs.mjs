// Random programs as a list of steps, for the package and for better-sqlite3 alike. One seed is one program.

/** A generator of random numbers (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(next() * n);
  const pick = (list) => list[below(list.length)];
  return { below, pick, chance: (p) => next() < p };
}

export const SCHEMA = `
  CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT UNIQUE, c INTEGER CHECK (c < 90), d REAL);
  CREATE TABLE child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED, q INTEGER REFERENCES t);
  CREATE TABLE w (k TEXT PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;
  CREATE TABLE strict (i INTEGER, r REAL, s TEXT, x BLOB, y ANY) STRICT;
  CREATE TABLE audit (n INTEGER PRIMARY KEY, what TEXT);
  CREATE TRIGGER t_deleted AFTER DELETE ON t BEGIN INSERT INTO audit (what) VALUES ('deleted ' || old.id); END;
  CREATE TRIGGER t_refused BEFORE INSERT ON t WHEN new.a = 'refuse' BEGIN SELECT RAISE(ABORT, 'refused'); END;
  CREATE TRIGGER t_rolled BEFORE INSERT ON t WHEN new.a = 'roll' BEGIN SELECT RAISE(ROLLBACK, 'rolled'); END;
  CREATE TABLE fixed (i INTEGER PRIMARY KEY, s TEXT);
  WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 600)
    INSERT INTO fixed SELECT i, printf('%0200d', i) FROM n;
  WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)
    INSERT INTO t SELECT i, printf('%0300d', i), 'b' || i, i, i / 2.0 FROM n;
`;

/** Takes some 10 ms and gives one row. */
const LONG = 'WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 40000)';

function makeValue({ below, pick, chance }) {
  if (chance(0.4)) return below(100);
  return pick([
    () => null,
    () => -below(5),
    () => below(2 ** 31) * 8,
    () => 2 ** 53,
    () => below(1000) / 8,
    () => -0,
    () => NaN,
    () => 1e300,
    () => `b${below(80)}`,
    () => pick(['', 'é', '𝄞', "it's", 'a\0b', 'refuse', 'roll', '12', ' 7 ']),
    () => Buffer.from([below(256), 0, below(256)].slice(0, below(4))),
    () => new Uint16Array([below(65536)]),
    () => BigInt(below(100)),
    () => 2n ** 62n + BigInt(below(9)),
    () => pick([2n ** 63n, -(2n ** 63n) - 1n]),
    () => undefined,
    () => true,
    () => new Date(below(1e9)),
    () => [1, 2],
    () => Symbol.iterator,
  ])();
}

const OR = ['', '', '', '', ' OR REPLACE', ' OR IGNORE', ' OR ABORT', ' OR FAIL', ' OR ROLLBACK'];

/** A statement with its arguments. */
function statement(r) {
  const { below, pick, chance } = r;
  const v = () => makeValue(r);
  const id = () => (chance(0.9) ? below(80) : v());
  const or = pick(OR);
  const [sql, ...args] = pick([
    () => [`INSERT${or} INTO t VALUES (?, ?, ?, ?, ?)`, id(), v(), `b${below(90)}`, below(100), v()],
    () => [`INSERT${or} INTO t (a, b, c) VALUES (?, ?, ?), (?, ?, ?)`, v(), `n${below(9)}`, 1, v(), `n${below(9)}`, below(95)],
    () => [`INSERT${or} INTO t (a, c) VALUES (?, ?) RETURNING id, a, b`, v(), below(95)],
    () => [`INSERT${or} INTO t (a) SELECT i FROM fixed WHERE i <= ? RETURNING id`, below(40)],
    () => [`INSERT${or} INTO child VALUES (?, ?, ?)`, id(), below(90), pick([null, below(90)])],
    () => ['INSERT INTO child (p) VALUES (?) RETURNING id, p', below(90)],
    () => [`INSERT${or} INTO w VALUES (?, ?)`, v(), v()],
    () => ['INSERT INTO w VALUES (:k, $v) ON CONFLICT (k) DO UPDATE SET v = excluded.v', { k: `k${below(9)}`, v: v() }],
    () => [`INSERT${or} INTO strict VALUES (?, ?, ?, ?, ?)`, v(), v(), v(), v(), v()],
    () => [`UPDATE${or} t SET b = ? WHERE id BETWEEN ? AND ?`, `b${below(70)}`, below(70), below(70)],
    () => [`UPDATE${or} t SET id = id + ?, c = c + 1 WHERE id > ?`, pick([1, 100, 1000]), below(60)],
    () => ['UPDATE t SET a = ?, d = ? WHERE id = ? RETURNING *', v(), v(), below(60)],
    () => ['DELETE FROM t WHERE id = ?', id()],
    () => ['DELETE FROM t WHERE id > ? RETURNING id, c', 40 + below(40)],
    () => ['DELETE FROM child WHERE p > ?', below(60)],
    () => ['DELETE FROM audit'],
    () => ['SELECT * FROM t WHERE id BETWEEN ? AND ? ORDER BY id', below(60), below(80)],
    () => ['SELECT id, length(s), i AS id FROM fixed JOIN t ON t.id = fixed.i WHERE fixed.i > ? ORDER BY i', below(70)],
    () => ['SELECT :v AS v, typeof(:v) AS y, quote(:v) AS q', { v: v() }],
    () => ['SELECT @x AS x, :y + 1 AS y', { x: v(), y: v() }],
    () => ['SELECT s FROM fixed WHERE i = ?', id()],
    () => ['SELECT i, s FROM fixed WHERE i > ? ORDER BY i', below(600)],
    () => ['SELECT count(*), sum(c), group_concat(b) FROM t'],
    () => ['SELECT abs(i - 9223372036854775807 - 1 - ?) FROM fixed WHERE i < 5', pick([0, 3])],
    () => ['SELECT 9007199254740993 AS big, 0.1 AS half, NULL AS n, x\'00ff\' AS b'],
    () => ['SELECT * FROM nowhere'],
    () => ['SELEC 1'],
    () => [pick(['', '  ', '-- nothing', ';'])],
    () => ['SELECT 1', 2],
    () => ['SELECT ?, ?', 1],
    () => ['SELECT :a', { b: 1 }],
    () => ['VALUES (1, ?), (2, 3)', v()],
    () => [`CREATE TABLE IF NOT EXISTS extra${below(3)} (a, b DEFAULT 7)`],
    () => [`DROP TABLE IF EXISTS extra${below(3)}`],
    () => [`INSERT INTO extra${below(3)} (a) VALUES (?)`, v()],
    () => [`ALTER TABLE extra${below(3)} ADD COLUMN c${below(3)}`],
    () => [`SELECT * FROM extra${below(3)}`],
    () => ['CREATE INDEX IF NOT EXISTS by_c ON t (c)'],
    () => ['DROP INDEX IF EXISTS by_c'],
  ])();
  return { sql, args };
}

const READS = ['run', 'get', 'all', 'all', 'iterate'];

function step(r, depth) {
  const { below, pick, chance } = r;
  const call = () => ({ do: pick(READS), ...statement(r), take: chance(0.5) ? below(20) : Infinity });
  const simple = [
    [10, call],
    [2, () => ({ do: 'exec', sql: pick([
      "INSERT INTO audit (what) VALUES ('one'); INSERT INTO audit (what) VALUES ('two')",
      "INSERT INTO audit (what) VALUES ('three'); INSERT INTO t (id) VALUES (1); INSERT INTO audit (what) VALUES ('no')",
      'SELECT 1; SELECT * FROM fixed; -- and a comment',
      "INSERT OR ROLLBACK INTO t (id) VALUES (1); INSERT INTO audit (what) VALUES ('no')",
      '',
      "DELETE FROM audit; INSERT INTO child (p) VALUES (999)",
    ]) })],
    [2, () => ({ do: pick(['SAVEPOINT s', 'RELEASE s', 'ROLLBACK TO s', 'COMMIT', 'ROLLBACK', 'BEGIN', 'BEGIN IMMEDIATE']), sql: true })],
    [3, () => ({ do: 'prepare', slot: below(4), ...statement(r) })],
    [6, () => ({ do: `statement.${pick(READS)}`, slot: below(4), take: below(20) })],
    [1, () => ({ do: pick(['raw', 'pluck', 'safeIntegers']), slot: below(4), on: chance(0.7) })],
    [1, () => ({ do: 'pragma', source: pick(['user_version', `user_version = ${below(99)}`, 'table_info(t)', 'foreign_key_check']), simple: chance(0.5) })],
    [1, () => ({ do: 'defaultSafeIntegers', on: chance(0.5) })],
    [1, () => ({ do: 'batch', mode: pick(['deferred', 'immediate', 'exclusive']), items: Array.from({ length: below(4) }, () => statement(r)) })],
    // What a limit of time or an interrupt breaks off: a long write, a long read, or a short one.
    [1, () => ({ do: 'limited', ms: 1 + below(12), how: pick(['timeout', 'interrupt']), ticks: below(4), ...pick([
      { sql: `INSERT INTO audit (what) ${LONG} SELECT i FROM n`, args: [] },
      { sql: `INSERT INTO audit (what) ${LONG} SELECT i FROM n RETURNING n`, args: [] },
      { sql: `${LONG} SELECT max(i) FROM n`, args: [] },
      statement(r),
    ]) })],
    // What happens to a request that a page of a replica needs.
    [1, () => ({ do: 'fault', fault: pick(['throws', 'reads itself', 'gives a number']), call: call() })],
  ];
  const more = [
    [2, () => ({
      do: pick(['transaction', 'transactionAsync']),
      mode: pick(['deferred', 'immediate', 'exclusive']),
      body: Array.from({ length: below(6) }, () => ({ ...step(r, depth + 1), caught: chance(0.6) })),
      throws: chance(0.2),
    })],
    [1, () => ({ do: 'open', slot: below(2), sql: 'SELECT i, s FROM fixed WHERE i > ? ORDER BY i', args: [below(50)] })],
    [2, () => ({ do: 'next', slot: below(2), times: 1 + below(12) })],
    [1, () => ({ do: 'return', slot: below(2) })],
    [0.5, () => ({ do: 'reopen' })],
    [1, () => ({ do: 'sync', call: 'pull' })],
  ];
  const choices = depth === 0 ? [...simple, ...more] : depth === 1 ? [...simple, more[0]] : simple;
  let at = below(choices.reduce((sum, [weight]) => sum + weight, 0) * 2) / 2;
  for (const [weight, make] of choices) {
    if (at < weight) return make();
    at -= weight;
  }
  return call();
}

/** The program of a seed: what kind of database it uses, and its steps. */
export function program(seed) {
  const r = random(seed);
  for (let i = 0; i < 8; i++) r.below(2);
  const kind = r.chance(0.08) ? 'replica' : r.pick(['file', 'file', 'memory', 'wal']);
  const steps = Array.from({ length: 5 + r.below(25) }, () => step(r, 0));
  return { seed, kind, foreignKeys: r.chance(0.7), steps };
}
