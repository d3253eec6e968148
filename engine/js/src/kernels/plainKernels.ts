/** The set of kernels in plain JavaScript. */

import type { Int8Index, Int8Table, KernelSet, UserModel, UserModelTensors } from "./kernelSet.js";
import { plainUniforms } from "./philox.js";
import { PlainIndex } from "./plainIndex.js";
import { PlainUserModel } from "./plainUserModel.js";
import { userWeights } from "./userWeights.js";

/** The kernels in plain JavaScript, for where WebAssembly or its vectors are missing. */
export const plainKernels: KernelSet = {
  source: "plain",

  makeIndex(table: Int8Table): Int8Index {
    return new PlainIndex(table);
  },

  makeUserModel(policy: UserModelTensors): UserModel {
    return new PlainUserModel(userWeights(policy));
  },

  uniforms: plainUniforms,
};
