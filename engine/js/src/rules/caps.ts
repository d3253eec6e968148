/** Caps: limits the number of items per value of an attribute, such as an author, in a ranking. */

import { isList, valueOf } from "../json.js";
import type { SearchResult } from "../kernels/kernelSet.js";
import { LruCache } from "../runtime/lruCache.js";
import { concatenate, lowerBound, NO_ROWS } from "../ranking/rows.js";
import type { AttributeSource, ChangedRows } from "./catalogAttributes.js";
import type { Attributes } from "../slate.js";

const CACHED_GROUPS = 64; // whose rows are kept, so that memory is bounded

/** A text or a number; booleans count as 0 and 1. */
export type Group = string | number;

/** The groups of rows by one attribute: its value, or each value of a list. */
export interface Groups {
  /** Returns the groups of a row; one without the attribute is in none. */
  groupsOf(row: number): readonly Group[];

  /** Returns the rows of a group, none for an unknown one. */
  rowsOf(group: Group): Int32Array;
}

/** At most `atMost` items of each group. */
export interface Cap {
  readonly groups: Groups;
  readonly atMost: number;
}

/** The groups of rows whose values are given; the first is the row `first`. */
class ListedGroups implements Groups {
  private readonly all: readonly Group[];
  private readonly codeOf: ReadonlyMap<Group, number>;
  private readonly codes: Int32Array; // those of all rows, one row after the other
  private readonly starts: Int32Array;
  private readonly cache = new LruCache<Group, Int32Array>(CACHED_GROUPS);

  constructor(
    values: Iterable<unknown>,
    private readonly first = 0,
  ) {
    const codeOf = new Map<Group, number>();
    const codes: number[] = [];
    const stops = [0];
    for (const value of values) {
      for (const group of groupsIn(value)) {
        const code = codeOf.get(group) ?? codeOf.size;
        codeOf.set(group, code);
        codes.push(code);
      }
      stops.push(codes.length);
    }
    this.all = [...codeOf.keys()];
    this.codeOf = codeOf;
    this.codes = Int32Array.from(codes);
    this.starts = Int32Array.from(stops);
  }

  groupsOf(row: number): Group[] {
    const place = row - this.first;
    const codes = this.codes.subarray(this.starts[place], this.starts[place + 1]);
    return Array.from(codes, (code) => this.all[code]!);
  }

  rowsOf(group: Group): Int32Array {
    const code = this.codeOf.get(group);
    return code === undefined ? NO_ROWS : this.cache.getOrMake(group, () => this.rowsOfCode(code));
  }

  private rowsOfCode(wanted: number): Int32Array {
    const rows: number[] = [];
    this.codes.forEach((code, place) => {
      if (code === wanted) {
        // The last row that starts at this place or before: those before it may be empty.
        rows.push(lowerBound(this.starts, place + 1) - 1 + this.first);
      }
    });
    return Int32Array.from(rows);
  }
}

/** Groups by an attribute that the app changed for some rows since. */
class ChangedGroups implements Groups {
  private readonly ofRow = new Map<number, readonly Group[]>();
  private readonly ofGroup = new Map<Group, number[]>();

  constructor(
    private readonly groups: Groups,
    attribute: string,
    changed: ChangedRows,
  ) {
    for (const [row, record] of changed) {
      if (Object.hasOwn(record, attribute)) {
        const groupsOfRow = groupsIn(valueOf(record, attribute));
        this.ofRow.set(row, groupsOfRow);
        for (const group of groupsOfRow) {
          const rows = this.ofGroup.get(group);
          rows === undefined ? this.ofGroup.set(group, [row]) : rows.push(row);
        }
      }
    }
  }

  groupsOf(row: number): readonly Group[] {
    return this.ofRow.get(row) ?? this.groups.groupsOf(row);
  }

  rowsOf(group: Group): Int32Array {
    const before = this.groups.rowsOf(group).filter((row) => !this.ofRow.has(row));
    return concatenate(before, Int32Array.from(this.ofGroup.get(group) ?? []));
  }
}

/** The groups of a bundle's items by attribute, each made on its first use. */
export class BundleGroups {
  private readonly made = new Map<string, Groups>();

  constructor(private readonly bundle: AttributeSource) {}

  /** Returns the groups by an attribute; the first call reads the whole catalog. */
  get(attribute: string): Groups {
    let groups = this.made.get(attribute);
    if (groups === undefined) {
      const records = this.bundle.records();
      groups = new ListedGroups(Array.from(records, (record) => valueOf(record, attribute)));
      this.made.set(attribute, groups);
    }
    return groups;
  }
}

/** The caps of requests in one catalog, which count items of the bundle and of the device. */
export class CatalogCaps {
  private readonly made = new Map<string, Groups>();

  /** Joins the groups of a bundle of n items with added items and changed attributes. */
  constructor(
    private readonly bundleGroups: BundleGroups,
    private readonly n: number,
    private readonly added: readonly Attributes[],
    private readonly changed: ChangedRows,
  ) {}

  /** Returns the caps of a request. */
  of(atMost: ReadonlyMap<string, number>): Cap[] {
    return Array.from(atMost, ([attribute, limit]) => ({
      groups: this.groupsBy(attribute),
      atMost: limit,
    }));
  }

  /** Returns the groups of all items by an attribute. */
  groupsBy(attribute: string): Groups {
    let groups = this.made.get(attribute);
    if (groups === undefined) {
      groups = this.make(attribute);
      this.made.set(attribute, groups);
    }
    return groups;
  }

  private make(attribute: string): Groups {
    const n = this.n;
    const stored = this.bundleGroups.get(attribute);
    const isChanged = this.changed.size > 0;
    const bundled = isChanged ? new ChangedGroups(stored, attribute, this.changed) : stored;
    if (this.added.length === 0) {
      return bundled;
    }
    const added = new ListedGroups(
      this.added.map((record) => valueOf(record, attribute)),
      n,
    );
    return {
      groupsOf: (row) => (row < n ? bundled.groupsOf(row) : added.groupsOf(row)),
      rowsOf: (group) => concatenate(bundled.rowsOf(group), added.rowsOf(group)),
    };
  }
}

/**
 * Returns the k best items, or fewer, of which no group has more than its cap, best first.
 *
 * `search(count, excluded)` returns the best rows without the excluded ones. It is called again,
 * without the groups that are full, until there are k. `eligible` is that of the first call. The
 * rows `taken` count against the caps, and are not returned.
 */
export function applyCaps(
  search: (count: number, excluded: Int32Array) => SearchResult,
  caps: readonly Cap[],
  k: number,
  excluded: Int32Array,
  taken: Int32Array = NO_ROWS,
): SearchResult {
  const room = new Room(caps);
  taken.forEach((row) => room.take(row));
  let left = concatenate(excluded, taken, ...room.full());
  const rows: number[] = [];
  const scores: number[] = [];
  let eligible: number | null = null;
  while (rows.length < k) {
    const result = search(k - rows.length, left);
    eligible ??= result.eligible;
    if (result.rows.length === 0) {
      break;
    }
    result.rows.forEach((row, place) => {
      if (room.has(row)) {
        rows.push(row);
        scores.push(result.scores[place]!);
        room.take(row);
      }
    });
    // What was looked at is not looked at again, whether it was taken or left out.
    left = concatenate(left, result.rows, ...room.full());
  }
  return {
    rows: Int32Array.from(rows),
    scores: Float64Array.from(scores),
    eligible: eligible ?? 0,
  };
}

/**
 * Returns which rows a slate can show that takes each, in order, unless a group of it is full.
 */
export function firstWithin(caps: readonly Cap[], rows: Int32Array): boolean[] {
  const room = new Room(caps);
  return Array.from(rows, (row) => {
    const fits = room.has(row);
    if (fits) {
      room.take(row);
    }
    return fits;
  });
}

/** How many items of each group were taken. */
class Room {
  private readonly counts: readonly Map<Group, number>[];
  private newlyFull: Int32Array[] = [];

  constructor(private readonly caps: readonly Cap[]) {
    this.counts = caps.map(() => new Map<Group, number>());
  }

  /** Returns whether no group of a row is full. */
  has(row: number): boolean {
    return this.caps.every(({ groups, atMost }, i) =>
      groups.groupsOf(row).every((group) => (this.counts[i]!.get(group) ?? 0) < atMost),
    );
  }

  /** Counts a row. */
  take(row: number): void {
    this.caps.forEach(({ groups, atMost }, i) => {
      for (const group of groups.groupsOf(row)) {
        const count = (this.counts[i]!.get(group) ?? 0) + 1;
        this.counts[i]!.set(group, count);
        if (count === atMost) {
          this.newlyFull.push(groups.rowsOf(group));
        }
      }
    });
  }

  /** Returns the rows of the groups that have become full since the last call. */
  full(): Int32Array[] {
    const lists = this.newlyFull;
    this.newlyFull = [];
    return lists;
  }
}

/** Returns the different texts and numbers of an attribute's value; anything else is no group. */
function groupsIn(value: unknown): Group[] {
  const groups = new Set<Group>();
  for (const element of isList(value) ? value : [value]) {
    if (typeof element === "string" || typeof element === "number") {
      groups.add(element);
    } else if (typeof element === "boolean") {
      groups.add(Number(element));
    }
  }
  return [...groups];
}
