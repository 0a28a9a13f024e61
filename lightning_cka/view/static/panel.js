/** `Panel`: the heatmap, the drift map and the flags of one run. */

import { changeTexts, digits } from "./cell_text.js";
import { h, widthOf } from "./elements.js";
import { Grid } from "./grid.js";
import { flagList } from "./lists.js";
import { filtered, shortLabels } from "./names.js";

const TOLERANCE = 0.01;

/** The title of an axis: the model, and what all names of its layers start with. */
const titleOf = (name, { prefix }) => (prefix ? `${name}: ${prefix}.*` : name);

/** Short labels of layers in a figure of a width. */
const labelsOf = (names, width) => shortLabels(names, Math.max(8, Math.min(32, Math.floor(width / 24))));

/** The series of one run, beside others. `name` is "" if there is only one run, and `index` its place. */
export class Panel {
  /** Listeners: `onCell(shown, cell, isKey)`, `onPick(row, column)`, `onTime(place)`, `onResult(index, place)`. */
  constructor(name, series, index, { onCell, onPick, onTime, onResult }) {
    Object.assign(this, { name, series, index });
    const lookUpIn = (place) => (cell, isKey) => onCell({ panel: this, ...place }, cell, isKey);
    this.map = new Grid(
      (cell, isKey) => lookUpIn({ grid: this.map, lookUp: (at) => this.mapCell(at) })(cell, isKey),
      ([row, column]) => onPick(this.rowNames[row], this.columnNames[column]),
    );
    this.drift = new Grid(
      (cell, isKey) => lookUpIn({ grid: this.drift, lookUp: (at) => this.driftCell(at) })(cell, isKey),
      ([row, column]) => {
        onTime(column);
        onPick(this.driftNames[row], "");
      },
    );
    this.title = h("h3", { "data-title": true });
    this.flags = flagList(series, (place) => onResult(index, place));
  }

  /** Take what all panels share: `filter`, `theme`, `moments`, results to subtract or null, and the `picked` row. */
  arrange({ base, ...shared }) {
    Object.assign(this, shared, { kept: new Map(), arranged: null, base: base && base[this.index] });
  }

  /** Return the places of rows and columns that the filter leaves: all of a side on which no layer matches. */
  choose(block) {
    if (!this.kept.has(block)) {
      const [rows, columns] = [block.rows, block.columns].map((names) => {
        const found = filtered(this.filter, names);
        return found.length ? found : [...names.keys()];
      });
      this.kept.set(block, { rows, columns });
    }
    return this.kept.get(block);
  }

  /** Return the number to draw for a cell: a value, or its change since the base. */
  number(frame, row, column) {
    if (!this.base) return frame.value(row, column);
    if (this.base.block !== frame.block) return frame.change(this.base, row, column).change;
    return frame.value(row, column) - this.base.value(row, column);
  }

  /** Return the numbers of the chosen cells, row by row. */
  numbers(frame) {
    const { rows, columns } = this.choose(frame.block);
    const found = new Float64Array(rows.length * columns.length);
    let place = 0;
    for (const row of rows) for (const column of columns) found[place++] = this.number(frame, row, column);
    return found;
  }

  /** Return the smallest and the largest number of all results. */
  extremes() {
    let [low, high] = [Infinity, -Infinity];
    for (const frame of this.series.frames) {
      for (const number of this.numbers(frame)) {
        if (number < low) low = number;
        if (number > high) high = number;
      }
    }
    return [low, high];
  }

  /** Draw the heatmap of a result in the colours of a range. */
  drawMap(frame, range) {
    this.frame = frame;
    if (this.arranged !== frame.block) this.arrangeMap(frame);
    const mean = frame.mean === null ? "" : `${frame.block.raw.mean} ${digits(frame.mean)}`;
    this.title.textContent = [this.name, mean].filter(Boolean).join(", ");
    const [rows, columns] = [this.rowNames.length, this.columnNames.length];
    this.map.draw({
      ...{ values: this.numbers(frame), range, theme: this.theme, picked: this.rowNames.indexOf(this.picked) },
      name: `${this.title.textContent}: ${rows} by ${columns} layers, ${frame.moment}. Arrow keys move.`,
      rowTitle: titleOf(frame.model, this.rowLabels),
      columnTitle: titleOf(frame.reference, this.columnLabels),
      flaggedRows: this.flagged(frame, this.rowNames, false),
      flaggedColumns: this.flagged(frame, this.columnNames, true),
    });
  }

  /** Place the heatmap of a block. */
  arrangeMap({ block }) {
    const { rows, columns } = this.choose(block);
    const width = widthOf(this.map.root);
    this.rowNames = rows.map((row) => block.rows[row]);
    this.columnNames = columns.map((column) => block.columns[column]);
    [this.rowLabels, this.columnLabels] = [labelsOf(this.rowNames, width), labelsOf(this.columnNames, width)];
    this.map.layout(this.rowLabels.labels, this.columnLabels.labels, width, 0.58 * innerHeight, 1);
    this.arranged = block;
  }

  /** Return the places of the names that are flagged as layers of the model or of the reference. */
  flagged(frame, names, ofReference) {
    const own = this.series.flagsAt[frame.index].filter(
      (flag) => flag.ofReference === ofReference || this.series.isSelf,
    );
    return new Set(own.map((flag) => names.indexOf(flag.layer)).filter((place) => place >= 0));
  }

  /** Whether there is a drift map: layers that are paired with one of the reference, over time. */
  get hasDrift() {
    return !this.series.isSelf && this.moments.length > 1 && this.series.frames.at(-1).block.pairs.length > 0;
  }

  /** Place the drift map. Return whether it has marks. */
  arrangeDrift() {
    const { block, model } = this.series.frames.at(-1);
    this.driftNames = this.choose(block)
      .rows.map((row) => block.rows[row])
      .filter((name) => block.pairOfName.has(name));
    const width = widthOf(this.drift.root);
    const { labels } = labelsOf(this.driftNames, width);
    const times = this.moments.map(({ number }) => String(number));
    this.drift.layout(labels, times, width, Math.min(18 * labels.length, 0.4 * innerHeight), 99);
    const frames = this.moments.map((moment) => moment.frames[this.index]);
    const number = (name) => (frame) => {
      const cell = frame.block.pairOfName.get(name);
      return cell ? this.number(frame, ...cell) : NaN;
    };
    const settled = this.base ? [] : this.driftNames.map((name) => this.settledSince(name));
    const marks = settled.map((place, row) => [row, frames.findIndex((frame) => frame.index === place)]);
    const flags = new Set(this.series.flagsAt.flat().map(({ layer }) => layer));
    this.driftContent = {
      ...{ values: this.driftNames.flatMap((name) => frames.map(number(name))), theme: this.theme },
      ...{ rowTitle: "", columnTitle: this.moments[0].name, marks: marks.filter(([, column]) => column >= 0) },
      flaggedRows: new Set(this.driftNames.flatMap((name, row) => (flags.has(name) ? [row] : []))),
      flaggedColumns: new Set(),
      name: `Drift of ${labels.length} layers of ${model} over ${times.length} moments. Arrow keys move.`,
    };
    return this.driftContent.marks.length > 0;
  }

  /** Draw the drift map with a cursor at a moment. */
  drawDrift(cursor, range) {
    this.drift.draw({ ...this.driftContent, range, cursor, picked: this.driftNames.indexOf(this.picked) });
  }

  /** Return from which result on a layer stays within 0.01 of its last value, with confidence; -1 if none is known. */
  settledSince(name) {
    const frames = [...this.series.frames].reverse();
    const [last] = frames;
    let settled = -1;
    for (const frame of frames.slice(1)) {
      if (frame.block !== last.block) return -1;
      const { change, error, factor } = frame.change(last, ...last.block.pairOfName.get(name));
      if (!(Math.abs(change) + factor * error <= TOLERANCE)) break;
      settled = frame.index;
    }
    return settled;
  }

  /** Return the result, and row and column in it, of a cell of the heatmap. */
  mapCell([row, column]) {
    const { rows, columns } = this.choose(this.frame.block);
    return { frame: this.frame, cell: [rows[row], columns[column]] };
  }

  /** Return the same of a cell of the drift map; the cell is undefined if the result has no such layer. */
  driftCell([row, column]) {
    const frame = this.moments[column].frames[this.index];
    return { frame, cell: frame.block.pairOfName.get(this.driftNames[row]) };
  }

  /** Return the cells of the heatmap as rows of a table. */
  tableRows() {
    const { frame, base } = this;
    const { rows, columns } = this.choose(frame.block);
    const known = (number) => (Number.isNaN(number) ? "" : digits(number));
    return rows.flatMap((row) =>
      columns.map((column) => {
        const { value, error, low, high } = frame.cell(row, column);
        const names = { run: this.name, epoch: frame.epoch, step: frame.step };
        const layers = { layer: frame.rows[row], reference_layer: frame.columns[column] };
        const numbers = { value: known(value), standard_error: known(error), low: known(low), high: known(high) };
        const texts = base ? Object.entries(changeTexts(frame, base, [row, column])) : [];
        const changes = texts.map(([name, text]) => [`change_${name}`, text.replace(/^\+|nan/, "")]);
        return { ...names, ...layers, ...numbers, ...(base && { since: base.moment }), ...Object.fromEntries(changes) };
      }),
    );
  }
}
