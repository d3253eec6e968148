/** All kernels that the engine may have, which must return the same bits. */

import type { KernelSet } from "../../src/kernels/kernelSet.js";
import { loadKernels } from "../../src/kernels/loadKernels.js";

/** WebAssembly, then plain JavaScript. */
export const KERNELS: readonly KernelSet[] = [await loadKernels(), await loadKernels("plain")];
