// Rows times what a Go program pays for rows: it prints JSON with milliseconds of every repetition, and a checksum.
//
// rows FILE REPETITIONS
package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	_ "turso"
)

const (
	rows    = 100_000
	lookups = 10_000
)

type place struct {
	id, population int64
	name           string
	area           float64
}

type measured struct {
	Check int64     `json:"check"`
	Times []float64 `json:"times"`
}

func main() {
	db, err := sql.Open("turso", os.Args[1])
	check(err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	repetitions, err := strconv.Atoi(os.Args[2])
	check(err)
	all, err := db.Prepare("SELECT id, name, population, area FROM places")
	check(err)
	one, err := db.Prepare("SELECT name, population, area FROM places WHERE id = ?")
	check(err)

	bulk := func() (total int64) {
		found, err := all.Query()
		check(err)
		defer found.Close()
		var places []place
		for found.Next() {
			var p place
			check(found.Scan(&p.id, &p.name, &p.population, &p.area))
			places = append(places, p)
		}
		check(found.Err())
		if len(places) != rows {
			log.Fatalf("%d rows", len(places))
		}
		for _, p := range places {
			total += p.population
		}
		return total
	}
	single := func() (total int64) {
		for i := int64(1); i <= lookups; i++ {
			var p place
			check(one.QueryRow(i*7919%rows+1).Scan(&p.name, &p.population, &p.area))
			total += p.population
		}
		return total
	}
	timed := func(work func() int64) measured {
		m := measured{Check: work()}
		for range repetitions {
			start := time.Now()
			work()
			m.Times = append(m.Times, float64(time.Since(start).Microseconds())/1000)
		}
		return m
	}
	answer, err := json.Marshal(map[string]measured{"bulk": timed(bulk), "single": timed(single)})
	check(err)
	fmt.Println(string(answer))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
