/** Writes the files of a bundle's folder into build/bundle.json, as base64: `node bundle.mjs FOLDER`. */

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const TINY = new URL("../../engine/sanderling/cli/tiny_bundle", import.meta.url);
const folder = process.argv[2] ?? fileURLToPath(TINY);
const files = readdirSync(folder).map((name) => [
  name,
  readFileSync(`${folder}/${name}`).toString("base64"),
]);
mkdirSync(new URL("build", import.meta.url), { recursive: true });
writeFileSync(
  new URL("build/bundle.json", import.meta.url),
  JSON.stringify(Object.fromEntries(files)),
);
