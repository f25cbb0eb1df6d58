// pgjdbc: extended protocol throughout, server-side preparation from the fifth execution, batches, cursors by fetch size,
// COPY, notifications, cancel, and HikariCP as the pool.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.*;
import java.time.OffsetDateTime;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public final class Program {
    static final int CLIENTS = 6;
    static final int ROUNDS = 12;
    static String url;
    static Properties properties = new Properties();

    interface Check {
        void run() throws Exception;
    }

    interface Body {
        void run(Connection connection) throws Exception;
    }

    static Connection connect(String... more) throws SQLException {
        Properties all = new Properties();
        all.putAll(properties);
        for (int n = 0; n < more.length; n += 2) all.setProperty(more[n], more[n + 1]);
        return DriverManager.getConnection(url, all);
    }

    static void with(Body body, String... more) throws Exception {
        try (Connection connection = connect(more)) {
            body.run(connection);
        }
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static String value(Connection connection, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int n = 0; n < parameters.length; n++) statement.setObject(n + 1, parameters[n]);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                return rows.getString(1);
            }
        }
    }

    static void equal(Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) throw new AssertionError("expected " + expected + ", got " + actual);
    }

    static void fails(String state, Check check) throws Exception {
        try {
            check.run();
        } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) throw error;
            return;
        }
        throw new AssertionError("no " + state);
    }

    static void together(int count, ThrowingInt body) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(count);
        List<Future<?>> all = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            int number = n;
            all.add(threads.submit(() -> { body.run(number); return null; }));
        }
        try {
            for (Future<?> one : all) one.get(60, TimeUnit.SECONDS);
        } finally {
            threads.shutdownNow();
        }
    }

    interface ThrowingInt {
        void run(int number) throws Exception;
    }

    static void connects() throws Exception {
        for (int n = 0; n < 4; n++) {
            int number = n;
            with(c -> {
                equal("" + (number + 1), value(c, "select ?::int + 1", number));
                equal(true, c.isValid(5));
                equal("PostgreSQL", c.getMetaData().getDatabaseProductName());
            });
        }
    }

    static void insertsAndReads() throws Exception {
        with(c -> {
            execute(c, "drop table if exists drv_jdbc_items; create table drv_jdbc_items (id serial primary key, name text, price numeric)");
            try (PreparedStatement insert = c.prepareStatement("insert into drv_jdbc_items (name, price) values (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int n = 0; n < 500; n++) {
                    insert.setString(1, "item " + n);
                    insert.setBigDecimal(2, BigDecimal.valueOf(n).divide(BigDecimal.valueOf(4)));
                    insert.addBatch();
                }
                equal(500, insert.executeBatch().length);
                try (ResultSet keys = insert.getGeneratedKeys()) {
                    int count = 0;
                    while (keys.next()) equal(++count, keys.getInt(1));
                    equal(500, count);
                }
            }
            equal("item 6", value(c, "select name from drv_jdbc_items where id = ?", 7));
            try (ResultSet columns = c.getMetaData().getColumns(null, "public", "drv_jdbc_items", "%")) {
                int count = 0;
                while (columns.next()) count++;
                equal(3, count);
            }
            try (Statement statement = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
                 ResultSet rows = statement.executeQuery("select id, name from drv_jdbc_items where id = 3")) {
                rows.next();
                rows.updateString("name", "changed");
                rows.updateRow();
            }
            equal("changed", value(c, "select name from drv_jdbc_items where id = ?", 3));
            execute(c, "drop table drv_jdbc_items");
        });
    }

    static void carriesValues() throws Exception {
        for (String binary : List.of("true", "false")) {
            with(c -> {
                byte[] bytes = new byte[256];
                for (int n = 0; n < 256; n++) bytes[n] = (byte) n;
                OffsetDateTime moment = OffsetDateTime.parse("2024-02-29T12:34:56.789012Z");
                // More often than prepareThreshold: binary results come with server-side preparation.
                try (PreparedStatement s = c.prepareStatement("select ?::int4, ?::int8, ?::float8, ?::numeric, ?::text, ?::bytea, ?::timestamptz, ?::uuid, ?::bool, ?::int4[], ?::jsonb, ?::text")) {
                    for (int n = 0; n < 8; n++) {
                        s.setInt(1, Integer.MIN_VALUE);
                        s.setLong(2, 1L << 62);
                        s.setDouble(3, 0.1);
                        s.setBigDecimal(4, new BigDecimal("12345678901234567890.0123456789"));
                        s.setString(5, "snow ☃ 'quotes' \\");
                        s.setBytes(6, bytes);
                        s.setObject(7, moment);
                        s.setObject(8, new UUID(0, 5));
                        s.setBoolean(9, true);
                        s.setArray(10, c.createArrayOf("int4", new Object[] {1, null, 3}));
                        s.setString(11, "{\"a\": [1, null]}");
                        s.setNull(12, Types.VARCHAR);
                        try (ResultSet r = s.executeQuery()) {
                            r.next();
                            equal(Integer.MIN_VALUE, r.getInt(1));
                            equal(1L << 62, r.getLong(2));
                            equal(0.1, r.getDouble(3));
                            equal(new BigDecimal("12345678901234567890.0123456789"), r.getBigDecimal(4));
                            equal("snow ☃ 'quotes' \\", r.getString(5));
                            equal(true, Arrays.equals(bytes, r.getBytes(6)));
                            equal(moment.toInstant(), r.getObject(7, OffsetDateTime.class).toInstant());
                            equal(new UUID(0, 5), r.getObject(8));
                            equal(true, r.getBoolean(9));
                            equal("[1, null, 3]", Arrays.toString((Object[]) r.getArray(10).getArray()));
                            equal("{\"a\": [1, null]}", r.getString(11));
                            equal(null, r.getString(12));
                        }
                    }
                }
            }, "binaryTransfer", binary);
        }
    }

    static void commitsAndRollsBack() throws Exception {
        with(c -> with(other -> {
            execute(other, "drop table if exists drv_jdbc_tx; create table drv_jdbc_tx (n int primary key)");
            c.setAutoCommit(false);
            execute(c, "insert into drv_jdbc_tx values (1)");
            equal("0", value(other, "select count(*) from drv_jdbc_tx"));
            c.commit();
            execute(c, "insert into drv_jdbc_tx values (2)");
            c.rollback();
            fails("23505", () -> execute(c, "insert into drv_jdbc_tx values (1)"));
            fails("25P02", () -> execute(c, "select 1"));
            c.rollback();
            execute(c, "insert into drv_jdbc_tx values (3)");
            Savepoint savepoint = c.setSavepoint("a");
            fails("23505", () -> execute(c, "insert into drv_jdbc_tx values (3)"));
            c.rollback(savepoint);
            execute(c, "insert into drv_jdbc_tx values (4)");
            c.commit();
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            c.setReadOnly(true);
            equal("serializable", value(c, "show transaction_isolation"));
            fails("25006", () -> execute(c, "insert into drv_jdbc_tx values (5)"));
            c.rollback();
            equal("1,3,4", value(other, "select string_agg(n::text, ',' order by n) from drv_jdbc_tx"));
            execute(other, "drop table drv_jdbc_tx");
        }));
    }

    static void survivesErrorsByAutosave() throws Exception {
        with(c -> {
            c.setAutoCommit(false);
            execute(c, "create temp table drv_jdbc_auto (n int primary key) on commit drop");
            execute(c, "insert into drv_jdbc_auto values (1)");
            fails("23505", () -> execute(c, "insert into drv_jdbc_auto values (1)"));
            equal("1", value(c, "select count(*) from drv_jdbc_auto"));
            c.commit();
        }, "autosave", "always");
    }

    static void preparesOnTheServer() throws Exception {
        with(c -> with(other -> {
            try (PreparedStatement one = c.prepareStatement("select ?::int * 2"); PreparedStatement two = other.prepareStatement("select ?::int * 3");
                 PreparedStatement divide = c.prepareStatement("select 1 / ?::int")) {
                for (int n = 0; n < 20; n++) { // prepareThreshold is 5
                    for (PreparedStatement statement : List.of(one, two)) {
                        statement.setInt(1, n);
                        try (ResultSet rows = statement.executeQuery()) {
                            rows.next();
                            equal(n * (statement == one ? 2 : 3), rows.getInt(1));
                        }
                    }
                    divide.setInt(1, 0);
                    fails("22012", divide::executeQuery);
                    divide.setInt(1, 1);
                    divide.executeQuery().close();
                    if (n % 4 == 0) {
                        c.setAutoCommit(false);
                        equal("" + n, value(c, "select ?::int", n));
                        c.commit();
                        c.setAutoCommit(true);
                    }
                }
            }
            execute(c, "deallocate all");
            equal("1", value(c, "select 1"));
        }));
        with(c -> { // more statements than the driver keeps: it closes the oldest
            for (int n = 0; n < 60; n++) equal("" + (n % 20 + n), value(c, "select ?::int + " + n % 20, n));
        }, "prepareThreshold", "1", "preparedStatementCacheQueries", "5");
        with(c -> {
            for (int n = 0; n < 10; n++) equal("" + n, value(c, "select ?::int", n));
        }, "preferQueryMode", "simple");
        with(c -> {
            for (int n = 0; n < 10; n++) equal("" + n, value(c, "select ?::int", n));
        }, "preferQueryMode", "extendedForPrepared");
        with(c -> {
            for (int n = 0; n < 10; n++) equal("" + n, value(c, "select ?::int", n));
        }, "preferQueryMode", "extendedCacheEverything");
    }

    static void readsWithCursors() throws Exception {
        with(c -> {
            c.setAutoCommit(false);
            try (PreparedStatement statement = c.prepareStatement("select n from generate_series(1, ?) n")) {
                statement.setFetchSize(100);
                for (int round = 0; round < 7; round++) {
                    statement.setInt(1, 1050);
                    try (ResultSet rows = statement.executeQuery()) {
                        int count = 0;
                        while (rows.next()) {
                            equal(++count, rows.getInt(1));
                            if (count == 250) equal("5", value(c, "select 5")); // the portal stays open meanwhile
                        }
                        equal(1050, count);
                    }
                    if (round % 2 == 0) c.commit();
                }
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next(); // left early: the portal is closed with the next statement
                }
            }
            equal("1", value(c, "select 1"));
            c.commit();
        });
    }

    static void copies() throws Exception {
        with(c -> {
            execute(c, "drop table if exists drv_jdbc_copy; create table drv_jdbc_copy (n int primary key, t text)");
            CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder text = new StringBuilder();
            for (int n = 0; n < 5000; n++) text.append(n).append("\trow\n");
            equal(5000L, copy.copyIn("copy drv_jdbc_copy from stdin", new StringReader(text.toString())));
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            equal(5000L, copy.copyOut("copy drv_jdbc_copy to stdout", out));
            equal(text.length(), out.size());
            fails("23505", () -> copy.copyIn("copy drv_jdbc_copy from stdin", new StringReader(text.toString())));
            var cancelled = copy.copyIn("copy drv_jdbc_copy from stdin");
            cancelled.writeToCopy("9000\tx\n".getBytes(), 0, 7);
            cancelled.cancelCopy();
            equal("5000", value(c, "select count(*) from drv_jdbc_copy"));
            execute(c, "drop table drv_jdbc_copy");
        });
    }

    static void notifies() throws Exception {
        with(listener -> with(sender -> {
            execute(listener, "listen drv_jdbc_channel");
            execute(sender, "notify drv_jdbc_channel, 'hello'");
            var notes = listener.unwrap(PGConnection.class).getNotifications(20_000);
            equal(1, notes.length);
            equal("hello", notes[0].getParameter());
            try (Statement statement = sender.createStatement()) {
                statement.execute("do $$ begin raise notice 'drv says hello'; end $$");
                equal("drv says hello", statement.getWarnings().getMessage());
            }
        }));
    }

    static void cancels() throws Exception {
        with(c -> {
            for (int n = 0; n < 3; n++) {
                try (Statement statement = c.createStatement()) {
                    Thread canceller = new Thread(() -> {
                        try {
                            Thread.sleep(200);
                            statement.cancel();
                        } catch (Exception error) {
                            throw new IllegalStateException(error);
                        }
                    });
                    canceller.start();
                    fails("57014", () -> statement.execute("select pg_sleep(30)"));
                    canceller.join();
                }
                equal("1", value(c, "select 1"));
            }
            try (Statement statement = c.createStatement()) {
                statement.setQueryTimeout(1);
                fails("57014", () -> statement.execute("select pg_sleep(30)"));
            }
        });
    }

    static void keepsSettings() throws Exception {
        with(c -> {
            equal("drv jdbc", value(c, "show application_name"));
            equal("12345ms", value(c, "show statement_timeout"));
            execute(c, "set statement_timeout = 777");
            for (int n = 0; n < 8; n++) equal("777ms", value(c, "show statement_timeout"));
            c.setClientInfo("ApplicationName", "renamed");
            equal("renamed", value(c, "show application_name"));
            c.setAutoCommit(false);
            execute(c, "set statement_timeout = 888");
            c.rollback();
            equal("777ms", value(c, "show statement_timeout"));
            c.rollback();
            c.setAutoCommit(true);
            execute(c, "create schema if not exists drv_jdbc");
            c.setSchema("drv_jdbc");
            for (int n = 0; n < 8; n++) equal("drv_jdbc", value(c, "select current_schema()"));
            execute(c, "drop schema drv_jdbc");
        }, "ApplicationName", "drv jdbc", "options", "-c statement_timeout=12345");
    }

    static void readsLargeResults() throws Exception {
        with(c -> {
            try (Statement statement = c.createStatement(); ResultSet rows = statement.executeQuery("select n, repeat('x', 50) from generate_series(1, 100000) n")) {
                int count = 0;
                while (rows.next()) equal(++count, rows.getInt(1));
                equal(100000, count);
            }
            byte[] blob = new byte[5_000_000];
            Arrays.fill(blob, (byte) 7);
            try (PreparedStatement statement = c.prepareStatement("select ?::bytea")) {
                for (int n = 0; n < 7; n++) {
                    statement.setBytes(1, blob);
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        equal(true, Arrays.equals(blob, rows.getBytes(1)));
                    }
                }
            }
        });
    }

    static void sharesServers() throws Exception {
        with(c -> execute(c, "drop table if exists drv_jdbc_swap; create table drv_jdbc_swap (client int, n int)"));
        together(CLIENTS, number -> with(c -> {
            execute(c, "set statement_timeout = " + (50001 + number));
            c.setAutoCommit(false);
            try (PreparedStatement insert = c.prepareStatement("insert into drv_jdbc_swap values (?, ?)");
                 PreparedStatement own = c.prepareStatement("select " + number + " * 1000 + ?")) {
                for (int n = 0; n < ROUNDS; n++) {
                    insert.setInt(1, number);
                    insert.setInt(2, n);
                    insert.executeUpdate();
                    own.setInt(1, n);
                    try (ResultSet rows = own.executeQuery()) {
                        rows.next();
                        equal(number * 1000 + n, rows.getInt(1));
                    }
                    equal((50001 + number) + "ms", value(c, "show statement_timeout"));
                    equal("drv swap " + number, value(c, "show application_name"));
                    if (n % 4 == 3) c.rollback(); else c.commit();
                }
            }
        }, "ApplicationName", "drv swap " + number));
        with(c -> {
            equal("" + CLIENTS * ROUNDS * 3 / 4, value(c, "select count(*) from drv_jdbc_swap"));
            execute(c, "drop table drv_jdbc_swap");
        });
    }

    static void pools() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url);
        config.setUsername(properties.getProperty("user"));
        config.setPassword(properties.getProperty("password"));
        config.setMaximumPoolSize(6);
        try (HikariDataSource pool = new HikariDataSource(config)) {
            together(10, number -> {
                for (int n = 0; n < ROUNDS; n++) {
                    try (Connection c = pool.getConnection()) {
                        equal("" + (number * 100 + n), value(c, "select ?::int * 100 + ?::int", number, n));
                    }
                }
            });
        }
    }

    static void reconnects() throws Exception {
        Connection lost = connect();
        try {
            execute(lost, "select pg_terminate_backend(pg_backend_pid())");
            execute(lost, "select 1");
            throw new AssertionError("the server is gone and nothing was said");
        } catch (SQLException expected) {
            // 57P01 or class 08
        } finally {
            lost.close();
        }
        with(c -> equal("1", value(c, "select 1")));
    }

    public static void main(String[] arguments) throws Exception {
        URI uri = new URI(System.getenv("DATABASE_URL"));
        url = "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath();
        String[] user = uri.getUserInfo().split(":", 2);
        properties.setProperty("user", user[0]);
        if (user.length > 1) properties.setProperty("password", user[1]);
        properties.setProperty("socketTimeout", "60");
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("connects", Program::connects);
        checks.put("insertsAndReads", Program::insertsAndReads);
        checks.put("carriesValues", Program::carriesValues);
        checks.put("commitsAndRollsBack", Program::commitsAndRollsBack);
        checks.put("survivesErrorsByAutosave", Program::survivesErrorsByAutosave);
        checks.put("preparesOnTheServer", Program::preparesOnTheServer);
        checks.put("readsWithCursors", Program::readsWithCursors);
        checks.put("copies", Program::copies);
        checks.put("notifies", Program::notifies);
        checks.put("cancels", Program::cancels);
        checks.put("keepsSettings", Program::keepsSettings);
        checks.put("readsLargeResults", Program::readsLargeResults);
        checks.put("sharesServers", Program::sharesServers);
        checks.put("pools", Program::pools);
        checks.put("reconnects", Program::reconnects);
        List<String> wanted = List.of(arguments);
        StringJoiner results = new StringJoiner(", ", "{", "}");
        boolean failed = false;
        for (Map.Entry<String, Check> check : checks.entrySet()) {
            if (!wanted.isEmpty() && !wanted.contains(check.getKey())) continue;
            boolean passed = true;
            try {
                check.getValue().run();
            } catch (Throwable error) {
                passed = false;
                System.err.println("--- JDBC: " + check.getKey());
                error.printStackTrace();
            }
            failed |= !passed;
            results.add("\"" + check.getKey() + "\": " + passed);
        }
        System.out.println("{\"driver\": \"JDBC\", \"version\": \"" + org.postgresql.util.DriverInfo.DRIVER_VERSION + "\", \"checks\": " + results + "}");
        System.exit(failed ? 1 : 0);
    }
}
