// Package turso opens local SQLite databases and replicas of remote ones.
//
// A replica holds some pages of a remote database. A query that touches a page that is not here fetches it in the middle
// of that query; writes commit locally and are pushed as SQL; a pull brings the remote's changes and puts unpushed ones
// back on top.
//
//	db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{
//		Path:            "./app.db",
//		RemoteUrl:       "libsql://...",
//		RemoteAuthToken: os.Getenv("TURSO_AUTH_TOKEN"),
//		PartialSyncConfig: turso.TursoPartialSyncConfig{
//			BoostrapStrategyPrefix: 128 * 1024,
//		},
//	})
//	conn, err := db.Connect(ctx) // *sql.DB
//
// Plain local databases are opened with database/sql alone:
//
//	db, err := sql.Open("turso", "./local.db?_busy_timeout=10000")
//
// A context that ends breaks whatever waits: a page fetch in the middle of a query, a lock, a pull, a push, the first
// connect. The error is then both the context's and [ErrTursoInterrupt], and all handles stay usable.
package turso
