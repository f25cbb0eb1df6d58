// What the Node driver programs share: a list of checks, a time limit, one JSON line (the twin of common.py).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export { assert };
export const CLIENTS = 6;
export const ROUNDS = 12;
export const url = process.env.DATABASE_URL;
const LIMIT_MILLISECONDS = 60_000;

/** The installed version of an npm package; `from` is the program's import.meta.url. */
export function versionOf(name, from) {
  for (let directory = new URL(".", from); ; directory = new URL("..", directory)) {
    try {
      return JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, directory), "utf8")).version;
    } catch (error) {
      if (directory.pathname === "/") throw error;
    }
  }
}

/** The URL with query parameters added. */
export function withParameters(parameters, base = url) {
  const changed = new URL(base);
  for (const [name, value] of Object.entries(parameters)) changed.searchParams.set(name, value);
  return changed.href;
}

/** Assert that a promise is rejected with this SQLSTATE. */
export async function fails(promise, code) {
  await assert.rejects(promise, (error) => {
    const found = error.code ?? error.cause?.code;
    assert.equal(found, code, `expected ${code}, got ${error}`);
    return true;
  });
}

export const range = (count) => Array.from({ length: count }, (_, n) => n);

/** Run every check, or those named on the command line; print the JSON line and leave. */
export async function main(driver, version, checks) {
  const wanted = process.argv.slice(2);
  const results = {};
  // A driver that throws outside of every promise has failed the check that runs.
  let current = "";
  process.on("uncaughtException", (error) => {
    console.error(`--- ${driver}: ${current}: uncaught`, error);
    results[current] = false;
    finish();
  });
  const finish = () => {
    process.stdout.write(JSON.stringify({ driver, version, checks: results }) + "\n", () =>
      process.exit(Object.values(results).every(Boolean) ? 0 : 1),
    );
  };
  for (const [name, check] of Object.entries(checks)) {
    if (wanted.length && !wanted.includes(name)) continue;
    current = name;
    let timer;
    const limit = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not over after ${LIMIT_MILLISECONDS} ms`)), LIMIT_MILLISECONDS);
    });
    try {
      await Promise.race([check(), limit]);
      results[name] = true;
    } catch (error) {
      results[name] = false;
      console.error(`--- ${driver}: ${name}`, error);
    } finally {
      clearTimeout(timer);
    }
  }
  finish();
}
