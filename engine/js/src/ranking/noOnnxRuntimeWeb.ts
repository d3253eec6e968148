/** In place of `onnxRuntimeWeb` in React Native, which cannot run onnxruntime-web. */

import { MissingPackageError } from "./missingPackage.js";
import type { EncodeText } from "./textEncoder.js";

/** Rejects with `MissingPackageError`: the app gives `encoder: onnxEncoder(ort)`, or has none. */
export async function onnxRuntimeWeb(): Promise<EncodeText> {
  throw new MissingPackageError("onnxruntime-react-native", "pass `encoder: onnxEncoder(ort)`");
}
