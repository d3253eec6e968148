/** Products of matrices and vectors. */

/** Adds the product of a matrix [m, n] and a vector [n] to sums [m], in the order of n. */
export function addProduct(sums: Float64Array, matrix: Float32Array, vector: Float32Array): void {
  const n = vector.length;
  for (let i = 0; i < sums.length; i++) {
    for (let j = 0; j < n; j++) {
      sums[i]! += matrix[i * n + j]! * vector[j]!;
    }
  }
}

/** Returns the product [m] of a matrix [m, n] and a vector [n], summed in float64. */
export function product(matrix: Float32Array, vector: Float32Array): Float32Array {
  const sums = new Float64Array(matrix.length / vector.length);
  addProduct(sums, matrix, vector);
  return Float32Array.from(sums);
}
