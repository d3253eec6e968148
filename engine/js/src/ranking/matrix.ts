/** Products of matrices and vectors. */

/** Returns the product [m] of a matrix [m, n] and a vector [n], summed in float64. */
export function product(matrix: Float32Array, vector: Float32Array): Float32Array {
  const n = vector.length;
  const result = new Float32Array(matrix.length / n);
  for (let i = 0; i < result.length; i++) {
    let sum = 0.0;
    for (let j = 0; j < n; j++) {
      sum += matrix[i * n + j]! * vector[j]!;
    }
    result[i] = sum;
  }
  return result;
}
