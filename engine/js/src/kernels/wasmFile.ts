/** Where the package has its WebAssembly module, and how a file is read: `noWasmFile` elsewhere. */

/** Where the package has its module. */
export const WASM_URL = new URL("../../../wasm/sanderling.wasm", import.meta.url);

/** Returns the bytes of a `file:` URL, which Node alone can read. */
export async function readLocalFile(url: URL): Promise<BufferSource> {
  const { readFile } = await import("node:fs/promises");
  return readFile(url);
}
