/** The tensors of a safetensors file as views of its bytes, without a copy. */

import { BundleError } from "../errors.js";
import { checked, field, int, list, struct, text, tuple } from "../runtime/structs.js";
import { decodeJson, pythonList } from "./decodeJson.js";

const MAX_HEADER_BYTES = 1024 * 1024;

/** The arrays of each dtype; whole numbers of 64 bits are pairs of words, the lower one first. */
interface Arrays {
  readonly I8: Int8Array;
  readonly I32: Int32Array;
  readonly I64: Uint32Array;
  readonly U8: Uint8Array;
  readonly U64: Uint32Array;
  readonly F32: Float32Array;
  readonly F64: Float64Array;
}

/** A dtype, as safetensors names it. */
export type Dtype = keyof Arrays;

type ArrayType = new (buffer: ArrayBufferLike, offset: number, length: number) => Arrays[Dtype];

const TYPES: Record<Dtype, { readonly bytes: number; readonly array: ArrayType }> = {
  I8: { bytes: 1, array: Int8Array },
  I32: { bytes: 4, array: Int32Array },
  I64: { bytes: 8, array: Uint32Array },
  U8: { bytes: 1, array: Uint8Array },
  U64: { bytes: 8, array: Uint32Array },
  F32: { bytes: 4, array: Float32Array },
  F64: { bytes: 8, array: Float64Array },
};

const NAMES: Record<Dtype, string> = {
  I8: "int8", I32: "int32", I64: "int64", U8: "uint8", U64: "uint64", F32: "float32",
  F64: "float64",
};

/** One tensor of a file. */
export interface Tensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: Arrays[Dtype];
}

/** The tensors of a file by name. */
export type Tensors = ReadonlyMap<string, Tensor>;

/**
 * Returns every tensor of a safetensors file, by name.
 *
 * Throws `BundleError` when its header is malformed. `file` names the file in errors.
 */
export function viewTensors(file: string, bytes: Uint8Array): Tensors {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length < 8 ? 0 : Number(view.getBigUint64(0, true));
  if (length < 2 || length > Math.min(MAX_HEADER_BYTES, bytes.length - 8)) {
    throw new BundleError(
      `${file}: expected a header of 2 to ${MAX_HEADER_BYTES} bytes inside the file,` +
        ` found ${length}`,
    );
  }
  const place = `${file}: expected a safetensors file`;
  const header = decodeJson(place, bytes.subarray(8, 8 + length));
  const data = bytes.subarray(8 + length);
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  const headers = entries.map(([name, entry]) => [name, headerEntry(place, entry)] as const);
  return new Map(headers.map(([name, entry]) => [name, viewOf(`${file}: ${name}`, entry, data)]));
}

/** The header's description of one tensor; the offsets count from the end of the header. */
interface HeaderEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

const HEADER_ENTRY = struct("HeaderEntry", [
  field("dtype", text()),
  field("shape", list(int())),
  field("data_offsets", tuple(int(), int())),
]);

function headerEntry(place: string, entry: unknown): HeaderEntry {
  try {
    return checked(HEADER_ENTRY, entry) as HeaderEntry;
  } catch (error) {
    throw new BundleError(`${place}: ${(error as Error).message}`);
  }
}

function viewOf(place: string, entry: HeaderEntry, data: Uint8Array): Tensor {
  const { dtype, shape, data_offsets } = entry;
  if (!isDtype(dtype)) {
    const known = Object.keys(TYPES).join(", ");
    throw new BundleError(`${place}: expected a dtype of ${known}, found ${dtype}`);
  }
  if (shape.some((side) => side < 0)) {
    throw new BundleError(`${place}: expected sides of at least 0, found [${shape.join(", ")}]`);
  }
  const [start, stop] = data_offsets;
  const type = TYPES[dtype];
  const count = shape.reduce((product, side) => product * side, 1);
  const isInside = start >= 0 && start <= stop && stop <= data.length;
  if (!isInside || stop - start !== count * type.bytes) {
    throw new BundleError(
      `${place}: expected ${count * type.bytes} bytes inside the file, found ${start}:${stop}`,
    );
  }
  let bytes = data.subarray(start, stop);
  if (bytes.byteOffset % type.bytes !== 0) {
    bytes = bytes.slice(); // views need addresses that are multiples of their elements' size
  }
  const words = type.array === Uint32Array ? 2 * count : count;
  return { dtype, shape, data: new type.array(bytes.buffer, bytes.byteOffset, words) };
}

function isDtype(name: string): name is Dtype {
  return Object.hasOwn(TYPES, name);
}

/**
 * Returns the data of one tensor; throws `BundleError` when it is absent or of another dtype or
 * shape.
 */
export function expectTensor<D extends Dtype>(
  tensors: Tensors,
  file: string,
  name: string,
  dtype: D,
  shape: readonly number[],
): Arrays[D] {
  const tensor = tensors.get(name);
  if (tensor === undefined) {
    const found = pythonList([...tensors.keys()].sort());
    throw new BundleError(`${file}: expected a tensor ${name}, found ${found}`);
  }
  const sides = tensor.shape.join(", ");
  if (tensor.dtype !== dtype || sides !== shape.join(", ")) {
    throw new BundleError(
      `${file}: ${name}: expected ${NAMES[dtype]} [${shape.join(", ")}],` +
        ` found ${NAMES[tensor.dtype]} [${sides}]`,
    );
  }
  return tensor.data as Arrays[D];
}
