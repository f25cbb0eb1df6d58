// pgjdbc as a load program for the table of round trips; the lines it reads and writes are those of acting.py.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.util.Map;
import java.util.Properties;

public class Load {
    static final String READ = "SELECT name, price FROM bench_items WHERE id = ?";
    static final String WRITE = "UPDATE bench_counters SET n = n + 1 WHERE id = ?";

    interface Act {
        void run() throws Exception;
    }

    static String[] arguments;
    static Connection connection;

    static void connect() throws Exception {
        URI url = new URI(arguments[0]);
        String[] login = url.getUserInfo().split(":");
        Properties settings = new Properties();
        settings.setProperty("user", login[0]);
        if (login.length > 1) settings.setProperty("password", login[1]);
        if (arguments[0].contains("sslmode=require")) settings.setProperty("sslmode", "require");
        if (arguments.length > 1) settings.setProperty("prepareThreshold", "0");
        connection = DriverManager.getConnection(
                "jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + url.getPath(), settings);
    }

    static void read() throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(READ)) {
            statement.setInt(1, 42);
            statement.executeQuery().next();
        }
    }

    static void write() throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(WRITE)) {
            statement.setInt(1, 42);
            statement.executeUpdate();
        }
    }

    static void inTransaction(Act body) throws Exception {
        connection.setAutoCommit(false);
        body.run();
        connection.commit();
        connection.setAutoCommit(true);
    }

    static final Map<String, Act> ACTS = Map.of(
            "open", () -> { connect(); read(); },
            "close", () -> connection.close(),
            "connect-read", () -> { connect(); read(); },
            "read-in-transaction", () -> inTransaction(Load::read),
            "write-in-transaction", () -> inTransaction(Load::write));

    public static void main(String[] given) throws Exception {
        arguments = given;
        System.out.println("{\"end\": true}");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            long start = System.nanoTime();
            String error = "";
            try {
                ACTS.get(line.split(" ")[0]).run();
            } catch (Exception problem) {
                error = ", \"error\": \"" + String.valueOf(problem).replaceAll("[\"\\\\\\p{Cntrl}]", " ") + "\"";
            }
            System.out.println("{\"end\": true, \"seconds\": " + (System.nanoTime() - start) / 1e9 + error + "}");
        }
    }
}
