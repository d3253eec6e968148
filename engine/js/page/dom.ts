/** Small helpers for building elements; no text ever becomes markup. */

/** What an element may have beside its attributes. */
export interface Properties {
  readonly [name: string]: string | number | boolean | null | undefined | EventListener;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * Returns a new element. A property that is a function becomes a listener of that event; false,
 * null and undefined leave an attribute out.
 */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), properties, children);
}

/** Returns a new element of an SVG drawing. */
export function drawing<K extends keyof SVGElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Node[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Returns the element of the page with this id. */
export function part<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`#${id}: expected an element of index.html, found none`);
  }
  return found as T;
}

/** Sets custom properties of an element's style, such as `--hue`. */
export function style(
  target: HTMLElement,
  values: Readonly<Record<string, number | string>>,
): void {
  for (const [name, value] of Object.entries(values)) {
    target.style.setProperty(name, String(value));
  }
}

function fill<T extends Element>(
  target: T,
  properties: Properties,
  children: readonly (Node | string)[],
): T {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") {
      target.addEventListener(name, value);
    } else if (value !== false && value !== null && value !== undefined) {
      target.setAttribute(name, value === true ? "" : String(value));
    }
  }
  target.append(...children);
  return target;
}
