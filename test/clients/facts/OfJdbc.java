// Of JDBC: autocommit is on; without it, waiting is refused; a timeout, and cancel() in another
// thread, end a call.
import java.sql.*;

class OfJdbc {
    static String sqlstate(Statement statement, String sql) {
        try {
            statement.execute(sql);
        } catch (SQLException e) {
            return e.getSQLState();
        }
        return "00000";
    }

    static void same(String is, String expected) {
        if (!is.equals(expected))
            throw new AssertionError(is + " instead of " + expected);
    }

    public static void main(String[] args) throws Exception {
        try (Connection conn = DriverManager.getConnection(System.getenv("JDBC_URL"));
                Statement statement = conn.createStatement()) {
            same("" + conn.getAutoCommit(), "true");
            statement.setQueryTimeout(1);
            same(sqlstate(statement, "SELECT pg_sleep(600)"), "57014");
            statement.setQueryTimeout(0);
            Thread other = new Thread(() -> {
                try {
                    Thread.sleep(500);
                    statement.cancel();
                } catch (Exception e) {
                    throw new AssertionError(e);
                }
            });
            other.start();
            same(sqlstate(statement, "SELECT pg_sleep(600)"), "57014");
            other.join();
            conn.setAutoCommit(false);
            same(sqlstate(statement, "CALL bicycle_wait(1)"), "25001");
            conn.rollback();
        }
    }
}
