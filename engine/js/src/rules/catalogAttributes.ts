/** The attributes of a bundle's items and of those that the device added, compared with rules. */

import type { AttributeColumns, AttributeType } from "../bundle/columns.js";
import type { FeatureTensors } from "../bundle/features.js";
import { shown } from "../errors.js";
import { valueOf } from "../json.js";
import { compareTexts, cut } from "../unicode.js";
import {
  emptyColumn,
  kindOf,
  makeColumn,
  storedColumn,
  textFault,
  type Column,
  type Kind,
  vectorFault,
} from "./attributes.js";
import { closeMatches } from "./closeMatches.js";
import type { Bits, Comparison, Rule } from "./types.js";
import { matches } from "./where.js";
import type { Attributes } from "../slate.js";

/** The attributes that the app changed of the bundle's items, by row; null for one taken away. */
export type ChangedRows = ReadonlyMap<number, Attributes>;

/** No changes. */
export const NOTHING_CHANGED: ChangedRows = new Map();

const NOT_ATTRIBUTES: ReadonlySet<string> = new Set(["id", "text", "added_ms"]);

/** What is read of a bundle. */
export interface AttributeSource {
  /** The attributes as typed columns, in bundles that have them. */
  readonly columns: AttributeColumns | null;

  /** How attributes become numbers, in bundles that have such features. */
  readonly itemFeatures?: FeatureTensors | null;

  /** Returns every entry of the catalog in the order of the rows. */
  records(): Iterable<Attributes>;
}

/**
 * The attributes of a bundle's items as columns, each loaded on its first use: from the file of
 * columns, or, for texts and in bundles without that file, from the whole catalog.
 */
export class BundleColumns {
  private readonly loaded = new Map<string, Column | null>();
  private allNames: ReadonlySet<string> | null = null;

  constructor(private readonly bundle: AttributeSource) {}

  /** Returns an attribute's column, null where no item has it. */
  get(attribute: string): Column | null {
    let column = this.loaded.get(attribute);
    if (column === undefined) {
      column = this.load(attribute);
      this.loaded.set(attribute, column);
    }
    return column;
  }

  /** Returns an attribute's type in the file of columns, null where that does not have it. */
  storedType(attribute: string): AttributeType | null {
    return this.bundle.columns?.types.get(attribute) ?? null;
  }

  /** Returns how many numbers a vector of an attribute has; null for any. */
  widthOf(attribute: string): number | null {
    const features = this.bundle.itemFeatures?.schema.features ?? [];
    return features.find(({ name }) => name === attribute)?.width ?? null;
  }

  /** Returns the names of all attributes; the first call may read the whole catalog. */
  names(): ReadonlySet<string> {
    this.allNames ??= new Set(this.bundle.columns?.types.keys() ?? namesIn(this.bundle.records()));
    return this.allNames;
  }

  private load(attribute: string): Column | null {
    const stored = this.bundle.columns;
    const type = stored?.types.get(attribute);
    if (stored !== null && (type === undefined || type === "vector")) {
      return null;
    }
    if (stored !== null && type !== "text") {
      return storedColumn(stored, attribute);
    }
    const values = Array.from(this.bundle.records(), (record) => valueOf(record, attribute));
    const kind = kindOf(values);
    return kind === null ? null : makeColumn(values, kind);
  }
}

/** One attribute of the bundle's items and of the added ones. */
interface Columns {
  readonly bundled: Column;
  readonly added: Column;
}

/** The attributes of a catalog, the bundle's and the device's; a changed one makes another. */
export class CatalogAttributes {
  private readonly columns = new Map<string, Columns>();

  /**
   * Joins the columns of a bundle of n items, the records of added items, and the attributes that
   * the app changed of the bundle's items.
   */
  constructor(
    private readonly bundleColumns: BundleColumns,
    private readonly n: number,
    private readonly added: readonly Attributes[],
    private readonly changed: ChangedRows = NOTHING_CHANGED,
  ) {}

  /**
   * Returns for each item of the bundle, then for each added one, whether a rule holds for it.
   *
   * Throws `RangeError` for an attribute that no item has, `TypeError` for an operand of another
   * type than the attribute's; both name the argument.
   */
  matches(rule: Rule, name = "where"): Bits {
    const rows = this.n + this.added.length;
    const compare = (comparison: Comparison): Bits => {
      const place = `${name}: ${cut(comparison.attribute, 80)}`;
      const columns = this.get(comparison.attribute);
      if (columns === null) {
        throw new RangeError(`${place}: ${this.unknown(comparison.attribute)}`);
      }
      typed(columns).check(comparison, place);
      const found = new Uint8Array(rows);
      found.set(columns.bundled.compare(comparison));
      found.set(columns.added.compare(comparison), this.n);
      return found;
    };
    return matches(rule.condition, compare, rows);
  }

  /** Makes an attribute's columns now, if any item has it. */
  load(attribute: string): void {
    this.get(attribute);
  }

  /**
   * Throws `TypeError` for a value of another type than its attribute's, given the attributes of
   * items by id; the error names the argument that they are from, and the first such item.
   */
  check(items: ReadonlyMap<string, Attributes>, argument = "changes"): void {
    const names = namesIn(items.values());
    NOT_ATTRIBUTES.forEach((name) => names.delete(name));
    for (const name of [...names].sort(compareTexts)) {
      const faultOf = this.faultOf(name);
      for (const [item, attributes] of items) {
        const value = valueOf(attributes, name);
        const expected = value === null ? null : faultOf(value);
        if (expected !== null) {
          throw new TypeError(
            `${argument}: ${cut(item, 80)}: ${cut(name, 80)}: expected ${expected}, found` +
              ` ${shown(value)}`,
          );
        }
      }
    }
  }

  /** Returns the attributes after more changes, whose rows are given: loaded columns stay. */
  changedBy(
    added: readonly Attributes[],
    changed: ChangedRows,
    rows: Iterable<number>,
  ): CatalogAttributes {
    const other = new CatalogAttributes(this.bundleColumns, this.n, added, changed);
    const latest = new Map([...rows].map((row) => [row, changed.get(row)!]));
    for (const [name, columns] of this.columns) {
      const bundled = patched(columns.bundled, name, latest);
      other.columns.set(name, { bundled, added: other.addedColumn(name, bundled.kind) });
    }
    return other;
  }

  /** Returns the columns of an attribute, null where no item has it. */
  private get(attribute: string): Columns | null {
    let columns = this.columns.get(attribute);
    if (columns === undefined) {
      const stored = this.bundleColumns.get(attribute);
      const kind = stored?.kind ?? this.kindOnDevice(attribute);
      if (kind === null) {
        return null;
      }
      const bundled = patched(stored ?? emptyColumn(kind, this.n), attribute, this.changed);
      columns = { bundled, added: this.addedColumn(attribute, kind) };
      this.columns.set(attribute, columns);
    }
    return columns;
  }

  /** Returns what says what is expected in place of a value, null where it fits the attribute. */
  private faultOf(attribute: string): (value: unknown) => string | null {
    const stored = this.bundleColumns.storedType(attribute);
    if (stored === "vector") {
      const width = this.bundleColumns.widthOf(attribute);
      return (value) => vectorFault(value, width);
    }
    if (stored === "text") {
      return textFault;
    }
    const columns = this.get(attribute);
    return (value) => (columns === null ? null : typed(columns).fault(value));
  }

  private addedColumn(attribute: string, kind: Kind): Column {
    return makeColumn(
      this.added.map((record) => valueOf(record, attribute)),
      kind,
    );
  }

  /** Returns the type of an attribute that the bundle lacks by the device's own values. */
  private kindOnDevice(attribute: string): Kind | null {
    if (NOT_ATTRIBUTES.has(attribute)) {
      return null;
    }
    const records = this.ofDevice();
    const kind = kindOf(records.map((record) => valueOf(record, attribute)));
    // What the app took away from the last item is still no typing error.
    const isKnown = records.some((record) => Object.hasOwn(record, attribute));
    return kind ?? (isKnown ? "categories" : null);
  }

  private ofDevice(): Attributes[] {
    return [...this.added, ...this.changed.values()];
  }

  private unknown(attribute: string): string {
    if (this.bundleColumns.storedType(attribute) === "vector") {
      return "expected an attribute that can be compared, found one of vectors";
    }
    const names = new Set([...this.bundleColumns.names(), ...namesIn(this.ofDevice())]);
    NOT_ATTRIBUTES.forEach((name) => names.delete(name));
    const close = closeMatches(attribute, names, 3);
    const near = close.length > 0 ? close : [...names].sort(compareTexts).slice(0, 5);
    return (
      `expected an attribute that an item has, found ${shown(attribute)};` +
      ` near: ${near.map((name) => `'${name}'`).join(", ")}`
    );
  }
}

/** Returns that of the two columns which says what fits the attribute. */
function typed(columns: Columns): Column {
  return columns.bundled.hasTypes ? columns.bundled : columns.added;
}

/** Returns a column of the bundle's items with the values that the app changed, if any. */
function patched(column: Column, attribute: string, changed: ChangedRows): Column {
  const values = new Map<number, unknown>();
  for (const [row, record] of changed) {
    if (Object.hasOwn(record, attribute)) {
      values.set(row, valueOf(record, attribute));
    }
  }
  return values.size > 0 ? column.patched(values) : column;
}

function namesIn(records: Iterable<Attributes>): Set<string> {
  const names = new Set<string>();
  for (const record of records) {
    Object.keys(record).forEach((name) => names.add(name));
  }
  return names;
}
