import assert from "node:assert/strict";
import { test } from "node:test";

import { findColumns, plainTitle, type CatalogEntry } from "../page/columns.js";

const GENRES = ["Comedy", "Drama", "Comedy Drama", "Sci-Fi", "Drama Sci-Fi"];

function films(count: number): CatalogEntry[] {
  return Array.from({ length: count }, (_, i) => ({
    id: String(i),
    title: `Film ${i} (${1930 + (i % 70)})`,
    attributes: { genres: GENRES[i % GENRES.length] },
  }));
}

test("Words of a column become labels, and a label stands for all its values.", () => {
  const many = films(200).map((film, i) => ({
    ...film,
    attributes: { genres: `${GENRES[i % 5]} ${["War", "Noir"][i % 2]} ${"ABCDEF"[i % 6]}` },
  }));
  const { category } = findColumns(many);
  const words = "Comedy Drama Sci-Fi War Noir A B C D E F".split(" ");
  assert.deepEqual(new Set(category?.labels), new Set(words));
  const values = category?.valuesOf("War") ?? [];
  assert.ok(values.length > 1 && values.every((value) => value.includes("War")));
});

test("Whole values are labels where there are few of them.", () => {
  const { category } = findColumns(films(50));
  assert.deepEqual([...(category?.labels ?? [])].sort(), [...GENRES].sort());
  assert.deepEqual(category?.valuesOf("Drama"), ["Drama"]);
});

test("Years at the ends of titles are a range of decades.", () => {
  const { range } = findColumns(films(70));
  assert.deepEqual([range?.low, range?.high, range?.step], [1930, 1990, 10]);
  assert.ok(range?.isInTitle && range.isYear);
  assert.equal(range.valueOf(films(70)[3]!), 1933);
});

test("A book of antiquity does not stretch the range of years.", () => {
  const years = [-700, 121, ...Array.from({ length: 40 }, (_, i) => 1800 + i)];
  const { range } = findColumns(
    years.map((year, i) => ({ id: String(i), title: "A book", attributes: { year } })),
  );
  assert.deepEqual([range?.low, range?.high], [1630, 1830]);
});

test("A catalog without attributes has no columns.", () => {
  const bare = [1, 2, 3].map((i) => ({ id: String(i), title: `Item ${i}`, attributes: {} }));
  assert.deepEqual(findColumns(bare), { category: null, range: null });
  assert.deepEqual(findColumns([]), { category: null, range: null });
});

test("Titles lose the year at their end, keep another, and have their article in front.", () => {
  assert.equal(plainTitle("Alien (1979)"), "Alien");
  assert.equal(plainTitle("Tin Drum, The (Die Trommel) (1979)"), "The Tin Drum (Die Trommel)");
  assert.equal(plainTitle("American in Paris, An (1951)"), "An American in Paris");
  assert.equal(plainTitle("2001: A Space Odyssey"), "2001: A Space Odyssey");
  assert.equal(plainTitle("(1984)"), "(1984)");
});
