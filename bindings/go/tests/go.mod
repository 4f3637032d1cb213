module turso_tests

go 1.24

require (
	github.com/jmoiron/sqlx v1.4.0
	github.com/mattn/go-sqlite3 v1.14.22
	turso v0.0.0
)

replace turso => ../
