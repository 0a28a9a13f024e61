/** One layer over time: its curves, and which layer of the reference it is most alike to. */

import { runsOf } from "./curves.js";

const COLOURS = ["accent", "second", "third", "fourth"].map((name) => `var(--${name})`);
const NONE = { value: NaN, low: NaN, high: NaN };

/**
 * Return the `lines` of `curveFigure`, and `alike`: which layer the chosen one is most alike to, as a name and texts
 * before and after it. Without a row, there are lines of the means only.
 */
export function layerHistory(panels, moments, { row, column }) {
  const found = { lines: [], alike: [] };
  for (const { name, index, series } of panels) {
    const colour = COLOURS[index % COLOURS.length];
    const frames = moments.map((moment) => moment.frames[index]);
    if (!row) {
      found.lines.push({ name, colour, points: frames.map(({ mean }) => ({ ...NONE, value: mean ?? NaN })) });
      continue;
    }
    const paired = frames.map((frame) => frame.layers.pairOfName.get(row) ?? [-1, -1]);
    const clicked = frames.map((frame) => [frame.rows.indexOf(row), frame.columns.indexOf(column)]);
    const pointsOf = (cells) =>
      cells.map((cell, place) => (Math.min(...cell) < 0 ? NONE : frames[place].cell(...cell)));
    found.lines.push({ name, colour, points: pointsOf(paired) });
    const addDashed = (points, dashed) => found.lines.push({ name: "", colour, points, isDashed: true, dashed });
    if (column && String(paired) !== String(clicked)) addDashed(pointsOf(clicked), `with ${column}`);
    const ceiling = series.ceilingOf(row);
    if (ceiling) addDashed(frames.map(() => ceiling), series.ceiling.label);
    const names = frames.map((frame, place) => {
      const best = frame.mostAlike(clicked[place][0], series.isSelf);
      return frame.columns[best] ?? "nothing (nan)";
    });
    for (const { value, from, to } of runsOf(names)) {
      const { name: unit, number } = moments[from];
      const time = from === to ? `${unit} ${number}` : `${unit}s ${number}–${moments[to].number}`;
      found.alike.push([`${name ? `${name}: ` : ""}most alike to `, value, `, ${time}`]);
    }
  }
  return found;
}
