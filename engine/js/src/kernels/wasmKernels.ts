/** The set of kernels in WebAssembly. */

import type { Int8Index, Int8Table, KernelSet, UserModel, UserModelTensors } from "./kernelSet.js";
import { MAX_DIMENSIONS } from "./layout.js";
import { idWords } from "./philox.js";
import { PlainIndex } from "./plainIndex.js";
import { userWeights } from "./userWeights.js";
import { WasmIndex } from "./wasmIndex.js";
import { WasmModule } from "./wasmModule.js";
import { WasmUserModel } from "./wasmUserModel.js";

/** The kernels of an instance of `sanderling.wasm`. */
export class WasmKernels implements KernelSet {
  readonly source = "wasm";
  private readonly module: WasmModule;

  constructor(instance: WebAssembly.Instance) {
    this.module = new WasmModule(instance);
  }

  makeIndex(table: Int8Table): Int8Index {
    const fitsKernels = table.scale.length > 0 && table.d > 0 && table.d <= MAX_DIMENSIONS;
    return fitsKernels ? new WasmIndex(this.module, table) : new PlainIndex(table);
  }

  makeUserModel(policy: UserModelTensors): UserModel {
    return new WasmUserModel(this.module, userWeights(policy));
  }

  uniforms(decision: string, blocks: number): Float64Array {
    const words = idWords(decision);
    const [out] = this.module.room([16 * blocks]);
    this.module.uniforms(...words, blocks, out);
    return this.module.memory.doubles.slice(out / 8, out / 8 + 2 * blocks);
  }
}
