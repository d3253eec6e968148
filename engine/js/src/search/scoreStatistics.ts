/** Mean and spread of the scores of any user over a catalog, in closed form. */

import type { Int8Table } from "../kernels/kernelSet.js";

const ROUNDING = 1e-12; // of a variance, relative to the square of the mean

/** The mean of some scores, and their standard deviation; 1 where all are equal. */
export interface Spread {
  readonly mean: number;
  readonly deviation: number;
}

/** Moments of the n items (v, b) of a table: vector and bias. */
export class ScoreStatistics {
  private readonly size: number;
  private readonly mean: Float64Array;
  private readonly covariance: Float64Array; // [size, size]

  constructor(table: Int8Table) {
    const { rows, scale, bias, d } = table;
    const size = d + 1;
    const n = Math.max(scale.length, 1);
    const mean = new Float64Array(size);
    const products = new Float64Array(size * size);
    const item = new Float32Array(size);
    for (let row = 0; row < scale.length; row++) {
      for (let i = 0; i < d; i++) {
        item[i] = rows[row * d + i]! * scale[row]!;
      }
      item[d] = bias[row]!;
      for (let i = 0; i < size; i++) {
        const number = item[i]!;
        mean[i]! += number;
        for (let j = 0; j <= i; j++) {
          products[i * size + j]! += number * item[j]!;
        }
      }
    }
    this.size = size;
    this.mean = mean.map((sum) => sum / n);
    this.covariance = products;
    for (let i = 0; i < size; i++) {
      for (let j = 0; j <= i; j++) {
        const covariance = products[i * size + j]! / n - this.mean[i]! * this.mean[j]!;
        products[i * size + j] = covariance;
        products[j * size + i] = covariance;
      }
    }
  }

  /** Returns the spread of `query · v + biasWeight b` over the items, for a query [d]. */
  of(query: Float32Array, biasWeight: number): Spread {
    const weights = [...query, biasWeight];
    let variance = 0.0;
    let mean = 0.0;
    for (let i = 0; i < this.size; i++) {
      let sum = 0.0;
      for (let j = 0; j < this.size; j++) {
        sum += this.covariance[i * this.size + j]! * weights[j]!;
      }
      variance += weights[i]! * sum;
      mean += weights[i]! * this.mean[i]!;
    }
    const isConstant = variance <= ROUNDING * mean ** 2;
    return { mean, deviation: isConstant ? 1.0 : Math.sqrt(variance) };
  }
}
