// node-postgres, postgres.js and Drizzle as a load program; the lines it reads and writes are those of acting.py.
import { createInterface } from "node:readline";
import { drizzle } from "drizzle-orm/node-postgres";
import { integer, numeric, pgTable, text } from "drizzle-orm/pg-core";
import { eq } from "drizzle-orm";
import pg from "pg";
import postgres from "postgres";

const url = new URL(process.argv[2]);
const needsTls = url.searchParams.get("sslmode") === "require";
url.search = "";
const dsn = url.toString();
const READ = "SELECT name, price FROM bench_items WHERE id = $1";
const WRITE = "UPDATE bench_counters SET n = n + 1 WHERE id = $1";
const keepsStatements = !process.argv.includes("--no-statements");
const items = pgTable("bench_items", { id: integer().primaryKey(), name: text(), price: numeric() });
// libpq's sslmode=require encrypts and checks nothing; so here.
const ssl = needsTls ? { rejectUnauthorized: false } : false;
const now = () => performance.now() / 1000;
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
let client, sql, pool;

async function connect() {
  const made = new pg.Client({ connectionString: dsn, ssl });
  await made.connect();
  return made;
}

async function request(kind, key) {
  const start = now();
  const made = await connect();
  await made.query(kind === "read" ? READ : WRITE, [Number(key)]);
  const seconds = now() - start;
  await made.end();
  return { seconds };
}

async function loop(seconds, clients) {
  const connections = await Promise.all(Array.from({ length: Number(clients) }, connect));
  const latencies = [];
  let done = 0;
  const start = now();
  const timer = setInterval(() => say({ done, elapsed: now() - start }), 500);
  await Promise.all(
    connections.map(async (connection) => {
      while (now() - start < Number(seconds)) {
        const began = now();
        const values = [1 + Math.floor(Math.random() * 10000)];
        await connection.query(keepsStatements ? { name: "read", text: READ, values } : { text: READ, values });
        done += 1;
        if (latencies.length < 20000 && (done < 10000 || done % 8 === 0)) latencies.push((now() - began) * 1000);
      }
    }),
  );
  clearInterval(timer);
  const elapsed = now() - start;
  await Promise.all(connections.map((connection) => connection.end()));
  return { done, elapsed, latencies: latencies.sort((a, b) => a - b) };
}

// What the table of round trips asks for: *open* sets up outside the time, the act is timed, *close* tidies up.
const acts = {
  request,
  loop,
  open: async (driver) => {
    if (driver === "pg") await (client = await connect()).query(READ, [7]);
    if (driver === "postgres") await (sql = postgres(dsn, { ssl, max: 1, prepare: keepsStatements }))`SELECT 7`;
    if (driver === "drizzle") {
      pool = new pg.Pool({ connectionString: dsn, ssl, max: 1 });
      await drizzle(pool).select().from(items).where(eq(items.id, 7));
    }
  },
  close: async () => {
    await client?.end();
    await sql?.end();
    await pool?.end();
    client = sql = pool = undefined;
  },
  "pg-connect-read": async () => {
    client = await connect();
    await client.query(READ, [42]);
  },
  "pg-read-in-transaction": async () => {
    await client.query("BEGIN");
    await client.query(READ, [42]);
    await client.query("COMMIT");
  },
  "pg-write-in-transaction": async () => {
    await client.query("BEGIN");
    await client.query(WRITE, [42]);
    await client.query("COMMIT");
  },
  "postgres-connect-read": async () => {
    sql = postgres(dsn, { ssl, max: 1, prepare: keepsStatements });
    await sql`SELECT name, price FROM bench_items WHERE id = ${42}`;
  },
  "postgres-first-read": async () => {
    await sql`SELECT name, price FROM bench_items WHERE id = ${42}`;
  },
  "postgres-write-in-transaction": async () => {
    await sql.begin((tx) => tx`UPDATE bench_counters SET n = n + 1 WHERE id = ${42}`);
  },
  "drizzle-read-in-transaction": async () => {
    await drizzle(pool).transaction((tx) => tx.select().from(items).where(eq(items.id, 42)));
  },
};

say({ end: true });
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...rest] = line.split(" ");
  const start = now();
  try {
    const found = await acts[name](...rest);
    say({ seconds: now() - start, ...found, end: true });
  } catch (error) {
    say({ end: true, error: String(error) });
  }
}
