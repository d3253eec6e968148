/** Where the package has its WebAssembly module, and how a file is read: `noWasmFile` elsewhere. */

/** Where the package has its module. */
export const WASM_URL = new URL("../../../wasm/sanderling.wasm", import.meta.url);

/** Returns the bytes of a `file:` URL, which Node alone can read. */
export async function readLocalFile(url: URL): Promise<BufferSource> {
  // No page comes here: `browser` in package.json tells bundlers to leave the module out.
  const { readFile } = await import(/* webpackIgnore: true */ "node:fs/promises");
  return readFile(url);
}
