module turso

go 1.24
