/** Copies the page, the engine and a bundle's folder to www/, which Capacitor puts into the app. */

import { cpSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const bundle = process.argv[2] ?? here("../../engine/sanderling/cli/tiny_bundle");

rmSync(here("www"), { recursive: true, force: true });
cpSync(here("index.html"), here("www/index.html"));
cpSync(here("../../engine/js/dist/src"), here("www/engine/dist/src"), { recursive: true });
cpSync(here("../../engine/js/wasm"), here("www/engine/wasm"), { recursive: true });
cpSync(bundle, here("www/bundle"), { recursive: true });
