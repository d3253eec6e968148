/** Chooses and loads the kernels of an engine. */

import type { KernelSet } from "./kernelSet.js";
import { plainKernels } from "./plainKernels.js";
import { readLocalFile, WASM_URL } from "./wasmFile.js";
import { WasmKernels } from "./wasmKernels.js";

/**
 * Returns the kernels to use: WebAssembly, or plain JavaScript where WebAssembly, its vectors or
 * the page's permission to compile it are missing. Both return the same bits.
 *
 * `source` is the module's bytes, its address, or `"plain"`. Throws what reading the bytes throws.
 */
export async function loadKernels(
  source: BufferSource | URL | "plain" = WASM_URL,
): Promise<KernelSet> {
  if (source === "plain" || typeof WebAssembly === "undefined") return plainKernels;
  const bytes = source instanceof URL ? await read(source) : source;
  if (!WebAssembly.validate(bytes)) return plainKernels;
  try {
    const { instance } = await WebAssembly.instantiate(bytes);
    return new WasmKernels(instance);
  } catch (error) {
    // A content security policy without 'wasm-unsafe-eval' refuses to compile.
    if (error instanceof WebAssembly.CompileError) return plainKernels;
    throw error;
  }
}

async function read(url: URL): Promise<BufferSource> {
  if (url.protocol === "file:") {
    return readLocalFile(url);
  }
  const response = await fetch(url);
  if (!response.ok) {
    throw new Error(
      `${url}: expected the kernels, found status ${response.status}; a bundler left them behind:` +
        " copy the package's wasm/sanderling.wasm, and open the engine with" +
        " kernels: await loadKernels(new URL(its address))",
    );
  }
  return response.arrayBuffer();
}
