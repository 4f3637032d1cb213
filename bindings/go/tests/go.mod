module turso_tests

go 1.24

require (
	github.com/jmoiron/sqlx v1.4.0
	turso v0.0.0
)

replace turso => ../
