// node-postgres: simple queries without parameters, extended ones with, named statements, cursors, streams, COPY, its pool.

import { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import Cursor from "pg-cursor";
import QueryStream from "pg-query-stream";
import { assert, CLIENTS, fails, main, range, ROUNDS, url, versionOf, withParameters } from "../common.mjs";

async function connected(body, options = {}) {
  const client = new pg.Client({ connectionString: url, ...options });
  await client.connect();
  try {
    return await body(client);
  } finally {
    await client.end();
  }
}

const value = async (client, ...query) => Object.values((await client.query(...query)).rows[0])[0];

const checks = {
  async connects() {
    for (let n = 0; n < 4; n++) await connected(async (client) => assert.equal(await value(client, "select $1::int + 1", [n]), n + 1));
  },

  async insertsAndReads() {
    await connected(async (client) => {
      await client.query("drop table if exists drv_npg_items; create table drv_npg_items (id serial primary key, name text, price numeric)");
      for (let n = 0; n < 20; n++) await client.query("insert into drv_npg_items (name, price) values ($1, $2)", [`item ${n}`, n / 4]);
      const result = await client.query("select * from drv_npg_items where id = $1", [7]);
      assert.deepEqual(result.rows, [{ id: 7, name: "item 6", price: "1.5" }]);
      assert.deepEqual(result.fields.map((field) => field.name), ["id", "name", "price"]);
      const arrays = await client.query({ text: "select id from drv_npg_items where id < $1 order by id", values: [3], rowMode: "array" });
      assert.deepEqual(arrays.rows, [[1], [2]]);
      assert.equal((await client.query("delete from drv_npg_items where id > $1", [10])).rowCount, 10);
      const several = await client.query("select 1 as a; select 2 as b; drop table drv_npg_items");
      assert.deepEqual(several.map((one) => one.command), ["SELECT", "SELECT", "DROP"]);
    });
  },

  async carriesValues() {
    await connected(async (client) => {
      const moment = new Date("2024-02-29T12:34:56.789Z");
      const samples = [
        ["text", null], ["int4", -(2 ** 31)], ["int8", "4611686018427387904"], ["float8", 0.1], ["text", "snow ☃ 'quotes' \\"],
        ["numeric", "12345678901234567890.0123456789"], ["bytea", Buffer.from(range(256))], ["timestamptz", moment],
        ["int4[]", [1, null, 3]], ["text[]", [["a", "b,c"], ["", "NULL"]]], ["bool", true], ["jsonb", { b: { c: "d" } }],
        ["uuid", "00000000-0000-0000-0000-000000000005"],
      ];
      for (const [type, sample] of samples) assert.deepEqual(await value(client, `select $1::${type}`, [sample]), sample, type);
      const binary = await client.query({ text: "select $1::int4 as i, $2::text as t", values: [42, "x"], binary: true });
      assert.deepEqual(binary.rows[0], { i: 42, t: "x" });
    });
  },

  async commitsAndRollsBack() {
    await connected((client) =>
      connected(async (other) => {
        await other.query("drop table if exists drv_npg_tx; create table drv_npg_tx (n int primary key)");
        const count = () => value(other, "select count(*)::int from drv_npg_tx");
        await client.query("begin");
        await client.query("insert into drv_npg_tx values ($1)", [1]);
        assert.equal(await count(), 0);
        await client.query("commit");
        assert.equal(await count(), 1);
        await client.query("begin");
        await client.query("insert into drv_npg_tx values (2)");
        await client.query("rollback");
        await client.query("begin isolation level serializable");
        assert.equal(await value(client, "show transaction_isolation"), "serializable");
        await fails(client.query("insert into drv_npg_tx values ($1)", [1]), "23505");
        await fails(client.query("select 1"), "25P02");
        assert.equal((await client.query("commit")).command, "ROLLBACK");
        await client.query("begin");
        await client.query("insert into drv_npg_tx values (3)");
        await client.query("savepoint a");
        await fails(client.query("insert into drv_npg_tx values (3)"), "23505");
        await client.query("rollback to a");
        await client.query("insert into drv_npg_tx values (4)");
        await client.query("commit");
        assert.deepEqual((await other.query("select n from drv_npg_tx order by n")).rows, [{ n: 1 }, { n: 3 }, { n: 4 }]);
        await other.query("drop table drv_npg_tx");
      }),
    );
  },

  async namesStatements() {
    await connected((client) =>
      connected(async (other) => {
        for (let n = 0; n < 15; n++) {
          // One name, two texts: one on each client.
          assert.equal(await value(client, { name: "drv", text: "select $1::int * 2", values: [n] }), 2 * n);
          assert.equal(await value(other, { name: "drv", text: "select $1::int * 3", values: [n] }), 3 * n);
          if (n % 5 === 4) {
            await client.query("begin");
            await fails(client.query({ name: "divide", text: "select 1 / $1::int", values: [0] }), "22012");
            await client.query("rollback");
            assert.equal(await value(client, { name: "divide", text: "select 1 / $1::int", values: [1] }), 1);
          }
        }
      }),
    );
  },

  async queuesQueries() {
    await connected(async (client) => {
      // Sent without waiting: node-postgres queues them, and with `pipelining` (where it has it) sends them at once.
      const results = await Promise.allSettled(range(40).map((n) => value(client, "select 60 / $1::int", [n])));
      assert.deepEqual(results.map((result) => result.value), [undefined, ...range(39).map((n) => Math.floor(60 / (n + 1)))]);
    });
  },

  async readsWithCursors() {
    await connected(async (client) => {
      const cursor = client.query(new Cursor("select n from generate_series(1, $1::int) n", [250]));
      const numbers = [];
      for (let rows = await cursor.read(100); rows.length; rows = await cursor.read(100)) numbers.push(...rows.map((row) => row.n));
      assert.deepEqual(numbers, range(250).map((n) => n + 1));
      await cursor.close();
      const early = client.query(new Cursor("select n from generate_series(1, 100000) n"));
      assert.equal((await early.read(3)).length, 3);
      await early.close();
      assert.equal(await value(client, "select 5"), 5);
      let sum = 0;
      for await (const row of client.query(new QueryStream("select n from generate_series(1, 5000) n", [], { batchSize: 77 }))) sum += row.n;
      assert.equal(sum, (5000 * 5001) / 2);
      const failing = client.query(new Cursor("select 1 / (5 - n) from generate_series(1, 9) n"));
      await failing.read(2);
      await fails(failing.read(100), "22012");
      await failing.close();
      assert.equal(await value(client, "select 6"), 6);
    });
  },

  async copies() {
    await connected(async (client) => {
      await client.query("drop table if exists drv_npg_copy; create table drv_npg_copy (n int primary key, t text)");
      await pipeline(Readable.from(range(5000).map((n) => `${n}\trow ${n}\n`)), client.query(copyFrom("copy drv_npg_copy from stdin")));
      let bytes = 0;
      const counting = new Writable({ write: (chunk, _encoding, done) => ((bytes += chunk.length), done()) });
      await pipeline(client.query(copyTo("copy drv_npg_copy to stdout")), counting);
      assert.ok(bytes > 50000);
      await fails(pipeline(Readable.from(["1\tagain\n"]), client.query(copyFrom("copy drv_npg_copy from stdin"))), "23505");
      assert.equal(await value(client, "select count(*)::int from drv_npg_copy"), 5000);
      await client.query("drop table drv_npg_copy");
    });
  },

  async notifies() {
    await connected((listener) =>
      connected(async (sender) => {
        const heard = new Promise((resolve) => listener.on("notification", (message) => resolve([message.channel, message.payload])));
        await listener.query("listen drv_npg_channel");
        await sender.query("select pg_notify('drv_npg_channel', $1)", ["hello"]);
        assert.deepEqual(await heard, ["drv_npg_channel", "hello"]);
        const noticed = new Promise((resolve) => sender.on("notice", (message) => resolve(message.message)));
        await sender.query("do $$ begin raise notice 'drv says hello'; end $$");
        assert.equal(await noticed, "drv says hello");
        await listener.query("unlisten *");
      }),
    );
  },

  async cancels() {
    await connected(
      async (client) => {
        await fails(client.query("select pg_sleep(30)"), "57014");
        assert.equal(await value(client, "select 1"), 1);
      },
      { statement_timeout: 100 },
    );
    await connected((client) =>
      connected(async (other) => {
        const sleeping = fails(client.query("select pg_sleep(30), 'drv_npg'"), "57014");
        // node-postgres has no CancelRequest of its own; programs do this.
        let done = [];
        while (!done.length) {
          done = (await other.query("select pg_cancel_backend(pid) from pg_stat_activity where query like '%pg_sleep(30), ''drv_npg%' and state = 'active' and pid <> pg_backend_pid()")).rows;
        }
        await sleeping;
        assert.equal(await value(client, "select 1"), 1);
      }),
    );
  },

  async keepsSettings() {
    await connected(
      async (client) => {
        assert.equal(await value(client, "show application_name"), "drv node");
        assert.equal(await value(client, "show statement_timeout"), "12345ms");
        await client.query("set timezone = 'Asia/Tokyo'");
        for (let n = 0; n < 5; n++) assert.equal(await value(client, "show timezone"), "Asia/Tokyo");
        await client.query("begin");
        await client.query("set timezone = 'Europe/Berlin'");
        await client.query("rollback");
        assert.equal(await value(client, "show timezone"), "Asia/Tokyo");
        await client.query("discard all");
        assert.equal(await value(client, "show statement_timeout"), "12345ms");
      },
      { connectionString: withParameters({ application_name: "drv node", options: "-c statement_timeout=12345" }) },
    );
  },

  async readsLargeResults() {
    await connected(async (client) => {
      const { rows } = await client.query("select n, repeat('x', 50) as t from generate_series(1, 100000) n");
      assert.deepEqual([rows.length, rows.at(-1)], [100000, { n: 100000, t: "x".repeat(50) }]);
      const blob = Buffer.alloc(5_000_000, 7);
      assert.ok(blob.equals(await value(client, "select $1::bytea", [blob])));
    });
  },

  async sharesServers() {
    await connected((client) => client.query("drop table if exists drv_npg_swap; create table drv_npg_swap (client int, n int)"));
    await Promise.all(
      range(CLIENTS).map((number) =>
        connected(
          async (client) => {
            await client.query(`set statement_timeout = ${50001 + number}`);
            for (let n = 0; n < ROUNDS; n++) {
              assert.equal(await value(client, { name: "swap", text: `select ${number} * 1000 + $1::int`, values: [n] }), number * 1000 + n);
              await client.query("begin");
              await client.query({ name: "insert", text: "insert into drv_npg_swap values ($1, $2)", values: [number, n] });
              assert.equal(await value(client, "show statement_timeout"), `${50001 + number}ms`);
              assert.equal(await value(client, "show application_name"), `drv swap ${number}`);
              await client.query(n % 4 === 3 ? "rollback" : "commit");
            }
          },
          { application_name: `drv swap ${number}` },
        ),
      ),
    );
    await connected(async (client) => {
      const { rows } = await client.query("select client, count(*)::int as n from drv_npg_swap group by 1 order by 1");
      assert.deepEqual(rows, range(CLIENTS).map((number) => ({ client: number, n: (ROUNDS * 3) / 4 })));
      await client.query("drop table drv_npg_swap");
    });
  },

  async pools() {
    const pool = new pg.Pool({ connectionString: url, max: 6 });
    await Promise.all(
      range(60).map(async (n) => {
        assert.equal(await value(pool, "select $1::int", [n]), n);
        const client = await pool.connect();
        try {
          await client.query("begin");
          assert.equal(await value(client, "select $1::int + 1", [n]), n + 1);
          await client.query("commit");
        } finally {
          client.release();
        }
      }),
    );
    await pool.end();
  },

  async reconnects() {
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    pool.on("error", () => {}); // an idle client may hear of it first
    await assert.rejects(async () => {
      const client = await pool.connect();
      client.on("error", () => {});
      try {
        await client.query("select pg_terminate_backend(pg_backend_pid())");
        await client.query("select 1");
      } catch (error) {
        client.release(error);
        throw error;
      }
      client.release();
    });
    assert.equal(await value(pool, "select 1"), 1);
    await pool.end();
  },
};

await main("node-postgres", versionOf("pg", import.meta.url), checks);
