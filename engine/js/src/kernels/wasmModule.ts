/** An instance of `sanderling.wasm`, its memory, and room for the arguments of one call. */

import { WasmMemory, wholeLines } from "./wasmMemory.js";

type EntryPoint = (...addresses: number[]) => number;

interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly __heap_base: WebAssembly.Global;
  readonly sanderling_pack: EntryPoint;
  readonly sanderling_scan: EntryPoint;
  readonly sanderling_uniforms: EntryPoint;
  readonly sanderling_step: EntryPoint;
  readonly sanderling_user_vector: EntryPoint;
}

/** The kernels of one instance. JavaScript calls them from one thread only. */
export class WasmModule {
  readonly memory: WasmMemory;
  readonly pack: EntryPoint;
  readonly scan: EntryPoint;
  readonly uniforms: EntryPoint;
  readonly step: EntryPoint;
  readonly userVector: EntryPoint;
  private arena = 0;
  private arenaSize = 0;

  constructor(instance: WebAssembly.Instance) {
    const exports = instance.exports as unknown as Exports;
    this.memory = new WasmMemory(exports.memory, Number(exports.__heap_base.value));
    this.pack = exports.sanderling_pack;
    this.scan = exports.sanderling_scan;
    this.uniforms = exports.sanderling_uniforms;
    this.step = exports.sanderling_step;
    this.userVector = exports.sanderling_user_vector;
  }

  /** Returns the addresses of blocks of these sizes; they are valid until the next call. */
  room<const Sizes extends readonly number[]>(sizes: Sizes): { [K in keyof Sizes]: number } {
    let needed = 0;
    for (const size of sizes) needed += wholeLines(size);
    if (needed > this.arenaSize) {
      this.memory.release(this.arena);
      this.arena = this.memory.allocate(needed);
      this.arenaSize = needed;
    }
    let next = this.arena;
    const starts = sizes.map((size) => {
      const start = next;
      next += wholeLines(size);
      return start;
    });
    return starts as { [K in keyof Sizes]: number };
  }
}
