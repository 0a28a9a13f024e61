/** Curves over time with bands, and which layer of the reference a layer is most alike to. */

import { hexColour } from "./colours.js";
import { LABEL_SIZE, label, s } from "./elements.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [40, 10, 8, 34];
const STRIP = 12;

/**
 * Join runs of equal entries.
 * @param {any[]} list The entries.
 * @returns {{value: any, from: number, to: number}[]} Each run with its first and last place.
 */
export function runsOf(list) {
  const found = [];
  list.forEach((value, place) => {
    if (found.length && found.at(-1).value === value) found.at(-1).to = place;
    else found.push({ value, from: place, to: place });
  });
  return found;
}

/**
 * Draw curves over time.
 * @param {object} content `width`, `height` and `theme`; `lines`, each with points `{value, low, high}`, a colour, and
 *   whether it is dashed; `low` and `high`; `moments`, texts; `cursor`, a place; `strips`, for each
 *   run the number of columns and the most alike one at each moment.
 * @returns {SVGElement} The figure.
 */
export function curveFigure({ width, height, theme, lines, low, high, moments, cursor, strips }) {
  const last = Math.max(1, moments.length - 1);
  const bottom = height - BOTTOM - strips.length * (STRIP + 4);
  const x = (place) => LEFT + (place / last) * (width - LEFT - RIGHT);
  const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - TOP);
  const parts = [];
  const text = { fill: theme.muted, "text-anchor": "end" };
  for (let tick = 0; tick <= 4; tick++) {
    const value = low + (tick / 4) * (high - low);
    parts.push(s("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), stroke: theme.line }));
    parts.push(label(value.toFixed(2), LEFT - 6, y(value) + 4, text));
  }
  for (const { points, colour, isDashed } of lines) {
    const known = points.map((point, place) => ({ ...point, place })).filter(({ value }) => !Number.isNaN(value));
    for (const part of split(known.filter(({ low: bound }) => !Number.isNaN(bound)))) {
      const upper = part.map((point) => `${x(point.place)} ${y(point.high)}`);
      const lower = part.map((point) => `${x(point.place)} ${y(point.low)}`).reverse();
      parts.push(s("path", { d: `M${upper.concat(lower).join("L")}Z`, fill: colour, opacity: isDashed ? 0.1 : 0.2 }));
    }
    for (const part of split(known)) {
      const d = `M${part.map((point) => `${x(point.place)} ${y(point.value)}`).join("L")}`;
      const style = { fill: "none", stroke: colour, "stroke-width": 1.75, "stroke-linecap": "round" };
      parts.push(
        s("path", { d: part.length > 1 ? d : `${d}h0.01`, ...style, "stroke-dasharray": isDashed ? "4 4" : null }),
      );
    }
  }
  strips.forEach(({ alike, columns }, place) => {
    const top = bottom + 6 + place * (STRIP + 4);
    const range = { map: "viridis", low: 0, high: Math.max(1, columns - 1) };
    const half = (width - LEFT - RIGHT) / last / 2;
    for (const { value, from, to } of runsOf(alike).filter((run) => run.value >= 0)) {
      const [start, end] = [Math.max(LEFT, x(from) - half), Math.min(width - RIGHT, x(to) + half)];
      parts.push(s("rect", { x: start, y: top, width: end - start, height: STRIP, fill: hexColour(value, range) }));
    }
  });
  const dots = { stroke: theme.ink, "stroke-width": 1 };
  parts.push(s("line", { x1: x(cursor), x2: x(cursor), y1: TOP, y2: height - BOTTOM + 4, ...dots }));
  const base = height - BOTTOM + 8 + LABEL_SIZE;
  parts.push(label(moments[0], LEFT, base, { fill: theme.muted }));
  if (moments.length > 1) parts.push(label(moments.at(-1), width - RIGHT, base, text));
  const figure = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...parts);
  figure.placeAt = (offset) => Math.round(Math.min(1, Math.max(0, (offset - LEFT) / (width - LEFT - RIGHT))) * last);
  return figure;
}

/**
 * Draw a legend of colours.
 * @param {{range: object, theme: object, title: string}} content The map and the values at its ends, and what they are.
 * @returns {SVGElement} The figure.
 */
export function legendFigure({ range, theme, title }) {
  const [count, size, y] = [64, 3, 18];
  const parts = Array.from({ length: count }, (_, place) => {
    const fill = hexColour(range.low + (place / (count - 1)) * (range.high - range.low), range);
    return s("rect", { x: place * size, y, width: size + 0.5, height: 10, fill });
  });
  const style = { fill: theme.muted };
  for (const [part, anchor] of [
    [0, "start"],
    [0.5, "middle"],
    [1, "end"],
  ]) {
    const text = String(Number((range.low + part * (range.high - range.low)).toFixed(3)));
    parts.push(label(text, part * count * size, y + 22, { ...style, "text-anchor": anchor }));
  }
  const nan = s("rect", { x: count * size + 16, y, width: 10, height: 10, fill: theme.nan });
  parts.push(label(title, 0, 11, { fill: theme.ink }), nan, label("nan", count * size + 30, y + 9, style));
  return s("svg", { width: count * size + 60, height: y + 26, "aria-hidden": "true" }, ...parts);
}

/**
 * Split points where some in between are missing.
 * @param {{place: number}[]} points The points in order.
 * @returns {{place: number}[][]} Points without gaps.
 */
function split(points) {
  const parts = [];
  for (const point of points) {
    if (parts.length && parts.at(-1).at(-1).place === point.place - 1) parts.at(-1).push(point);
    else parts.push([point]);
  }
  return parts;
}
