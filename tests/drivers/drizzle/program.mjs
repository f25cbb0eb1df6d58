// Drizzle: its query builder and relational queries over node-postgres and over postgres.js.

import { eq, relations, sql } from "drizzle-orm";
import { drizzle as overPg } from "drizzle-orm/node-postgres";
import { integer, jsonb, numeric, pgTable, serial, text, timestamp } from "drizzle-orm/pg-core";
import { drizzle as overPostgresJs } from "drizzle-orm/postgres-js";
import pg from "pg";
import postgres from "postgres";
import { assert, CLIENTS, fails, main, range, ROUNDS, url, versionOf } from "../common.mjs";

const products = pgTable("drv_drizzle_product", {
  id: serial("id").primaryKey(),
  name: text("name").notNull().unique(),
  price: numeric("price", { precision: 10, scale: 2 }).notNull().default("0"),
  details: jsonb("details").notNull().default({}),
  tags: text("tags").array().notNull().default([]),
  added: timestamp("added", { withTimezone: true }).notNull().defaultNow(),
});
const sales = pgTable("drv_drizzle_sale", {
  id: serial("id").primaryKey(),
  quantity: integer("quantity").notNull(),
  productId: integer("product_id").notNull().references(() => products.id),
});
const schema = {
  products,
  sales,
  productRelations: relations(products, ({ many }) => ({ sales: many(sales) })),
  saleRelations: relations(sales, ({ one }) => ({ product: one(products, { fields: [sales.productId], references: [products.id] }) })),
};

async function works(db) {
  await db.execute(sql`drop table if exists drv_drizzle_sale, drv_drizzle_product`);
  await db.execute(sql`create table drv_drizzle_product (id serial primary key, name text not null unique, price numeric(10, 2) not null default 0,
    details jsonb not null default '{}', tags text[] not null default '{}', added timestamptz not null default now())`);
  await db.execute(sql`create table drv_drizzle_sale (id serial primary key, quantity int not null, product_id int not null references drv_drizzle_product)`);
  await db.insert(products).values(range(50).map((n) => ({ name: `product ${n}`, price: String(n), details: { n }, tags: ["a", "b,c"] })));
  const [product] = await db.select().from(products).where(eq(products.name, "product 7"));
  assert.deepEqual([product.price, product.details, product.tags, product.added instanceof Date], ["7.00", { n: 7 }, ["a", "b,c"], true]);
  await db.insert(sales).values([{ quantity: 3, productId: product.id }, { quantity: 4, productId: product.id }]);
  const found = await db.query.products.findFirst({ where: eq(products.id, product.id), with: { sales: true } });
  assert.deepEqual(found.sales.map((sale) => sale.quantity).sort(), [3, 4]);
  await db.insert(products).values({ name: "product 8", price: "99" }).onConflictDoUpdate({ target: products.name, set: { price: "99" } });
  const updated = await db.update(products).set({ tags: [] }).where(eq(products.name, "product 8")).returning({ price: products.price });
  assert.deepEqual(updated, [{ price: "99.00" }]);
  await fails(db.insert(products).values({ name: "product 8" }), "23505");

  const prepared = db.select({ id: products.id }).from(products).where(eq(products.name, sql.placeholder("name"))).prepare("drv_by_name");
  for (let n = 0; n < ROUNDS; n++) assert.equal((await prepared.execute({ name: `product ${n}` }))[0].id, n + 1);

  await Promise.all(
    range(CLIENTS).map(async (number) => {
      for (let n = 0; n < ROUNDS; n++) {
        await db
          .transaction(async (tx) => {
            await tx.insert(products).values({ name: `client ${number} ${n}` });
            await fails(tx.transaction((inner) => inner.insert(products).values({ name: "product 1" })), "23505"); // a savepoint
            if (n % 4 === 3) tx.rollback();
          }, { isolationLevel: "read committed" })
          .catch((error) => assert.equal(error.constructor.name, "TransactionRollbackError", error));
      }
    }),
  );
  const [{ count }] = await db.select({ count: sql`count(*)::int` }).from(products).where(sql`name like 'client %'`);
  assert.equal(count, (CLIENTS * ROUNDS * 3) / 4);
  await db.execute(sql`drop table drv_drizzle_sale, drv_drizzle_product`);
}

await main("Drizzle", versionOf("drizzle-orm", import.meta.url), {
  async worksOverNodePostgres() {
    const pool = new pg.Pool({ connectionString: url, max: 6 });
    await works(overPg(pool, { schema }));
    await pool.end();
  },
  async worksOverPostgresJs() {
    const client = postgres(url, { max: 6, onnotice: () => {} });
    await works(overPostgresJs(client, { schema }));
    await client.end();
  },
  async worksOverPostgresJsWithoutPrepare() {
    const client = postgres(url, { max: 6, prepare: false, onnotice: () => {} });
    await works(overPostgresJs(client, { schema }));
    await client.end();
  },
});
