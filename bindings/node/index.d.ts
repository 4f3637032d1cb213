// Types of @tursodatabase/sync.
/// <reference types="node" />

/** A value that SQLite can store. Booleans are stored as 1 and 0, `undefined` as NULL, a `Date` as its text. */
export type SqlValue =
  | null
  | undefined
  | number
  | bigint
  | string
  | boolean
  | Date
  | ArrayBuffer
  | SharedArrayBuffer
  | ArrayBufferView;

/** Values by name; the prefix (`:`, `@` or `$`) may be left out. */
export type NamedValues = Record<string, SqlValue>;

/** What one call may say besides its values, as its last argument. */
export interface QueryOptions {
  /** Milliseconds after which the call fails with `SQLITE_INTERRUPT`. */
  queryTimeout?: number;
}

/** Values one by one, in an array, or by name; then, if wanted, the options of the call. */
export type BindParameters = Array<SqlValue | readonly SqlValue[] | NamedValues | QueryOptions>;

/** What is local right after the first connect. */
export type BootstrapStrategy =
  | {
      kind: 'prefix';
      /** Bytes from the beginning of the database file. */
      length: number;
    }
  | {
      kind: 'query';
      /** One `SELECT`, which the remote runs: the pages that it touches are fetched. */
      query: string;
    };

/** Partial sync. */
export interface PartialSyncOpts {
  /** Default: page 1 alone, without which nothing can be opened. */
  bootstrapStrategy?: BootstrapStrategy;
  /** Bytes that are fetched around an absent page, rounded down to whole pages. Default: 128 KiB. */
  segmentSize?: number;
  /**
   * What comes along with an absent page. Not given: its segment and, where the remote can, what the SELECT that misses it touches: the
   * statement is sent, with its values. True: also what a query is expected to want next. False: its segment alone.
   */
  prefetch?: boolean;
}

/** Key and cipher of a remote that encrypts; sent as headers. */
export interface EncryptionOpts {
  /** The key, in base64. */
  key: string;
  cipher?:
    | 'aes256gcm'
    | 'aes128gcm'
    | 'chacha20poly1305'
    | 'aegis128l'
    | 'aegis128x2'
    | 'aegis128x4'
    | 'aegis256'
    | 'aegis256x2'
    | 'aegis256x4';
}

/** A statement that takes the place of a change. */
export interface DatabaseRowStatement {
  sql: string;
  values: SqlValue[];
}

/** What `transform` decides: `null` keeps the change as it is. */
export type DatabaseRowTransformResult =
  | { operation: 'skip' }
  | { operation: 'rewrite'; stmt: DatabaseRowStatement }
  | null
  | undefined
  | void;

/** A row change that is about to be pushed, or put back after a pull. */
export interface DatabaseRowMutation {
  /** Seconds since 1970. */
  changeTime: number;
  tableName: string;
  /** The row's key where that is one integer: a number, or a bigint beyond 2^53; else null. */
  id: number | bigint | null;
  changeType: 'insert' | 'update' | 'delete';
  /** The row before, unless it is new. */
  before?: Record<string, any>;
  /** The row after, unless it is gone. */
  after?: Record<string, any>;
  /** Of an update: the new values of the columns that changed. */
  updates?: Record<string, any>;
}

/** Keeps, leaves out or rewrites a change. It must decide at once. */
export type Transform = (mutation: DatabaseRowMutation) => DatabaseRowTransformResult;

/** Level of the engine's log on standard error. */
export type TracingLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace';

type SnakeCase<S extends string> = S extends `${infer First}${infer Rest}`
  ? `${First extends Lowercase<First> ? First : `_${Lowercase<First>}`}${SnakeCase<Rest>}`
  : S;

/** The same options, each of which may be written in snake_case too. */
export type InSnakeCaseToo<Opts> = Opts & { [Name in keyof Opts as SnakeCase<Name & string>]?: Opts[Name] };

/** What a database is opened with. docs/options.md has the names of all options in all languages. */
export interface DatabaseOpts {
  /** The file of the database or replica; `':memory:'` leaves no file. */
  path: string;
  /**
   * The remote database: `libsql://`, `https://` or `http://`; or a function that is asked before each request and may
   * give null while sync is paused. Without it: a plain local database.
   */
  url?: string | (() => string | null | undefined);
  /** The bearer token, or a function that is asked before each request. */
  authToken?: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** How this client is called on the remote. Default: `'turso-sync-js'`. */
  clientName?: string;
  /**
   * Whether the first connect fetches from the remote. If not, the replica begins as an empty database, and the first pull
   * brings what the first connect would have brought. Default: true.
   */
  bootstrapIfEmpty?: boolean;
  /** Milliseconds that a query waits for a page, and a request for each next piece of its answer. Default: 30000. */
  requestTimeoutMs?: number;
  /** How many milliseconds a pull lets the remote wait for a change. Default: not at all. */
  longPollTimeoutMs?: number;
  /** Logs to standard error. The first database of a process decides. Default: no log. */
  tracing?: TracingLevel;
  transform?: Transform;
  /** Most changes in one push request; a local transaction is never split. Default: 10000. */
  pushOperationsThreshold?: number;
  /** A full bootstrap is fetched in requests of about this many bytes. Default: one request. */
  pullBytesThreshold?: number;
  /**
   * Lets a replica that is here continue with another remote than it was made from: its database has moved to a new url, or
   * was restored from a backup. After the next pull pages that are not here can be read again; changes that were not pushed
   * stay. Default: false.
   */
  acceptNewUrl?: boolean;
  remoteEncryption?: EncryptionOpts;
  /** Sends every request, also that of a page in the middle of a query. Default: a client of this package's own. */
  fetch?: typeof fetch;
  partialSyncExperimental?: InSnakeCaseToo<PartialSyncOpts>;
  /** Names of features that SQLite has without being asked. */
  experimental?: string[];
  /** Milliseconds that a query may take; `{ queryTimeout }` at the end of a call's arguments overrides it. */
  queryTimeout?: number;
  /** Milliseconds that a statement waits for another connection's lock. Default: 5000. */
  timeout?: number;
  /** Not supported: true is refused. */
  remoteWritesExperimental?: false;
  /** Not supported: true is refused. */
  logicalMvccPull?: false;
}

/** Counters and sizes. */
export interface DatabaseStats {
  /** Local changes that were not pushed. */
  cdcOperations: number;
  /** Bytes of the WAL. */
  mainWalSize: number;
  /** Bytes of the file of a pull under way. */
  revertWalSize: number;
  /** When the last pull brought something, or the replica was made, in seconds since 1970. */
  lastPullUnixTime: number | null;
  /** When the last push was confirmed, in seconds since 1970. */
  lastPushUnixTime: number | null;
  /** The remote's revision that this replica is based on. */
  revision: string | null;
  /** Bytes of request bodies since the database was opened. */
  networkSentBytes: number;
  /** Bytes of answer bodies since the database was opened. */
  networkReceivedBytes: number;
  /** HTTP requests since the database was opened. */
  requests: number;
  /** Bytes of a page. */
  pageSize: number;
  /** Pages of the database. */
  pagesTotal: number;
  /** Pages that are here. */
  pagesPresent: number;
  /** Pages that local transactions wrote since the last pull. */
  pagesDirty: number;
  /** Pages that prefetch added and a query read. */
  prefetchHits: number;
  /** Pages that prefetch added and no query has read. */
  prefetchWasted: number;
}

/** What a statement did. */
export interface RunResult {
  /** Rows inserted, updated or deleted by the statement itself. */
  changes: number;
  /** Rowid of the last insert on this connection. */
  lastInsertRowid: number;
}

/** A column of a statement's rows. */
export interface ColumnDefinition {
  name: string;
  /** Declared type of the table's column behind it, in upper case; null for expressions. */
  type: string | null;
  column: null;
  table: null;
  database: null;
}

/** When a transaction takes its locks. `write` is `immediate`; `read` and `concurrent` are `deferred`. */
export type TransactionMode = 'deferred' | 'immediate' | 'exclusive' | 'write' | 'read' | 'concurrent';

/** A statement of a batch. */
export type BatchStatement =
  | string
  | { sql: string; args?: readonly SqlValue[] | NamedValues }
  | readonly [sql: string, args?: readonly SqlValue[] | NamedValues];

/** How a batch runs. */
export interface BatchOptions {
  /** Default: `'deferred'`. */
  mode?: TransactionMode;
  /** Rows as arrays. Default: false. */
  raw?: boolean;
}

/** The result of one statement of a batch. */
export interface ResultSet {
  columns: string[];
  /** Declared types; empty for expressions. */
  columnTypes: string[];
  /** Objects, or arrays with `raw`. */
  rows: any[];
  rowsAffected: number;
}

/** What SQLite, the file system or the remote refused. */
export class SqliteError extends Error {
  constructor(message: string, code: string, rawCode?: number);
  /** Name of the extended result code, such as `SQLITE_CONSTRAINT_UNIQUE`. */
  code: string;
  /** The extended result code. */
  rawCode?: number;
  /** What kind of failure it is, such as `revision_expired`: docs/errors.md has them all. */
  kind?: string;
  /** The local change that a push or pull failed at, for `discardChange`. */
  change?: number;
}

/** A prepared statement. Rows are objects unless `raw` or `pluck` say otherwise. */
export class Statement {
  private constructor();
  /** Runs it to its end. */
  run(...bindParameters: BindParameters): Promise<RunResult>;
  /** The first row, or undefined. */
  get(...bindParameters: BindParameters): Promise<any>;
  /** All rows. */
  all(...bindParameters: BindParameters): Promise<any[]>;
  /** The rows one after the other, read as they are asked for. */
  iterate(...bindParameters: BindParameters): AsyncGenerator<any, void, undefined>;
  /** Values for the calls that give none. */
  bind(...bindParameters: BindParameters): this;
  /** Rows as arrays. */
  raw(toggle?: boolean): this;
  /** The first column alone. */
  pluck(toggle?: boolean): this;
  /** Integers as bigint. */
  safeIntegers(toggle?: boolean): this;
  columns(): ColumnDefinition[];
  /** Whether it gives rows. */
  readonly reader: boolean;
  /** The SQL. */
  readonly source: string;
  readonly database: Database;
  /** Breaks what runs on the connection now. */
  interrupt(): void;
  close(): void;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The promise of a statement with the statement's methods, so that `db.prepare(sql).all()` works as it reads. */
export interface StatementPromise extends Promise<Statement> {
  run(...bindParameters: BindParameters): Promise<RunResult>;
  get(...bindParameters: BindParameters): Promise<any>;
  all(...bindParameters: BindParameters): Promise<any[]>;
  iterate(...bindParameters: BindParameters): AsyncGenerator<any, void, undefined>;
  bind(...bindParameters: BindParameters): StatementPromise;
  raw(toggle?: boolean): StatementPromise;
  pluck(toggle?: boolean): StatementPromise;
  safeIntegers(toggle?: boolean): StatementPromise;
  close(): Promise<void>;
}

/** A function that runs in a transaction, and its variants by mode. */
export type TransactionVariants<F> = F & {
  readonly default: F;
  readonly deferred: F;
  readonly concurrent: F;
  readonly immediate: F;
  readonly exclusive: F;
  readonly database: Database;
};

/** What `transaction(fn)` gives. */
export type TransactionFunction<F extends (...args: any[]) => any> = TransactionVariants<
  (...args: Parameters<F>) => Promise<Awaited<ReturnType<F>>>
>;

/** What `transactionAsync(fn)` gives. */
export type AsyncTransactionFunction<F extends (txn: Transaction, ...args: any[]) => any> = F extends (
  txn: Transaction,
  ...args: infer A
) => infer R
  ? TransactionVariants<(...args: A) => Promise<Awaited<R>>>
  : never;

/** The methods that a database and a transaction have in common. */
interface Queries {
  /** Runs a script; its rows are thrown away. */
  exec(sql: string, options?: QueryOptions): Promise<void>;
  /** Compiles a statement. */
  prepare(sql: string): StatementPromise;
  /** Runs one statement to its end. */
  run(sql: string, ...bindParameters: BindParameters): Promise<RunResult>;
  /** The first row of a query, or undefined. */
  get(sql: string, ...bindParameters: BindParameters): Promise<any>;
  /** All rows of a query. */
  all(sql: string, ...bindParameters: BindParameters): Promise<any[]>;
  /** The rows of a query one after the other, read as they are asked for. */
  iterate(sql: string, ...bindParameters: BindParameters): AsyncGenerator<any, void, undefined>;
  /** Runs statements in one transaction: all of them or none. */
  batch(statements: readonly BatchStatement[], options?: TransactionMode | BatchOptions): Promise<ResultSet[]>;
}

/** A transaction that has the connection to itself: what is done with it belongs to it, and nothing else does. */
export class Transaction implements Queries {
  private constructor();
  /** Whether it has not ended. */
  readonly open: boolean;
  exec(sql: string, options?: QueryOptions): Promise<void>;
  prepare(sql: string): StatementPromise;
  run(sql: string, ...bindParameters: BindParameters): Promise<RunResult>;
  get(sql: string, ...bindParameters: BindParameters): Promise<any>;
  all(sql: string, ...bindParameters: BindParameters): Promise<any[]>;
  iterate(sql: string, ...bindParameters: BindParameters): AsyncGenerator<any, void, undefined>;
  batch(statements: readonly BatchStatement[], options?: TransactionMode | BatchOptions): Promise<ResultSet[]>;
}

/** A database: a replica of a remote one, or a plain local one. It connects when it is first used. */
export class Database implements Queries {
  constructor(opts: InSnakeCaseToo<DatabaseOpts>);
  /** Opens it. The first time, a replica is made from the remote. */
  connect(): Promise<void>;
  /** Brings the remote's changes and puts local ones that were not pushed back on top. True when something changed. */
  pull(): Promise<boolean>;
  /** Sends local changes to the remote. */
  push(): Promise<void>;
  /**
   * Gives up a local change that the remote refuses (`SqliteError.change`): it is neither pushed nor put back, and what it did
   * is gone from here with the next pull. `withDependents`: also the later changes that cannot stay without it. Gives how many
   * changes were given up.
   */
  discardChange(change: number, options?: { withDependents?: boolean }): Promise<number>;
  /**
   * Fetches absent pages: all, or those that a SELECT touches when the remote runs it. `progress` hears some twenty times a
   * second, and when all have come, how many have come and how many there are (0 = not known, with a query); what it throws ends the call.
   * What has come stays.
   */
  hydrate(options?: { query?: string; progress?: (fetched: number, total: number) => void }): Promise<{ fetched: number; absent: number }>;
  /** Moves what is in the WAL into the database file. */
  checkpoint(): Promise<void>;
  stats(): Promise<DatabaseStats>;
  exec(sql: string, options?: QueryOptions): Promise<void>;
  prepare(sql: string): StatementPromise;
  run(sql: string, ...bindParameters: BindParameters): Promise<RunResult>;
  get(sql: string, ...bindParameters: BindParameters): Promise<any>;
  all(sql: string, ...bindParameters: BindParameters): Promise<any[]>;
  iterate(sql: string, ...bindParameters: BindParameters): AsyncGenerator<any, void, undefined>;
  batch(statements: readonly BatchStatement[], options?: TransactionMode | BatchOptions): Promise<ResultSet[]>;
  /** A function that runs `fn` in a transaction; what `fn` and what it calls do with this database belongs to it. */
  transaction<F extends (...args: any[]) => any>(fn: F): TransactionFunction<F>;
  /** A function that runs `fn(txn, ...args)` in a transaction; what is done with `txn` belongs to it. */
  transactionAsync<F extends (txn: Transaction, ...args: any[]) => any>(fn: F): AsyncTransactionFunction<F>;
  /** Runs a pragma: its rows, or with `simple` the first value of the first one. */
  pragma(source: string, options?: { simple?: boolean }): Promise<any>;
  /** Whether integers are bigint unless a statement says otherwise. */
  defaultSafeIntegers(toggle?: boolean): this;
  /** Breaks what runs now: a query, a pull or a push. It fails with `SQLITE_INTERRUPT`, and nothing is lost. */
  interrupt(): void;
  /** Closes it after what was begun before. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
  /** The path. */
  readonly name: string;
  /** The path. */
  readonly path: string;
  readonly readonly: boolean;
  readonly open: boolean;
  readonly memory: boolean;
  readonly inTransaction: boolean;
}

/** Opens a database. */
export function connect(opts: InSnakeCaseToo<DatabaseOpts>): Promise<Database>;

/** How `retryFetch` tries again. */
export interface RetryFetchOpts {
  /** Default: 3. */
  attempts?: number;
  /** Pause before the second attempt. Default: 500. */
  delayMs?: number;
  /** Each further pause is this many times longer. Default: 2. */
  backoff?: number;
  /** Sends one attempt. Default: the global `fetch`. */
  fetch?: typeof fetch;
}

/** A `fetch` that tries again when the network failed or the server could not answer (408, 425, 429, 5xx). */
export function retryFetch(options?: RetryFetchOpts): typeof fetch;
