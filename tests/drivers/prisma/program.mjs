// Prisma 7: its client, compiled queries, the node-postgres adapter. The tables are made by SQL: `prisma migrate` would
// need an engine binary that comes from outside of npm.

import { PrismaPg } from "@prisma/adapter-pg";
import { createRequire } from "node:module";
import { assert, CLIENTS, main, range, ROUNDS, url, versionOf } from "../common.mjs";

const { PrismaClient } = createRequire(import.meta.url)("./node_modules/.drv-client/index.js");

async function connected(body, options = {}) {
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url, max: 5, ...options }) });
  try {
    return await body(prisma);
  } finally {
    await prisma.$disconnect();
  }
}

const checks = {
  async createsTables() {
    await connected(async (prisma) => {
      await prisma.$executeRawUnsafe("drop table if exists drv_prisma_sale, drv_prisma_product");
      await prisma.$executeRawUnsafe(`create table drv_prisma_product (id serial primary key, name text not null unique,
        price numeric(10, 2) not null default 0, details jsonb not null default '{}', tags text[], picture bytea,
        added timestamptz(6) not null default current_timestamp)`);
      await prisma.$executeRawUnsafe(`create table drv_prisma_sale (id serial primary key, quantity int not null,
        product_id int not null references drv_prisma_product on delete cascade)`);
    });
  },

  async readsAndWrites() {
    await connected(async (prisma) => {
      await prisma.product.createMany({
        data: range(50).map((n) => ({ name: `product ${n}`, price: n, details: { n }, tags: ["a", "b,c"], picture: Buffer.from([n]) })),
      });
      const product = await prisma.product.update({
        where: { name: "product 7" },
        data: { sales: { create: [{ quantity: 3 }, { quantity: 4 }] } },
        include: { sales: true },
      });
      assert.deepEqual([product.price.toString(), product.details, product.tags, [...product.picture]], ["7", { n: 7 }, ["a", "b,c"], [7]]);
      assert.equal(product.sales.length, 2);
      const upserted = await prisma.product.upsert({ where: { name: "product 8" }, update: { price: 99 }, create: { name: "product 8" } });
      assert.equal(upserted.price.toString(), "99");
      assert.equal(await prisma.product.count({ where: { price: { gte: 40 } } }), 11);
      assert.equal((await prisma.sale.aggregate({ _sum: { quantity: true } }))._sum.quantity, 7);
      await assert.rejects(prisma.product.create({ data: { name: "product 8" } }), { code: "P2002" });
      assert.deepEqual(await prisma.$queryRaw`select ${1}::int as n, ${"x"}::text as t`, [{ n: 1, t: "x" }]);
    });
  },

  async commitsAndRollsBack() {
    await connected(async (prisma) => {
      await prisma.$transaction([prisma.product.create({ data: { name: "one" } }), prisma.product.create({ data: { name: "two" } })]);
      await assert.rejects(prisma.$transaction([prisma.product.create({ data: { name: "three" } }), prisma.product.create({ data: { name: "two" } })]));
      await assert.rejects(
        prisma.$transaction(async (tx) => {
          await tx.product.create({ data: { name: "four" } });
          throw new RangeError("mine");
        }),
        RangeError,
      );
      await prisma.$transaction(
        async (tx) => assert.equal((await tx.$queryRaw`show transaction_isolation`)[0].transaction_isolation, "serializable"),
        { isolationLevel: "Serializable" },
      );
      assert.equal(await prisma.product.count({ where: { name: { in: ["one", "two", "three", "four"] } } }), 2);
    });
  },

  async sharesServers() {
    await connected(async (prisma) => {
      await Promise.all(
        range(CLIENTS).map(async (number) => {
          for (let n = 0; n < ROUNDS; n++) {
            await prisma
              .$transaction(
                async (tx) => {
                  await tx.product.create({ data: { name: `client ${number} ${n}` } });
                  if (n % 4 === 3) throw new RangeError("undo");
                },
                { maxWait: 20_000, timeout: 20_000 },
              )
              .catch((error) => assert.ok(error instanceof RangeError, error));
          }
        }),
      );
      assert.equal(await prisma.product.count({ where: { name: { startsWith: "client " } } }), (CLIENTS * ROUNDS * 3) / 4);
    });
  },

  async leavesNothing() {
    await connected((prisma) => prisma.$executeRawUnsafe("drop table drv_prisma_sale, drv_prisma_product"));
  },
};

await main("Prisma", versionOf("@prisma/client", import.meta.url), checks);
