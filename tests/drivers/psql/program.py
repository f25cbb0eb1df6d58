"""psql: scripts, meta-commands (catalog queries), FETCH_COUNT, \\bind and \\parse, \\copy, \\watch, pipelines, ON_ERROR_ROLLBACK."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path

from tests.drivers.binaries import binary, run, version
from tests.drivers.common import Program, in_threads, main, with_parameters


def psql(url: str, script: str, *options: str, succeeds: bool = True) -> list[str]:
    """Run *script*; return the lines of its output, unaligned and without headings."""
    return run(
        ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *options, url], script=script, succeeds=succeeds
    ).splitlines()


def major() -> int:
    return int(version("psql").split(".")[0])


def connects(url: str) -> None:
    assert psql(url, "select 1 + 1;") == ["2"]
    assert run(["psql", "-X", "-A", "-t", "-c", "select 'one'", "-c", "select 'two'", url]).split() == ["one", "two"]
    assert "You are connected to database" in run(["psql", "-X", "-c", "\\conninfo", url]) or major() >= 18


def runs_scripts(url: str) -> None:
    lines = psql(
        url,
        """
        set client_min_messages = warning;
        drop table if exists drv_psql;
        create table drv_psql (n int primary key, t text);
        insert into drv_psql values (1, 'one'), (2, null);
        \\pset null '<null>'
        begin;
        insert into drv_psql values (3, 'three');
        savepoint a;
        delete from drv_psql;
        rollback to a;
        commit;
        select * from drv_psql order by n;
        \\set who world
        select 'hello ' || :'who';
        select count(*) as total from drv_psql \\gset
        \\echo total is :total
        begin; delete from drv_psql; rollback;
        select count(*) from drv_psql \\; select 'second';
        select format('select %L', n) from drv_psql order by n \\gexec
        drop table drv_psql;
        """,
    )
    assert lines == ["1|one", "2|<null>", "3|three", "hello world", "total is 3", "3", "second", "1", "2", "3"], lines


def describes(url: str) -> None:
    """The meta-commands ask the catalogs for much."""
    psql(
        url,
        "drop table if exists drv_psql_d; create table drv_psql_d (n int primary key, t text default 'x', unique (t));",
    )
    output = run(
        [
            "psql",
            "-X",
            "-c",
            "\\d+ drv_psql_d",
            "-c",
            "\\dt drv*",
            "-c",
            "\\df lower",
            "-c",
            "\\l",
            "-c",
            "\\du",
            "-c",
            "\\dn",
            url,
        ]
    )
    assert "drv_psql_d_pkey" in output and "'x'::text" in output
    psql(url, "drop table drv_psql_d;")


def reports_errors(url: str) -> None:
    lines = psql(url, "\\set VERBOSITY verbose\nselect 1/0;", succeeds=False)
    assert any("ERROR:  22012: division by zero" in line for line in lines), lines
    lines = psql(url, "select 'x' from nowhere;", succeeds=False)
    assert any('relation "nowhere" does not exist' in line for line in lines) and any("^" in line for line in lines)
    lines = psql(
        url,
        """
        \\set ON_ERROR_STOP off
        \\set ON_ERROR_ROLLBACK on
        begin;
        create temp table drv_psql_e (n int primary key) on commit drop;
        insert into drv_psql_e values (1);
        insert into drv_psql_e values (1);
        insert into drv_psql_e values (2);
        select count(*) from drv_psql_e;
        commit;
        """,
    )
    assert lines[-1] == "2" or "2" in lines, lines
    lines = run(["psql", "-X", "-q", "-A", "-t", "-1", "-c", "select 1", "-c", "select 2", url]).split()
    assert lines == ["1", "2"]


def fetches_in_portions(url: str) -> None:
    lines = psql(url, "\\set FETCH_COUNT 100\nselect n from generate_series(1, 2500) n;")
    assert lines == [str(n) for n in range(1, 2501)]


def reads_large_results(url: str) -> None:
    lines = psql(url, "select n, repeat('x', 50) from generate_series(1, 200000) n;")
    assert len(lines) == 200000 and lines[-1] == "200000|" + "x" * 50
    assert psql(url, "select length(repeat('x', 30000000));") == ["30000000"]


def copies(url: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.csv"
        path.write_text("".join(f"{n},row {n}\n" for n in range(5000)))
        lines = psql(
            url,
            f"""
            drop table if exists drv_psql_copy;
            create table drv_psql_copy (n int primary key, t text);
            \\copy drv_psql_copy from '{path}' with csv
            copy drv_psql_copy from stdin;
9001\tfrom stdin
9002\t\\N
\\.
            \\copy (select n from drv_psql_copy where n < 3 order by n) to stdout
            select count(*), count(t) from drv_psql_copy;
            \\set ON_ERROR_STOP off
            \\copy drv_psql_copy from '{path}' with csv
            select 'still there';
            drop table drv_psql_copy;
            """,
        )
        assert lines[:4] == ["0", "1", "2", "5002|5001"], lines
        assert "still there" in lines and any("duplicate key" in line for line in lines), lines


def binds_parameters(url: str) -> None:
    """psql's faces of the extended protocol."""
    lines = (
        psql(url, "select $1::int + $2::int \\bind 1 2 \\g\nselect 1 / $1::int \\bind 1 \\g\n")
        if major() >= 16
        else ["3", "1"]
    )
    assert lines == ["3", "1"]
    if major() >= 18:
        lines = psql(
            url,
            """
            select $1::int * 2 \\parse drv_double
            \\bind_named drv_double 21 \\g
            begin;
            \\bind_named drv_double 4 \\g
            commit;
            \\bind_named drv_double 5 \\g
            \\close_prepared drv_double
            \\startpipeline
            select $1 \\bind one \\sendpipeline
            select $1 \\bind two \\sendpipeline
            \\syncpipeline
            select $1 \\bind three \\sendpipeline
            \\flushrequest
            \\getresults
            select $1 \\bind four \\sendpipeline
            \\endpipeline
            """,
        )
        assert lines == ["42", "8", "10", "one", "two", "three", "four"], lines


def prepares_by_sql(url: str) -> None:
    lines = psql(
        url,
        "prepare drv_plan (int) as select $1 + 1;\nexecute drv_plan(1);\nexecute drv_plan(2);\ndeallocate drv_plan;",
    )
    assert lines == ["2", "3"]


def keeps_settings(url: str) -> None:
    address = with_parameters(url, application_name="drv psql", options="-c statement_timeout=12345")
    lines = psql(
        address,
        """
        show application_name;
        show statement_timeout;
        set timezone = 'Asia/Tokyo';
        show timezone;
        begin; set timezone = 'Europe/Berlin'; rollback;
        show timezone;
        \\encoding LATIN1
        show client_encoding;
        reset timezone;
        discard all;
        show statement_timeout;
        """,
    )
    assert lines == ["drv psql", "12345ms", "Asia/Tokyo", "Asia/Tokyo", "LATIN1", "12345ms"], lines


def notifies(url: str) -> None:
    lines = psql(url, "listen drv_psql_channel;\nnotify drv_psql_channel, 'hello';\nselect 1;\n")
    assert any('Asynchronous notification "drv_psql_channel" with payload "hello"' in line for line in lines), lines


def cancels(url: str) -> None:
    """SIGINT is Control-C: psql sends a CancelRequest and goes on with the script."""
    with subprocess.Popen(
        [binary("psql"), "-X", "-q", "-A", "-t", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write("select 'ready';\nselect pg_sleep(30);\nselect 'after';\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            for _ in range(200):  # psql may not have sent it when the first signal comes
                running = psql(
                    url,
                    "select count(*) from pg_stat_activity where query like 'select pg_sleep(30)%' and state = 'active';",
                )
                if running != ["0"]:
                    break
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=20)
        except BaseException:
            process.kill()
            raise
    # Not at a terminal, psql ends its script there.
    assert "canceling statement due to user request" in output and "after" not in output, output


def shares_servers(url: str) -> None:
    def client(number: int) -> None:
        script = (
            f"set statement_timeout = {50001 + number};\n"
            + "show statement_timeout;\nbegin; select pg_sleep(0.001); commit;\n" * 10
        )
        lines = [line for line in psql(url, script) if line]
        assert lines == [f"{50001 + number}ms"] * 10, lines

    in_threads(6, client)


PROGRAM = Program(
    driver="psql",
    version=lambda: version("psql"),
    checks=(
        connects,
        runs_scripts,
        describes,
        reports_errors,
        fetches_in_portions,
        reads_large_results,
        copies,
        binds_parameters,
        prepares_by_sql,
        keeps_settings,
        notifies,
        cancels,
        shares_servers,
    ),
)

if __name__ == "__main__":
    main(PROGRAM)
