// postgres.js: everything extended and pipelined, statements named by itself (prepare: true, its default) or unnamed.
// DRIVER_PREPARE=false runs the same checks without `prepare`.

import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import postgres from "postgres";
import { assert, CLIENTS, fails, main, range, ROUNDS, url, versionOf } from "../common.mjs";

const prepare = process.env.DRIVER_PREPARE !== "false";

async function connected(body, options = {}) {
  const sql = postgres(url, { prepare, max: 1, onnotice: () => {}, ...options });
  try {
    return await body(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

const checks = {
  async connects() {
    for (let n = 0; n < 4; n++) await connected(async (sql) => assert.deepEqual([...(await sql`select ${n}::int + 1 as n`)], [{ n: n + 1 }]));
  },

  async insertsAndReads() {
    await connected(async (sql) => {
      await sql`drop table if exists drv_pjs_items`;
      await sql`create table drv_pjs_items (id serial primary key, name text, price numeric)`;
      await sql`insert into drv_pjs_items ${sql(range(20).map((n) => ({ name: `item ${n}`, price: n / 4 })))}`;
      assert.deepEqual([...(await sql`select id, name, price from drv_pjs_items where id = ${7}`)], [{ id: 7, name: "item 6", price: "1.5" }]);
      assert.equal((await sql`delete from drv_pjs_items where id in ${sql([1, 2, 9999])}`).count, 2);
      assert.deepEqual((await sql`select 1 as a, 'x' as b`.values())[0], [1, "x"]);
      assert.equal((await sql`select 1; select 2`.simple()).length, 2);
      await sql.unsafe("drop table drv_pjs_items");
      assert.deepEqual((await sql`select ${1}::int as n`.describe()).columns.map((column) => column.name), ["n"]);
    });
  },

  async carriesValues() {
    await connected(async (sql) => {
      const moment = new Date("2024-02-29T12:34:56.789Z");
      const [row] = await sql`
        select ${null}::text as n, ${-(2 ** 31)}::int4 as i, ${"4611686018427387904"}::int8 as b, ${0.1}::float8 as f,
          ${"snow ☃ 'quotes' \\"}::text as t, ${Buffer.from(range(256))}::bytea as by, ${moment}::timestamptz as ts, ${true}::bool as bo,
          ${[1, 2, 3]}::int4[] as ia, ${sql.json({ a: [1, null] })}::jsonb as j,
          ${["a", "b,c", ""]}::text[] as ta`;
      assert.deepEqual(row, {
        n: null, i: -(2 ** 31), b: "4611686018427387904", f: 0.1, t: "snow ☃ 'quotes' \\", by: Buffer.from(range(256)), ts: moment, bo: true,
        ia: [1, 2, 3], j: { a: [1, null] }, ta: ["a", "b,c", ""],
      });
    });
  },

  async commitsAndRollsBack() {
    await connected(
      async (sql) => {
        await sql`drop table if exists drv_pjs_tx`;
        await sql`create table drv_pjs_tx (n int primary key)`;
        await sql.begin(async (tx) => {
          await tx`insert into drv_pjs_tx values (${1})`;
          assert.equal((await sql`select count(*)::int as n from drv_pjs_tx`)[0].n, 0); // on another connection
        });
        await assert.rejects(
          sql.begin(async (tx) => {
            await tx`insert into drv_pjs_tx values (2)`;
            throw new RangeError("mine");
          }),
          RangeError,
        );
        await fails(sql.begin(async (tx) => tx`insert into drv_pjs_tx values (1)`), "23505");
        await sql.begin("isolation level serializable", async (tx) => {
          assert.equal((await tx`show transaction_isolation`)[0].transaction_isolation, "serializable");
          await tx`insert into drv_pjs_tx values (3)`;
          await fails(tx.savepoint(async (inner) => inner`insert into drv_pjs_tx values (3)`), "23505");
          await tx.savepoint("named", async (inner) => inner`insert into drv_pjs_tx values (4)`);
        });
        // A transaction as an array: pipelined at once.
        await sql.begin((tx) => [tx`insert into drv_pjs_tx values (5)`, tx`insert into drv_pjs_tx values (6)`]);
        await fails(sql.begin((tx) => [tx`insert into drv_pjs_tx values (7)`, tx`insert into drv_pjs_tx values (6)`]), "23505");
        assert.deepEqual((await sql`select n from drv_pjs_tx order by n`).map((row) => row.n), [1, 3, 4, 5, 6]);
        await sql`drop table drv_pjs_tx`;
      },
      { max: 2 },
    );
  },

  async reusesStatements() {
    await connected((one) =>
      connected(async (two) => {
        for (let n = 0; n < 15; n++) {
          assert.equal((await one`select ${n}::int * 2 as v`)[0].v, 2 * n);
          assert.equal((await two`select ${n}::int * 3 as v`)[0].v, 3 * n);
          if (n % 5 === 4) await fails(one`select 1 / ${0}::int`, "22012");
          assert.equal((await one`select 1 / ${1}::int as v`)[0].v, 1);
        }
      }),
    );
  },

  async pipelines() {
    await connected(async (sql) => {
      const results = await Promise.allSettled(range(100).map((n) => sql`select 600 / ${n}::int as v`));
      assert.deepEqual(results.map((result) => result.value?.[0].v), [undefined, ...range(99).map((n) => Math.floor(600 / (n + 1)))]);
      const different = await Promise.all(range(30).map((n) => sql.unsafe(`select $1::int + ${n} as v`, [n], { prepare })));
      assert.deepEqual(different.map((rows) => rows[0].v), range(30).map((n) => 2 * n));
    });
  },

  async readsWithCursors() {
    await connected(async (sql) => {
      const numbers = [];
      for await (const rows of sql`select n from generate_series(1, ${250}::int) n`.cursor(100)) numbers.push(...rows.map((row) => row.n));
      assert.deepEqual(numbers, range(250).map((n) => n + 1));
      for await (const rows of sql`select n from generate_series(1, 100000) n`.cursor(10)) {
        assert.equal(rows.length, 10);
        break;
      }
      assert.equal((await sql`select 5 as v`)[0].v, 5);
      let sum = 0;
      await sql`select n from generate_series(1, 5000) n`.forEach((row) => (sum += row.n));
      assert.equal(sum, (5000 * 5001) / 2);
    });
  },

  async copies() {
    await connected(async (sql) => {
      await sql`drop table if exists drv_pjs_copy`;
      await sql`create table drv_pjs_copy (n int primary key, t text)`;
      await pipeline(Readable.from(range(5000).map((n) => `${n}\trow ${n}\n`)), await sql`copy drv_pjs_copy from stdin`.writable());
      let bytes = 0;
      // Short: when more than 16 KiB wait, postgres.js 3.4.9 may pause its socket and forget it, on a direct connection, too.
      for await (const chunk of await sql`copy (select n from drv_pjs_copy where n < 1000) to stdout`.readable()) bytes += chunk.length;
      assert.equal(bytes, 3890);
      assert.equal((await sql`select count(*)::int as n from drv_pjs_copy`)[0].n, 5000);
      await sql`drop table drv_pjs_copy`;
    });
  },

  async notifies() {
    await connected(async (sql) => {
      let hear;
      const heard = new Promise((resolve) => (hear = resolve));
      const listening = await sql.listen("drv_pjs_channel", hear); // on a connection of its own
      await sql.notify("drv_pjs_channel", "hello");
      assert.equal(await heard, "hello");
      await listening.unlisten();
    });
  },

  async cancels() {
    await connected(async (sql) => {
      for (let n = 0; n < 3; n++) {
        const query = sql`select pg_sleep(30)`;
        setTimeout(() => query.cancel(), 200);
        await fails(query, "57014");
        assert.equal((await sql`select 1 as v`)[0].v, 1);
      }
    });
    await connected(async (sql) => fails(sql`select pg_sleep(30)`, "57014"), { connection: { statement_timeout: 100 } });
  },

  async keepsSettings() {
    await connected(
      async (sql) => {
        const show = async (name) => Object.values((await sql.unsafe(`show ${name}`))[0])[0];
        assert.equal(await show("application_name"), "drv postgres.js");
        assert.equal(await show("statement_timeout"), "12345ms");
        await sql`set timezone = 'Asia/Tokyo'`;
        for (let n = 0; n < 5; n++) assert.equal(await show("timezone"), "Asia/Tokyo");
        assert.equal(sql.parameters.TimeZone, "Asia/Tokyo");
        const reserved = await sql.reserve();
        await reserved`set statement_timeout = 777`;
        assert.equal((await reserved`show statement_timeout`)[0].statement_timeout, "777ms");
        reserved.release();
        await sql`reset all`;
        assert.equal(await show("statement_timeout"), "12345ms");
      },
      { connection: { application_name: "drv postgres.js", statement_timeout: 12345 } },
    );
  },

  async readsLargeResults() {
    await connected(async (sql) => {
      const rows = await sql`select n, repeat('x', 50) as t from generate_series(1, 100000) n`;
      assert.deepEqual([rows.length, rows.at(-1)], [100000, { n: 100000, t: "x".repeat(50) }]);
      const blob = Buffer.alloc(5_000_000, 7);
      assert.ok(blob.equals((await sql`select ${blob}::bytea as b`)[0].b));
    });
  },

  async sharesServers() {
    await connected((sql) => sql`drop table if exists drv_pjs_swap; create table drv_pjs_swap (client int, n int)`.simple());
    await Promise.all(
      range(CLIENTS).map((number) =>
        connected(
          async (sql) => {
            await sql.unsafe(`set statement_timeout = ${50001 + number}`);
            for (let n = 0; n < ROUNDS; n++) {
              const undo = new Error("undo");
              await sql
                .begin(async (tx) => {
                  await tx`insert into drv_pjs_swap values (${number}, ${n})`;
                  const [row] = await tx`select current_setting('statement_timeout') as t, current_setting('application_name') as a, ${n}::int as n`;
                  assert.deepEqual(row, { t: `${50001 + number}ms`, a: `drv swap ${number}`, n });
                  if (n % 4 === 3) throw undo;
                })
                .catch((error) => {
                  if (error !== undo) throw error;
                });
            }
          },
          { connection: { application_name: `drv swap ${number}` } },
        ),
      ),
    );
    await connected(async (sql) => {
      const rows = await sql`select client, count(*)::int as n from drv_pjs_swap group by 1 order by 1`;
      assert.deepEqual([...rows], range(CLIENTS).map((number) => ({ client: number, n: (ROUNDS * 3) / 4 })));
      await sql`drop table drv_pjs_swap`;
    });
  },

  async pools() {
    await connected(async (sql) => {
      const results = await Promise.all(range(200).map((n) => sql`select ${n}::int as v`));
      assert.deepEqual(results.map((rows) => rows[0].v), range(200));
    }, { max: 8 });
  },

  async reconnects() {
    await connected(async (sql) => {
      await assert.rejects(async () => {
        await sql`select pg_terminate_backend(pg_backend_pid())`;
        await sql`select 1`;
      });
      // postgres.js may hand the closing connection to one more query before it hears of the end.
      for (let n = 0; ; n++) {
        try {
          assert.equal((await sql`select 1 as v`)[0].v, 1);
          break;
        } catch (error) {
          if (n === 5) throw error;
        }
      }
    });
  },
};

await main(prepare ? "postgres.js" : "postgres.js, prepare: false", versionOf("postgres", import.meta.url), checks);
