/**
 * Writes what browsers load without a bundler of the app, minified, from what tsc has compiled:
 * the package as `dist/sanderling.js`, the modules of the page as `dist/page.js`, and its styles as
 * `dist/style.css`.
 */

import { readFile } from "node:fs/promises";
import { build } from "esbuild";

const PEERS = ["@huggingface/tokenizers", "@noble/curves", "onnxruntime-web"];
const COMMON = { bundle: true, minify: true, format: "esm", target: "es2022", logLevel: "warning" };

/** Makes the address of the kernels relative to the file that is written. */
const kernelsAddress = {
  name: "kernels-address",
  setup(build) {
    build.onLoad({ filter: /[/\\]wasmFile\.js$/ }, async ({ path }) => {
      const source = await readFile(path, "utf8");
      const parts = source.split('"../../../wasm/');
      if (parts.length !== 2) {
        throw new Error(`${path}: expected one address of the kernels, found ${parts.length - 1}`);
      }
      return { contents: parts.join('"../wasm/') };
    });
  },
};

/** Leaves the package out of the page's file, which loads it from the page's folder `engine`. */
const packageBeside = {
  name: "package-beside",
  setup(build) {
    build.onResolve({ filter: /\/src\// }, ({ path, importer }) => {
      if (path !== "../src/index.js") {
        throw new Error(`${importer}: expected imports of src/index alone, found ${path}`);
      }
      return { path: "./engine/dist/sanderling.js", external: true };
    });
  },
};

await build({
  ...COMMON,
  entryPoints: ["dist/src/index.js"],
  outfile: "dist/sanderling.js",
  external: [...PEERS, "node:*"],
  plugins: [kernelsAddress],
});
await build({
  ...COMMON,
  entryPoints: ["dist/page/main.js"],
  outfile: "dist/page.js",
  plugins: [packageBeside],
});
await build({ ...COMMON, entryPoints: ["page/style.css"], outfile: "dist/style.css" });
