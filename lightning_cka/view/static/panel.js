/** `Panel`: the heatmap, the drift map and the flags of one run. */

import { changeTexts, digits } from "./cell_text.js";
import { h } from "./elements.js";
import { Grid } from "./grid.js";
import { flagList } from "./lists.js";
import { filtered, shortLabels } from "./names.js";

const TOLERANCE = 0.01;

/** One run beside others. */
export class Panel {
  /**
   * @param {string} name Name of the run; "" if it is the only one.
   * @param {Series} series What is shown of it.
   * @param {number} index Its place among the panels.
   * @param {object} listeners `onCell(panel, lookUp, cell, isKey)`, `onPick(row, column)`, `onTime(place)` and
   *   `onResult(panel, place)`. `lookUp(cell)` returns the result, the row and the column of a cell.
   */
  constructor(name, series, index, { onCell, onPick, onTime, onResult }) {
    Object.assign(this, { name, series, index });
    const onMapCell = (cell, isKey) =>
      onCell(this, this.map, ([row, column]) => this.mapCell(row, column), cell, isKey);
    const onDriftCell = (cell, isKey) =>
      onCell(this, this.drift, ([row, column]) => this.driftCell(row, column), cell, isKey);
    this.map = new Grid({
      onCell: onMapCell,
      onPick: ([row, column]) => onPick(this.rowNames[row], this.columnNames[column]),
    });
    this.drift = new Grid({
      onCell: onDriftCell,
      onPick: ([row, column]) => {
        onTime(column);
        onPick(this.driftNames[row], "");
      },
    });
    this.title = h("h3", { "data-title": true });
    this.flags = flagList(series, (place) => onResult(this, place));
  }

  /**
   * Take what all panels share.
   * @param {object} shared `filter`, `theme`, `moments`, the `base` results to subtract or null, and the `picked` row.
   */
  arrange(shared) {
    Object.assign(this, shared, { kept: new Map(), arranged: null, base: shared.base?.[this.index] ?? null });
  }

  /**
   * Return which rows and columns of a block the filter leaves: all of a side on which no layer matches.
   * @param {Block} block The block.
   * @returns {{rows: number[], columns: number[]}} Their places.
   */
  choose(block) {
    if (!this.kept.has(block)) {
      const chosen = [block.rows, block.columns].map((names) => {
        const found = filtered(this.filter, names);
        return found.length ? found : names.map((_, place) => place);
      });
      this.kept.set(block, { rows: chosen[0], columns: chosen[1] });
    }
    return this.kept.get(block);
  }

  /**
   * Return a value, or its change since the base.
   * @param {Frame} frame The result.
   * @param {number} row Row of the cell.
   * @param {number} column Column of the cell.
   * @returns {number} The number to draw.
   */
  number(frame, row, column) {
    if (!this.base) return frame.value(row, column);
    if (this.base.block !== frame.block) return frame.change(this.base, row, column).change;
    return frame.value(row, column) - this.base.value(row, column);
  }

  /** @returns {[number, number]} The smallest and the largest number of all results. */
  extremes() {
    let [low, high] = [Infinity, -Infinity];
    for (const frame of this.series.frames) {
      const { rows, columns } = this.choose(frame.block);
      for (const row of rows) {
        for (const column of columns) {
          const number = this.number(frame, row, column);
          if (number < low) low = number;
          if (number > high) high = number;
        }
      }
    }
    return [low, high];
  }

  /**
   * Draw a moment's heatmap.
   * @param {Frame} frame The result.
   * @param {object} range The colour map and the values at its ends.
   */
  drawMap(frame, range) {
    this.frame = frame;
    const { rows, columns } = this.choose(frame.block);
    if (this.arranged !== frame.block) {
      this.arranged = frame.block;
      const width = this.map.root.clientWidth;
      const most = Math.max(8, Math.min(32, Math.floor(width / 24)));
      this.rowNames = rows.map((row) => frame.rows[row]);
      this.columnNames = columns.map((column) => frame.columns[column]);
      [this.rowLabels, this.columnLabels] = [this.rowNames, this.columnNames].map((names) => shortLabels(names, most));
      this.map.layout(this.rowLabels.labels, this.columnLabels.labels, width, 0.6 * innerHeight, 1);
    }
    const values = rows.flatMap((row) => columns.map((column) => this.number(frame, row, column)));
    const mean = frame.mean === null ? "" : `${frame.block.raw.mean} ${digits(frame.mean)}`;
    this.title.textContent = [this.name, mean].filter(Boolean).join(", ");
    this.map.draw({
      ...{ values, range, theme: this.theme, picked: this.rowNames.indexOf(this.picked) },
      name: `${this.title.textContent}: ${rows.length} by ${columns.length} layers, ${frame.moment}. Arrow keys move.`,
      rowTitle: titleOf(frame.model, this.rowLabels),
      columnTitle: titleOf(frame.reference, this.columnLabels),
      flaggedRows: this.flagged(frame, this.rowNames, false),
      flaggedColumns: this.flagged(frame, this.columnNames, true),
    });
  }

  /**
   * Return which layers are flagged.
   * @param {Frame} frame The result.
   * @param {string[]} names Names of the layers.
   * @param {boolean} ofReference Whether they are the reference's.
   * @returns {Set<number>} Their places.
   */
  flagged(frame, names, ofReference) {
    const flags = this.series.flagsAt[frame.index];
    const own = flags.filter((flag) => flag.ofReference === ofReference || this.series.isSelf);
    return new Set(own.map((flag) => names.indexOf(flag.layer)).filter((place) => place >= 0));
  }

  /** @returns {boolean} Whether there is a drift map: layers that the reference has, too, over time. */
  get hasDrift() {
    return !this.series.isSelf && this.moments.length > 1 && this.series.frames.at(-1).block.pairs.length > 0;
  }

  /** Place the drift map. */
  arrangeDrift() {
    const last = this.series.frames.at(-1);
    const { rows } = this.choose(last.block);
    this.driftNames = rows.map((row) => last.rows[row]).filter((name) => last.block.pairOfName.has(name));
    const width = this.drift.root.clientWidth;
    const labels = shortLabels(this.driftNames, Math.max(8, Math.min(32, Math.floor(width / 24))));
    const times = this.moments.map(({ number }) => String(number));
    this.drift.layout(labels.labels, times, width, Math.min(18 * this.driftNames.length, 0.4 * innerHeight), 99);
    const frames = this.moments.map((moment) => moment.frames[this.index]);
    const numbers = this.driftNames.map((name) =>
      frames.map((frame) =>
        frame.block.pairOfName.has(name) ? this.number(frame, ...frame.block.pairOfName.get(name)) : NaN,
      ),
    );
    const settled = this.base ? [] : this.driftNames.map((name) => this.settledSince(name));
    const marks = settled.map((place, row) => [row, frames.findIndex((frame) => frame.index === place)]);
    const flags = new Set(this.series.flagsAt.flat().map(({ layer }) => layer));
    this.driftContent = {
      ...{ values: numbers.flat(), rowTitle: "", columnTitle: this.moments[0].name },
      ...{ marks: marks.filter(([, column]) => column >= 0), flaggedColumns: new Set(), theme: this.theme },
      flaggedRows: new Set(this.driftNames.flatMap((name, row) => (flags.has(name) ? [row] : []))),
    };
  }

  /**
   * Draw the drift map with a cursor.
   * @param {number} cursor Place of the moment.
   * @param {object} range The colour map and the values at its ends.
   */
  drawDrift(cursor, range) {
    const name = `Drift of ${this.driftNames.length} layers over ${this.moments.length} moments. Arrow keys move.`;
    this.drift.draw({ ...this.driftContent, range, cursor, name, picked: this.driftNames.indexOf(this.picked) });
  }

  /**
   * Return from which result on a layer stays within 0.01 of its last value, with confidence.
   * @param {string} name Name of the layer.
   * @returns {number} Place of the result; -1 if there is none, or if the results do not tell.
   */
  settledSince(name) {
    const { frames } = this.series;
    const last = frames.at(-1);
    const cell = last.block.pairOfName.get(name);
    let settled = -1;
    for (const frame of frames.slice(0, -1).reverse()) {
      const { change, error, factor } = frame.change(last, ...cell);
      if (frame.block !== last.block) return -1;
      if (!(Math.abs(change) + factor * error <= TOLERANCE)) break;
      settled = frame.index;
    }
    return settled;
  }

  /**
   * Look up a cell of the heatmap.
   * @param {number} row Row in the figure.
   * @param {number} column Column in the figure.
   * @returns {{frame: Frame, cell: [number, number]}} The result, and the row and the column in it.
   */
  mapCell(row, column) {
    const { rows, columns } = this.choose(this.frame.block);
    return { frame: this.frame, cell: [rows[row], columns[column]] };
  }

  /**
   * Look up a cell of the drift map.
   * @param {number} row Row in the figure.
   * @param {number} column Column in the figure.
   * @returns {{frame: Frame, cell: [number, number] | undefined}} As in `mapCell`.
   */
  driftCell(row, column) {
    const frame = this.moments[column].frames[this.index];
    return { frame, cell: frame.block.pairOfName.get(this.driftNames[row]) };
  }

  /** @returns {object[]} The cells of the heatmap as rows of a table. */
  tableRows() {
    const { frame, base } = this;
    const { rows, columns } = this.choose(frame.block);
    const known = (number) => (Number.isNaN(number) ? "" : digits(number));
    return rows.flatMap((row) =>
      columns.map((column) => {
        const { value, error, low, high } = frame.cell(row, column);
        const moment = { run: this.name, epoch: frame.epoch, step: frame.step };
        const names = { layer: frame.rows[row], reference_layer: frame.columns[column] };
        const own = { value: known(value), standard_error: known(error), low: known(low), high: known(high) };
        if (!base) return { ...moment, ...names, ...own };
        const texts = changeTexts(frame, base, [row, column]);
        const entries = Object.entries(texts).map(([name, text]) => [`change_${name}`, text.replace(/^\+|nan/, "")]);
        return { ...moment, ...names, ...own, since: base.moment, ...Object.fromEntries(entries) };
      }),
    );
  }
}

/**
 * Return the title of an axis.
 * @param {string} name Name of the model.
 * @param {{prefix: string}} labels What `shortLabels` returned.
 * @returns {string} The name, and what all names start with.
 */
const titleOf = (name, { prefix }) => (prefix ? `${name}: ${prefix}.*` : name);
