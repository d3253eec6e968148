/** Generated covers: a colour from the item's category, an ornament and a shade from its id. */

import { drawing, element, style } from "./dom.js";

/** What a cover shows. */
export interface CoverText {
  readonly id: string;
  readonly title: string;

  /** Up to two lines at its foot. */
  readonly lines: readonly string[];

  /** The hue in degrees. */
  readonly hue: number;
}

const WIDTH = 120;
const HEIGHT = 160;
const LINE = 1.1;
const DOT = 3.2;
const HUES = [232, 18, 152, 288, 62, 196, 338, 84, 258, 126, 312, 40];
const GOLDEN_ANGLE = 137.508;

/** Returns the hue of a category by its place; neighbours differ as much as hues can. */
export function hueOf(place: number): number {
  return HUES[place] ?? (HUES[0]! + place * GOLDEN_ANGLE) % 360;
}

/** Returns the cover of an item. */
export function cover(text: CoverText): HTMLElement {
  const draw = generator(text.id);
  const made = element(
    "div",
    { class: "cover" },
    ornament(draw),
    element("h2", {}, text.title),
    element("p", {}, ...text.lines.map((line) => element("span", {}, line))),
  );
  style(made, { "--hue": (text.hue + (draw() - 0.5) * 20).toFixed(1), "--shade": shade(draw) });
  return made;
}

function shade(draw: () => number): string {
  return ((draw() - 0.5) * 0.1).toFixed(3);
}

function ornament(draw: () => number): SVGSVGElement {
  const shapes = [rings, waves, rays, steps, dots];
  const shape = shapes[Math.floor(draw() * shapes.length)]!;
  const width = shape === dots ? DOT : LINE;
  return drawing(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "xMidYMax slice",
      "aria-hidden": "true",
    },
    drawing("path", {
      d: shape(draw),
      fill: "none",
      stroke: "currentColor",
      "stroke-width": width,
      "stroke-linecap": "round",
    }),
  );
}

function rings(draw: () => number): string {
  const x = WIDTH * (0.15 + 0.7 * draw());
  const y = HEIGHT * (0.72 + 0.2 * draw());
  const gap = 5 + 4 * draw();
  return range(11)
    .map((i) => (i + 1) * gap)
    .map((r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`)
    .join("");
}

function waves(draw: () => number): string {
  const length = 22 + 26 * draw();
  const height = 3 + 6 * draw();
  return range(11)
    .map((i) => {
      const y = HEIGHT - 6 - i * 7;
      const start = -length + ((i * length) / 2) * draw() * 0.6;
      const arcs = range(Math.ceil(WIDTH / length) + 2).map(() => waveArc(length, height));
      return `M${start} ${y}${arcs.join("")}`;
    })
    .join("");
}

function waveArc(length: number, height: number): string {
  const half = length / 2;
  return `q${half / 2} ${-height} ${half} 0t${half} 0`;
}

function rays(draw: () => number): string {
  const x = WIDTH * (0.1 + 0.8 * draw());
  const y = HEIGHT * 1.04;
  const count = 17 + Math.floor(10 * draw());
  return range(count)
    .map((i) => {
      const angle = (Math.PI * (i + 0.5)) / count;
      const inner = 16 + 10 * (i % 2);
      const outer = 78 + 24 * ((i * 7) % 3);
      const at = (r: number) => `${x - r * Math.cos(angle)} ${y - r * Math.sin(angle)}`;
      return `M${at(inner)}L${at(outer)}`;
    })
    .join("");
}

function steps(draw: () => number): string {
  const gap = 6 + 3 * draw();
  const turn = draw() < 0.5 ? 1 : -1;
  return range(14)
    .map((i) => {
      const y = HEIGHT - 4 - i * gap * 0.8;
      const width = 14 + ((i * 37 + Math.floor(40 * draw())) % 90);
      return turn > 0 ? `M0 ${y}h${width}` : `M${WIDTH} ${y}h${-width}`;
    })
    .join("");
}

function dots(draw: () => number): string {
  const gap = 9 + 3 * draw();
  const slope = 0.5 + draw();
  const found: string[] = [];
  for (let row = 0; row * gap < HEIGHT * 0.55; row++) {
    for (let column = 0; column * gap < WIDTH; column++) {
      if (column * slope + row < 11) {
        found.push(`M${6 + column * gap} ${HEIGHT - 7 - row * gap}h.01`);
      }
    }
  }
  return found.join("");
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** Returns a generator of numbers in [0, 1) that is the same for the same text (xorshift32). */
function generator(text: string): () => number {
  let state = 2166136261;
  for (let i = 0; i < text.length; i++) {
    state = Math.imul(state ^ text.charCodeAt(i), 16777619);
  }
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
