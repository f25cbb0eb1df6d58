// Prisma as a load program: its query compiler and the node-postgres adapter; the lines it reads and writes are those of acting.py.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { PrismaPg } from "@prisma/adapter-pg";

const { PrismaClient } = createRequire(import.meta.url)("./node_modules/.bench-client/index.js");
const url = new URL(process.argv[2]);
const needsTls = url.searchParams.get("sslmode") === "require";
url.search = "";
const now = () => performance.now() / 1000;
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
let prisma;

// libpq's sslmode=require encrypts and checks nothing; so here.
const connect = () =>
  new PrismaClient({
    adapter: new PrismaPg({ connectionString: url.toString(), max: 1, ssl: needsTls ? { rejectUnauthorized: false } : false }),
  });
const read = (client) => client.item.findUnique({ where: { id: 42 } });
const write = (client) => client.counter.updateMany({ where: { id: 42 }, data: { n: { increment: 1 } } });

const acts = {
  open: async () => await read((prisma = connect())),
  close: async () => {
    await prisma?.$disconnect();
    prisma = undefined;
  },
  "connect-read": async () => await read((prisma = connect())),
  "read-in-transaction": () => prisma.$transaction((tx) => read(tx)),
  "write-in-transaction": () => prisma.$transaction((tx) => write(tx)),
};

say({ end: true });
for await (const line of createInterface({ input: process.stdin })) {
  const start = now();
  try {
    await acts[line.split(" ")[0]]();
    say({ seconds: now() - start, end: true });
  } catch (error) {
    say({ end: true, error: String(error) });
  }
}
