package tests

import (
	"testing"

	"github.com/jmoiron/sqlx"
)

func TestSqlxReadsStructsAndBindsNames(t *testing.T) {
	url := serve(t, messages)
	_, conn := replica(t, prefix(url, inFolder(t, "app.db")))
	db := sqlx.NewDb(conn, "turso")
	type message struct {
		ID     int64
		UserID string `db:"user_id"`
		Body   string
	}
	var some []message
	must(t, db.Select(&some, "SELECT id, user_id, body FROM messages WHERE user_id = ? ORDER BY id", "u_7"))
	equal(t, "messages", len(some), 100)
	equal(t, "the second", some[1].ID, 207)
	var single message
	must(t, db.Get(&single, "SELECT * FROM messages WHERE id = $1", 207))
	equal(t, "the same", single, some[1])

	type note struct {
		ID    int64
		Title string
		Body  *string
	}
	statement, err := db.PrepareNamed("SELECT * FROM notes WHERE title = :title")
	must(t, err)
	defer statement.Close()
	_, err = db.NamedExec("INSERT INTO notes(title, body) VALUES (:title, :body)", []note{{Title: "a"}, {Title: "b"}})
	must(t, err)
	var found note
	must(t, statement.Get(&found, note{Title: "b"}))
	equal(t, "the note without a body", found, note{ID: 2, Title: "b"})

	query, args, err := sqlx.In("SELECT id FROM messages WHERE id IN (?) ORDER BY id", []int{3, 1, 2})
	must(t, err)
	var ids []int
	must(t, db.Select(&ids, db.Rebind(query), args...))
	equal(t, "ids", len(ids), 3)

	tx := db.MustBegin()
	tx.MustExec("DELETE FROM notes")
	must(t, tx.Rollback())
	rows, err := db.Queryx("SELECT * FROM notes ORDER BY id")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		columns := map[string]any{}
		must(t, rows.MapScan(columns))
		if columns["body"] != nil {
			t.Fatalf("a body: %v", columns)
		}
	}
}
