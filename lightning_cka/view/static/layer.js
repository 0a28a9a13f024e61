/** One layer over time: its curves, and which layer of the reference it is most alike to. */

import { runsOf } from "./curves.js";

const COLOURS = ["accent", "second", "third", "fourth"];
const NONE = { value: NaN, low: NaN, high: NaN };

/**
 * Return the `lines` and `strips` of `curveFigure`, and `alike`: for each panel the runs of moments in which a layer is
 * most alike to the same layer. Without a row, there are lines of the means only.
 */
export function layerHistory(panels, moments, { row, column }, theme) {
  const found = { lines: [], strips: [], alike: [] };
  for (const panel of panels) {
    const own = { name: panel.name, colour: theme[COLOURS[panel.index % COLOURS.length]] };
    const frames = moments.map((moment) => moment.frames[panel.index]);
    if (!row) {
      found.lines.push({ ...own, points: frames.map(({ mean }) => ({ ...NONE, value: mean ?? NaN })) });
      continue;
    }
    const pairOf = (frame) => frame.block.pairOfName.get(row);
    const cellOf = (frame) => [frame.rows.indexOf(row), frame.columns.indexOf(column)];
    const pointOf = (frame, cell) => (cell && Math.min(...cell) >= 0 ? frame.cell(...cell) : NONE);
    found.lines.push({ ...own, points: frames.map((frame) => pointOf(frame, pairOf(frame))) });
    if (column && frames.some((frame) => String(pairOf(frame)) !== String(cellOf(frame)))) {
      found.lines.push({
        ...own,
        name: "",
        isDashed: true,
        points: frames.map((frame) => pointOf(frame, cellOf(frame))),
      });
    }
    const alike = frames.map((frame) => frame.mostAlike(frame.rows.indexOf(row), panel.series.isSelf));
    found.strips.push({ alike, columns: frames.at(-1).columns.length });
    const names = alike.map((place, at) => frames[at].columns[place] ?? "nothing (nan)");
    found.alike.push({ panel, runs: runsOf(names) });
  }
  return found;
}
