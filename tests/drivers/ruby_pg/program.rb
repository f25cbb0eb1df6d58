# ruby-pg: exec, exec_params, prepared statements, type maps, single row mode, pipelines, COPY, notifications, cancel.

require "json"
require "pg"
require "timeout"

CLIENTS = 6
ROUNDS = 12
URL = ENV.fetch("DATABASE_URL")

def connected(**options)
  separator = URL.include?("?") ? "&" : "?"
  query = options.map { |name, value| "#{name}=#{value.gsub(" ", "%20").gsub("=", "%3D")}" }.join("&")
  conn = PG.connect(options.empty? ? URL : "#{URL}#{separator}#{query}")
  conn.set_notice_processor { |_| }
  yield conn
ensure
  conn&.close unless conn&.finished?
end

def value(conn, sql, parameters = [])
  (parameters.empty? ? conn.exec(sql) : conn.exec_params(sql, parameters)).getvalue(0, 0)
end

def equal(expected, actual)
  raise "expected #{expected.inspect}, got #{actual.inspect}" unless expected == actual
end

def fails(state)
  yield
rescue PG::Error => error
  found = error.result&.error_field(PG::Result::PG_DIAG_SQLSTATE)
  raise "expected #{state}, got #{error.message}" unless found == state
else
  raise "no #{state} was raised"
end

CHECKS = {
  connects: lambda {
    4.times { |n| connected { |conn| equal((n + 1).to_s, value(conn, "select $1::int + 1", [n])) } }
  },

  inserts_and_reads: lambda {
    connected do |conn|
      conn.exec("drop table if exists drv_rb_items; create table drv_rb_items (id serial primary key, name text, price numeric)")
      20.times { |n| conn.exec_params("insert into drv_rb_items (name, price) values ($1, $2)", ["item #{n}", n / 4.0]) }
      conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
      equal([{ "id" => 7, "name" => "item 6" }], conn.exec_params("select id, name from drv_rb_items where id = $1", [7]).to_a)
      binary = conn.exec_params("select id, name from drv_rb_items where id = $1", [7], 1)
      equal([[7, "item 6"]], binary.values)
      equal(10, conn.exec("delete from drv_rb_items where id > 10").cmd_tuples)
      conn.exec("drop table drv_rb_items")
    end
  },

  carries_values: lambda {
    connected do |conn|
      conn.type_map_for_queries = PG::BasicTypeMapForQueries.new(conn)
      conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
      row = conn.exec_params("select $1::int8, $2::float8, $3::text, $4::int4[], $5::bool, $6::text",
                             [2**62, 0.1, "snow ☃ 'quotes' \\", [1, nil, 3], true, nil])
      equal([2**62, 0.1, "snow ☃ 'quotes' \\", [1, nil, 3], true, nil], row.values[0])
    end
    connected do |conn|
      bytes = (0..255).to_a.pack("C*")
      [0, 1].each do |format|
        result = conn.exec_params("select $1::bytea", [{ value: bytes, type: 17, format: 1 }], format)
        found = result.getvalue(0, 0)
        equal(bytes, format == 1 ? found : PG::Connection.unescape_bytea(found))
      end
    end
  },

  commits_and_rolls_back: lambda {
    connected do |conn|
      connected do |other|
        other.exec("drop table if exists drv_rb_tx; create table drv_rb_tx (n int primary key)")
        conn.transaction do
          conn.exec("insert into drv_rb_tx values (1)")
          equal("0", value(other, "select count(*) from drv_rb_tx"))
        end
        begin
          conn.transaction { conn.exec("insert into drv_rb_tx values (2)"); raise KeyError }
        rescue KeyError
          equal(PG::PQTRANS_IDLE, conn.transaction_status)
        end
        fails("23505") { conn.transaction { conn.exec_params("insert into drv_rb_tx values ($1)", [1]) } }
        conn.exec("begin")
        conn.exec("insert into drv_rb_tx values (3)")
        conn.exec("savepoint a")
        fails("23505") { conn.exec("insert into drv_rb_tx values (3)") }
        fails("25P02") { conn.exec("select 1") }
        conn.exec("rollback to a")
        conn.exec("insert into drv_rb_tx values (4)")
        conn.exec("commit")
        equal([["1"], ["3"], ["4"]], other.exec("select n from drv_rb_tx order by n").values)
        other.exec("drop table drv_rb_tx")
      end
    end
  },

  prepares: lambda {
    connected do |conn|
      connected do |other|
        conn.prepare("drv", "select $1::int * 2")
        other.prepare("drv", "select $1::int * 3")
        equal(1, conn.describe_prepared("drv").nfields)
        ROUNDS.times do |n|
          equal((2 * n).to_s, conn.exec_prepared("drv", [n]).getvalue(0, 0))
          equal((3 * n).to_s, other.exec_prepared("drv", [n]).getvalue(0, 0))
        end
        fails("42P05") { conn.prepare("drv", "select 1") }
        conn.exec("deallocate drv")
        fails("26000") { conn.exec_prepared("drv", [1]) }
        conn.prepare("drv", "select $1::int * 5")
        equal("10", conn.exec_prepared("drv", [2]).getvalue(0, 0))
      end
    end
  },

  reads_row_by_row: lambda {
    connected do |conn|
      conn.send_query("select n from generate_series(1, 20000) n")
      conn.set_single_row_mode
      equal(20000 * 20001 / 2, conn.get_result.stream_each.sum { |row| row["n"].to_i })
      conn.get_last_result
      conn.transaction do
        conn.exec("declare drv_c cursor for select n from generate_series(1, 100) n")
        equal(30, conn.exec("fetch 30 from drv_c").ntuples)
        equal(70, conn.exec("fetch all from drv_c").ntuples)
      end
      equal("1", value(conn, "select 1"))
    end
  },

  pipelines: lambda {
    connected do |conn|
      conn.enter_pipeline_mode
      5.times do |n|
        conn.send_query_params("select $1::int", [n])
        conn.send_query_params("select 1 / $1::int", [n])
        conn.send_query_params("select 'skipped or not'", [])
        conn.pipeline_sync
      end
      statuses = 5.times.map do
        one = []
        loop do
          result = conn.get_result
          next if result.nil?
          break if result.result_status == PG::PGRES_PIPELINE_SYNC
          one << result.result_status
        end
        one
      end
      equal([PG::PGRES_TUPLES_OK, PG::PGRES_FATAL_ERROR, PG::PGRES_PIPELINE_ABORTED], statuses[0])
      equal([[PG::PGRES_TUPLES_OK] * 3] * 4, statuses[1..])
      conn.exit_pipeline_mode
      equal("1", value(conn, "select 1"))
    end
  },

  copies: lambda {
    connected do |conn|
      conn.exec("drop table if exists drv_rb_copy; create table drv_rb_copy (n int primary key, t text)")
      conn.copy_data("copy drv_rb_copy from stdin") { 5000.times { |n| conn.put_copy_data("#{n}\trow\n") } }
      count = 0
      conn.copy_data("copy drv_rb_copy to stdout") { count += 1 while conn.get_copy_data }
      equal(5000, count)
      fails("23505") { conn.copy_data("copy drv_rb_copy from stdin") { conn.put_copy_data("1\tagain\n") } }
      begin
        conn.copy_data("copy drv_rb_copy from stdin") { raise KeyError }
      rescue KeyError
        equal("5000", value(conn, "select count(*) from drv_rb_copy"))
      end
      conn.exec("drop table drv_rb_copy")
    end
  },

  notifies: lambda {
    connected do |listener|
      listener.exec("listen drv_rb_channel")
      connected { |sender| sender.exec("notify drv_rb_channel, 'hello'") }
      heard = nil
      listener.wait_for_notify(20) { |channel, _, payload| heard = [channel, payload] }
      equal(%w[drv_rb_channel hello], heard)
    end
  },

  cancels: lambda {
    connected do |conn|
      3.times do
        conn.send_query("select pg_sleep(30)")
        sleep 0.1
        conn.cancel
        fails("57014") { conn.get_last_result }
        equal("1", value(conn, "select 1"))
      end
      conn.exec("set statement_timeout = 50")
      fails("57014") { conn.exec("select pg_sleep(30)") }
    end
  },

  keeps_settings: lambda {
    connected(application_name: "drv ruby", options: "-c statement_timeout=12345") do |conn|
      equal("drv ruby", value(conn, "show application_name"))
      equal("12345ms", value(conn, "show statement_timeout"))
      conn.exec("set timezone = 'Asia/Tokyo'")
      5.times { equal("Asia/Tokyo", value(conn, "show timezone")) }
      equal("Asia/Tokyo", conn.parameter_status("TimeZone"))
      conn.reset
      equal("12345ms", value(conn, "show statement_timeout"))
      raise "the time zone survived a reset" if value(conn, "show timezone") == "Asia/Tokyo"
    end
  },

  reads_large_results: lambda {
    connected do |conn|
      rows = conn.exec("select n, repeat('x', 50) from generate_series(1, 100000) n")
      equal([100000, ["100000", "x" * 50]], [rows.ntuples, rows.values[-1]])
      equal(5_000_000, value(conn, "select $1::text", ["y" * 5_000_000]).length)
    end
  },

  shares_servers: lambda {
    connected { |conn| conn.exec("drop table if exists drv_rb_swap; create table drv_rb_swap (client int, n int)") }
    threads = CLIENTS.times.map do |number|
      Thread.new do
        Thread.current.report_on_exception = false
        connected(application_name: "drv swap #{number}") do |conn|
          conn.exec("set statement_timeout = #{50_001 + number}")
          conn.prepare("own", "select #{number} * 1000 + $1::int, current_setting('statement_timeout'), current_setting('application_name')")
          ROUNDS.times do |n|
            conn.exec("begin")
            conn.exec_params("insert into drv_rb_swap values ($1, $2)", [number, n])
            equal([(number * 1000 + n).to_s, "#{50_001 + number}ms", "drv swap #{number}"], conn.exec_prepared("own", [n]).values[0])
            conn.exec(n % 4 == 3 ? "rollback" : "commit")
          end
        end
      end
    end
    threads.each(&:join)
    connected do |conn|
      equal((CLIENTS * ROUNDS * 3 / 4).to_s, value(conn, "select count(*) from drv_rb_swap"))
      conn.exec("drop table drv_rb_swap")
    end
  },

  reconnects: lambda {
    connected do |conn|
      begin
        conn.exec("select pg_terminate_backend(pg_backend_pid())")
        conn.exec("select 1")
      rescue PG::Error
        conn.reset
        equal("1", value(conn, "select 1"))
      else
        raise "the server is gone and nothing was said"
      end
    end
  },
}.freeze

results = CHECKS.select { |name, _| ARGV.empty? || ARGV.include?(name.to_s) }.map do |name, check|
  Timeout.timeout(60) { check.call }
  [name, true]
rescue StandardError => error
  warn "--- ruby-pg: #{name}: #{error.full_message(highlight: false)}"
  [name, false]
end
puts JSON.generate(driver: "ruby-pg", version: PG::VERSION, checks: results.to_h)
exit(results.all? { |_, passed| passed })
