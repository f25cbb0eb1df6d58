// pgx 5: its five query modes, prepared statement cache, batches, COPY, notifications, cancel by context, pgxpool.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	clients = 6
	rounds  = 12
)

var url = os.Getenv("DATABASE_URL")

var modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec,
	pgx.QueryExecModeSimpleProtocol,
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(expected, actual any) {
	if fmt.Sprint(expected) != fmt.Sprint(actual) {
		panic(fmt.Sprintf("expected %v, got %v", expected, actual))
	}
}

func fails(state string, err error) {
	var found *pgconn.PgError
	if !errors.As(err, &found) || found.Code != state {
		panic(fmt.Sprintf("expected %s, got %v", state, err))
	}
}

func connected(ctx context.Context, body func(*pgx.Conn), change ...func(*pgx.ConnConfig)) {
	config, err := pgx.ParseConfig(url)
	must(err)
	for _, one := range change {
		one(config)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	must(err)
	defer conn.Close(context.Background())
	body(conn)
}

func exec(ctx context.Context, conn *pgx.Conn, sql string, arguments ...any) {
	_, err := conn.Exec(ctx, sql, arguments...)
	must(err)
}

func value[T any](ctx context.Context, conn *pgx.Conn, sql string, arguments ...any) (result T) {
	must(conn.QueryRow(ctx, sql, arguments...).Scan(&result))
	return
}

func together(count int, body func(int)) {
	var group sync.WaitGroup
	failures := make(chan any, count)
	for n := range count {
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() {
				if failure := recover(); failure != nil {
					failures <- failure
				}
			}()
			body(n)
		}()
	}
	group.Wait()
	select {
	case failure := <-failures:
		panic(failure)
	default:
	}
}

func connects(ctx context.Context) {
	for n := range 4 {
		connected(ctx, func(conn *pgx.Conn) {
			must(conn.Ping(ctx))
			equal(n+1, value[int](ctx, conn, "select $1::int + 1", n))
		})
	}
}

func worksInEachMode(ctx context.Context) {
	for _, mode := range modes {
		connected(ctx, func(conn *pgx.Conn) {
			for n := range rounds {
				equal(2*n, value[int](ctx, conn, "select $1::int * 2", n))
				_, err := conn.Exec(ctx, "select 1 / $1::int", 0)
				fails("22012", err)
				tx, err := conn.Begin(ctx)
				must(err)
				var text string
				must(tx.QueryRow(ctx, "select $1::text || 'x'", "y").Scan(&text))
				equal("yx", text)
				must(tx.Commit(ctx))
			}
		}, func(config *pgx.ConnConfig) { config.DefaultQueryExecMode = mode })
	}
}

func insertsAndReads(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		exec(ctx, conn, "drop table if exists drv_pgx_items")
		exec(ctx, conn, "create table drv_pgx_items (id serial primary key, name text, price float8)")
		for n := range 20 {
			exec(ctx, conn, "insert into drv_pgx_items (name, price) values ($1, $2)", fmt.Sprintf("item %d", n), float64(n)/4)
		}
		type item struct {
			ID    int
			Name  string
			Price float64
		}
		rows, err := conn.Query(ctx, "select id, name, price from drv_pgx_items where id between $1 and $2 order by id", 7, 8)
		must(err)
		items, err := pgx.CollectRows(rows, pgx.RowToStructByPos[item])
		must(err)
		equal([]item{{7, "item 6", 1.5}, {8, "item 7", 1.75}}, items)
		tag, err := conn.Exec(ctx, "delete from drv_pgx_items where id > @id", pgx.NamedArgs{"id": 10})
		must(err)
		equal(10, tag.RowsAffected())
		exec(ctx, conn, "drop table drv_pgx_items")
	})
}

func carriesValues(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		blob := make([]byte, 256)
		for n := range blob {
			blob[n] = byte(n)
		}
		moment := time.Date(2024, 2, 29, 12, 34, 56, 789012000, time.UTC)
		var (
			null   *string
			number int64
			text   string
			bytea  []byte
			when   time.Time
			array  []*int32
			object map[string]any
			flag   bool
		)
		one := int32(1)
		must(conn.QueryRow(ctx, "select $1::text, $2::int8, $3::text, $4::bytea, $5::timestamptz, $6::int4[], $7::jsonb, $8::bool",
			nil, int64(1)<<62, "snow ☃ 'quotes' \\", blob, moment, []*int32{&one, nil}, map[string]any{"a": []any{"b"}}, true,
		).Scan(&null, &number, &text, &bytea, &when, &array, &object, &flag))
		equal(true, null == nil && array[1] == nil && *array[0] == 1 && flag)
		equal(int64(1)<<62, number)
		equal("snow ☃ 'quotes' \\", text)
		equal(true, bytes.Equal(blob, bytea))
		equal(true, moment.Equal(when))
		equal(map[string]any{"a": []any{"b"}}, object)
		exec(ctx, conn, "drop type if exists drv_pgx_mood; create type drv_pgx_mood as enum ('sad', 'ok')")
		mood, err := conn.LoadType(ctx, "drv_pgx_mood")
		must(err)
		conn.TypeMap().RegisterType(mood)
		equal("ok", value[string](ctx, conn, "select $1::drv_pgx_mood", "ok"))
		exec(ctx, conn, "drop type drv_pgx_mood")
	})
}

func commitsAndRollsBack(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		connected(ctx, func(other *pgx.Conn) {
			exec(ctx, other, "drop table if exists drv_pgx_tx; create table drv_pgx_tx (n int primary key)")
			must(pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into drv_pgx_tx values ($1)", 1)
				equal(0, value[int](ctx, other, "select count(*) from drv_pgx_tx"))
				return err
			}))
			mine := errors.New("mine")
			equal(mine, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into drv_pgx_tx values (2)")
				must(err)
				return mine
			}))
			must(pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into drv_pgx_tx values (3)")
				must(err)
				fails("23505", pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error { // a savepoint
					_, err := inner.Exec(ctx, "insert into drv_pgx_tx values (3)")
					return err
				}))
				_, err = tx.Exec(ctx, "insert into drv_pgx_tx values (4)")
				return err
			}))
			tx, err := conn.Begin(ctx)
			must(err)
			_, err = tx.Exec(ctx, "insert into drv_pgx_tx values (1)")
			fails("23505", err)
			_, err = tx.Exec(ctx, "select 1")
			fails("25P02", err)
			equal(pgx.ErrTxCommitRollback, tx.Commit(ctx)) // pgx looks at the tag ROLLBACK
			equal("1,3,4", value[string](ctx, other, "select string_agg(n::text, ',' order by n) from drv_pgx_tx"))
			exec(ctx, other, "drop table drv_pgx_tx")
		})
	})
}

func prepares(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		connected(ctx, func(other *pgx.Conn) {
			_, err := conn.Prepare(ctx, "drv", "select $1::int * 2")
			must(err)
			_, err = other.Prepare(ctx, "drv", "select $1::int * 3")
			must(err)
			for n := range rounds {
				equal(2*n, value[int](ctx, conn, "drv", n))
				equal(3*n, value[int](ctx, other, "drv", n))
			}
			must(conn.Deallocate(ctx, "drv"))
			_, err = conn.Prepare(ctx, "drv", "select $1::int * 5")
			must(err)
			equal(10, value[int](ctx, conn, "drv", 2))
			must(conn.DeallocateAll(ctx))
		})
	})
	connected(ctx, func(conn *pgx.Conn) { // the cache overflows: pgx deallocates
		for n := range 40 {
			equal(n%7+n, value[int](ctx, conn, fmt.Sprintf("select $1::int + %d", n%7), n))
		}
	}, func(config *pgx.ConnConfig) { config.StatementCacheCapacity = 3 })
}

func sendsBatches(ctx context.Context) {
	for _, mode := range modes {
		connected(ctx, func(conn *pgx.Conn) {
			batch := &pgx.Batch{}
			for n := range 50 {
				batch.Queue("select $1::int * 2", n).QueryRow(func(row pgx.Row) error {
					var result int
					must(row.Scan(&result))
					equal(2*n, result)
					return nil
				})
			}
			must(conn.SendBatch(ctx, batch).Close())
			broken := &pgx.Batch{}
			broken.Queue("select 1")
			broken.Queue("select 1 / $1::int", 0)
			broken.Queue("select 2")
			fails("22012", conn.SendBatch(ctx, broken).Close())
			equal(3, value[int](ctx, conn, "select 3"))
		}, func(config *pgx.ConnConfig) { config.DefaultQueryExecMode = mode })
	}
	connected(ctx, func(conn *pgx.Conn) { // a pipeline with several Syncs in flight
		pipeline := conn.PgConn().StartPipeline(ctx)
		for range 5 {
			pipeline.SendQueryParams("select 1", nil, nil, nil, nil)
			must(pipeline.Sync())
		}
		results, syncs := 0, 0
		for range 10 {
			got, err := pipeline.GetResults()
			must(err)
			switch reply := got.(type) {
			case *pgconn.ResultReader:
				equal(1, len(reply.Read().Rows))
				results++
			case *pgconn.PipelineSync:
				syncs++
			}
		}
		equal([]int{5, 5}, []int{results, syncs})
		must(pipeline.Close())
	})
}

func copies(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		exec(ctx, conn, "drop table if exists drv_pgx_copy; create table drv_pgx_copy (n int primary key, t text)")
		source := func() pgx.CopyFromSource {
			return pgx.CopyFromSlice(5000, func(n int) ([]any, error) { return []any{n, fmt.Sprintf("row %d", n)}, nil })
		}
		count, err := conn.CopyFrom(ctx, pgx.Identifier{"drv_pgx_copy"}, []string{"n", "t"}, source())
		must(err)
		equal(5000, count)
		var out bytes.Buffer
		tag, err := conn.PgConn().CopyTo(ctx, &out, "copy drv_pgx_copy to stdout")
		must(err)
		equal("COPY 5000", tag.String())
		_, err = conn.CopyFrom(ctx, pgx.Identifier{"drv_pgx_copy"}, []string{"n", "t"}, source())
		fails("23505", err)
		_, err = conn.CopyFrom(ctx, pgx.Identifier{"drv_pgx_copy"}, []string{"n", "t"}, pgx.CopyFromFunc(func() ([]any, error) { return nil, errors.New("mine") }))
		fails("57014", err) // CopyFail
		equal(5000, value[int](ctx, conn, "select count(*) from drv_pgx_copy"))
		exec(ctx, conn, "drop table drv_pgx_copy")
	})
}

func notifies(ctx context.Context) {
	connected(ctx, func(listener *pgx.Conn) {
		connected(ctx, func(sender *pgx.Conn) {
			exec(ctx, listener, "listen drv_pgx_channel")
			exec(ctx, sender, "select pg_notify('drv_pgx_channel', $1)", "hello")
			note, err := listener.WaitForNotification(ctx)
			must(err)
			equal("hello", note.Payload)
			exec(ctx, listener, "unlisten *")
		})
	})
}

func cancels(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		for range 3 {
			timer := time.AfterFunc(200*time.Millisecond, func() { must(conn.PgConn().CancelRequest(ctx)) })
			_, err := conn.Exec(ctx, "select pg_sleep(30)")
			fails("57014", err)
			timer.Stop()
			equal(1, value[int](ctx, conn, "select 1"))
		}
	})
	connected(ctx, func(conn *pgx.Conn) { // a context's end closes the connection
		short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
		defer stop()
		_, err := conn.Exec(short, "select pg_sleep(30)")
		equal(true, errors.Is(err, context.DeadlineExceeded))
		equal(true, conn.IsClosed())
	})
}

func keepsSettings(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		show := func(name string) string { return value[string](ctx, conn, "select current_setting($1)", name) }
		equal("drv pgx", show("application_name"))
		equal("12345ms", show("statement_timeout"))
		exec(ctx, conn, "set timezone = 'Asia/Tokyo'")
		for range 5 {
			equal("Asia/Tokyo", show("timezone"))
		}
		equal("Asia/Tokyo", conn.PgConn().ParameterStatus("TimeZone"))
		exec(ctx, conn, "reset all")
		equal("12345ms", show("statement_timeout"))
	}, func(config *pgx.ConnConfig) {
		config.RuntimeParams["application_name"] = "drv pgx"
		config.RuntimeParams["statement_timeout"] = "12345"
	})
}

func readsLargeResults(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		rows, err := conn.Query(ctx, "select n, repeat('x', 50) from generate_series(1, $1::int) n", 100000)
		must(err)
		count := 0
		for rows.Next() {
			count++
		}
		must(rows.Err())
		equal(100000, count)
		blob := bytes.Repeat([]byte{0, 255}, 2_500_000)
		equal(true, bytes.Equal(blob, value[[]byte](ctx, conn, "select $1::bytea", blob)))
	})
}

func sharesServers(ctx context.Context) {
	connected(ctx, func(conn *pgx.Conn) {
		exec(ctx, conn, "drop table if exists drv_pgx_swap; create table drv_pgx_swap (client int, n int)")
		together(clients, func(number int) {
			connected(ctx, func(conn *pgx.Conn) {
				exec(ctx, conn, fmt.Sprintf("set statement_timeout = %d", 50001+number))
				for n := range rounds {
					tx, err := conn.Begin(ctx)
					must(err)
					_, err = tx.Exec(ctx, "insert into drv_pgx_swap values ($1, $2)", number, n)
					must(err)
					var got string
					must(tx.QueryRow(ctx, fmt.Sprintf("select %d || current_setting('statement_timeout') || current_setting('application_name')", number)).Scan(&got))
					equal(fmt.Sprintf("%d%dmsdrv swap %d", number, 50001+number, number), got)
					if n%4 == 3 {
						must(tx.Rollback(ctx))
					} else {
						must(tx.Commit(ctx))
					}
				}
			}, func(config *pgx.ConnConfig) {
				config.RuntimeParams["application_name"] = fmt.Sprintf("drv swap %d", number)
			})
		})
		equal(clients*rounds*3/4, value[int](ctx, conn, "select count(*) from drv_pgx_swap"))
		exec(ctx, conn, "drop table drv_pgx_swap")
	})
}

func pools(ctx context.Context) {
	config, err := pgxpool.ParseConfig(url)
	must(err)
	config.MaxConns, config.MinConns = 6, 2
	pool, err := pgxpool.NewWithConfig(ctx, config)
	must(err)
	defer pool.Close()
	together(10, func(number int) {
		for n := range rounds {
			var got int
			must(pool.QueryRow(ctx, "select $1::int * 100 + $2::int", number, n).Scan(&got))
			equal(number*100+n, got)
		}
	})
}

func reconnects(ctx context.Context) {
	config, err := pgxpool.ParseConfig(url)
	must(err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(ctx, config)
	must(err)
	defer pool.Close()
	if _, err := pool.Exec(ctx, "select pg_terminate_backend(pg_backend_pid())"); err == nil {
		panic("the server is gone and nothing was said")
	}
	var one int
	must(pool.QueryRow(ctx, "select 1").Scan(&one))
}

func main() {
	checks := []struct {
		name string
		run  func(context.Context)
	}{
		{"connects", connects}, {"worksInEachMode", worksInEachMode}, {"insertsAndReads", insertsAndReads}, {"carriesValues", carriesValues},
		{"commitsAndRollsBack", commitsAndRollsBack}, {"prepares", prepares}, {"sendsBatches", sendsBatches}, {"copies", copies},
		{"notifies", notifies}, {"cancels", cancels}, {"keepsSettings", keepsSettings}, {"readsLargeResults", readsLargeResults},
		{"sharesServers", sharesServers}, {"pools", pools}, {"reconnects", reconnects},
	}
	results := map[string]bool{}
	passed := true
	for _, check := range checks {
		if len(os.Args) > 1 && !strings.Contains(" "+strings.Join(os.Args[1:], " ")+" ", " "+check.name+" ") {
			continue
		}
		func() {
			ctx, stop := context.WithTimeout(context.Background(), time.Minute)
			defer stop()
			defer func() {
				failure := recover()
				results[check.name] = failure == nil
				if failure != nil {
					passed = false
					fmt.Fprintf(os.Stderr, "--- pgx: %s: %v\n%s\n", check.name, failure, debug.Stack())
				}
			}()
			check.run(ctx)
		}()
	}
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/jackc/pgx/v5" {
				version = module.Version
			}
		}
	}
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{"driver": "pgx", "version": version, "checks": results}))
	if !passed {
		os.Exit(1)
	}
}
