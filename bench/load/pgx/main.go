// pgx 5 as a load program for the table of round trips; the lines it reads and writes are those of acting.py.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	write = "UPDATE bench_counters SET n = n + 1 WHERE id = $1"
)

var (
	ctx  = context.Background()
	conn *pgx.Conn
)

func connect() error {
	config, err := pgx.ParseConfig(os.Args[1])
	if err != nil {
		return err
	}
	if len(os.Args) > 2 && os.Args[2] == "--no-statements" {
		// Unnamed statements: Parse, Describe and Bind, as the manual of a pooler without statements asks for.
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	conn, err = pgx.ConnectConfig(ctx, config)
	return err
}

func fetch(query interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) error {
	var name, price string
	return query.QueryRow(ctx, "SELECT name, price::text FROM bench_items WHERE id = $1", 42).Scan(&name, &price)
}

func inTransaction(body func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, conn, body)
}

var acts = map[string]func() error{
	"open": func() error {
		if err := connect(); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "SELECT 1")
		return err
	},
	"close": func() error { return conn.Close(ctx) },
	"connect-read": func() error {
		if err := connect(); err != nil {
			return err
		}
		return fetch(conn)
	},
	"first-read":          func() error { return fetch(conn) },
	"read-in-transaction": func() error { return inTransaction(func(tx pgx.Tx) error { return fetch(tx) }) },
	"write-in-transaction": func() error {
		return inTransaction(func(tx pgx.Tx) error { _, err := tx.Exec(ctx, write, 42); return err })
	},
}

func say(message map[string]any) {
	text, _ := json.Marshal(message)
	fmt.Println(string(text))
}

func main() {
	say(map[string]any{"end": true})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		start := time.Now()
		err := acts[strings.Fields(lines.Text())[0]]()
		message := map[string]any{"end": true, "seconds": time.Since(start).Seconds()}
		if err != nil {
			message["error"] = err.Error()
		}
		say(message)
	}
}
