/** Curves over time with bands, and the legend of colours. */

import { colourOf, hexOf } from "./colours.js";
import { LABEL_SIZE, label, s, textWidth } from "./elements.js";
import { elided } from "./names.js";

const [LEFT, RIGHT, BOTTOM] = [40, 10, 34];

/** Join runs of equal entries: the value, and the first and the last place of each run. */
export function runsOf(list) {
  const found = [];
  list.forEach((value, place) => {
    if (found.length && found.at(-1).value === value) found.at(-1).to = place;
    else found.push({ value, from: place, to: place });
  });
  return found;
}

/** Return the parts of points in which a number is known. Each point gets its place. */
function knownParts(points, name) {
  const placed = points.map((point, place) => ({ ...point, place }));
  const runs = runsOf(points.map((point) => !Number.isNaN(point[name])));
  return runs.filter(({ value }) => value).map(({ from, to }) => placed.slice(from, to + 1));
}

/**
 * Draw curves over time. `lines` have points `{value, low, high}`, a colour, a name or none, and may be dashed. The
 * figure has `placeAt`, the moment at an offset, and `showCursor`.
 */
export function curveFigure({ width, height, lines, low, high, moments }) {
  const last = Math.max(1, moments.length - 1);
  const [right, bottom] = [width - RIGHT, height - BOTTOM];
  const named = lines.filter((line) => line.name);
  const top = named.length ? 24 : 8;
  const x = (place) => LEFT + (place / last) * (right - LEFT);
  const part = (value) => Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
  const y = (value) => bottom - part(value) * (bottom - top);
  const style = { fill: "var(--muted)", "text-anchor": "end" };
  const parts = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => {
    const value = low + share * (high - low);
    const tick = label(value.toFixed(2), LEFT - 6, y(value) + 4, style);
    return [s("line", { x1: LEFT, x2: right, y1: y(value), y2: y(value), stroke: "var(--line)" }), tick];
  });
  let start = LEFT;
  for (const { name, colour } of named) {
    const text = elided(name, 24);
    parts.push(label(text, start, LABEL_SIZE, { fill: colour, "font-weight": 600 }));
    start += textWidth(text) + 20;
  }
  const path = (points, name) => points.map((point) => `${x(point.place)} ${y(point[name])}`);
  for (const { points, colour, isDashed } of lines) {
    for (const known of knownParts(points, "low")) {
      const d = `M${path(known, "high").concat(path(known, "low").reverse()).join("L")}Z`;
      parts.push(s("path", { d, fill: colour, opacity: isDashed ? 0.1 : 0.2 }));
    }
    const look = { fill: "none", stroke: colour, "stroke-width": 1.75, "stroke-linecap": "round" };
    for (const known of knownParts(points, "value")) {
      const d = `M${path(known, "value").join("L")}h0.01`;
      parts.push(s("path", { d, ...look, "stroke-dasharray": isDashed ? "4 4" : null }));
    }
  }
  const cursor = s("line", { y1: top, y2: bottom + 4, stroke: "var(--ink)" });
  const under = bottom + 8 + LABEL_SIZE;
  parts.push(cursor, label(moments[0], LEFT, under, { fill: "var(--muted)" }));
  if (moments.length > 1) parts.push(label(moments.at(-1), right, under, style));
  const figure = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...parts);
  figure.placeAt = (offset) => Math.round(((offset - LEFT) / (right - LEFT)) * last);
  figure.showCursor = (place) => ["x1", "x2"].forEach((name) => cursor.setAttribute(name, x(place)));
  return figure;
}

/** Draw the legend of a range of colours. */
export function legendFigure(range, title) {
  const [count, size, y] = [64, 3, 18];
  const valueAt = (part) => range.low + part * (range.high - range.low);
  const parts = Array.from({ length: count }, (_, place) => {
    const fill = hexOf(colourOf(valueAt(place / (count - 1)), range));
    return s("rect", { x: place * size, y, width: size + 0.5, height: 10, fill });
  });
  const style = { fill: "var(--muted)" };
  ["start", "middle", "end"].forEach((anchor, place) => {
    const text = String(Number(valueAt(place / 2).toFixed(3)));
    parts.push(label(text, (place / 2) * count * size, y + 22, { ...style, "text-anchor": anchor }));
  });
  const nan = s("rect", { x: count * size + 16, y, width: 10, height: 10, fill: range.nan });
  parts.push(label(title, 0, 11, { fill: "var(--ink)" }), nan, label("nan", count * size + 30, y + 9, style));
  return s("svg", { width: count * size + 60, height: y + 26, "aria-hidden": "true" }, ...parts);
}
