// Runs blocks of JavaScript that a page shows, many at the same time, as blocks.py does for Python.
// Each run is a module of its own beside the file of the first argument, where node_modules is.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const answer = process.argv[2];
const folder = dirname(answer);
globalThis.printed = {};

async function run({ id, code, names, times }) {
  const printed = (globalThis.printed[id] = []);
  const constants = Object.entries(names)
    .map(([name, value]) => `const ${name} = ${JSON.stringify(value)};`)
    .join("\n");
  const keep = `const console = { log: (value) => globalThis.printed[${JSON.stringify(id)}].push(value) };`;
  let error = null;
  try {
    for (let time = 0; time < times; time += 1) {
      const file = join(folder, `${id}.${time}.mjs`);
      writeFileSync(file, `${constants}\n${keep}\n${code}`);
      await import(pathToFileURL(file));
    }
  } catch (raised) {
    error = String(raised);
  }
  return [id, { printed, error }];
}

const runs = JSON.parse(readFileSync(0, "utf-8"));
const outcomes = Object.fromEntries(await Promise.all(runs.map(run)));
writeFileSync(answer, JSON.stringify(outcomes));
process.exit(0);
