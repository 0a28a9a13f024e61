/** `Panel`: the heatmap, the drift map and the flags of one run. */

import { changeTexts, digits } from "./cell_text.js";
import { h, widthOf } from "./elements.js";
import { FlagList } from "./flags.js";
import { Grid } from "./grid.js";
import { filtered, shortLabels } from "./names.js";

/** The title of an axis: the model, and what all names of its layers start with. */
const titleOf = (name, { prefix }) => (prefix ? `${name}: ${prefix}.*` : name);

/** Short labels of layers in a figure of a width. */
const labelsOf = (names, width) => shortLabels(names, Math.max(8, Math.min(32, Math.floor(width / 24))));

/** One run of a view, beside others. `index` is its place. */
export class Panel {
  constructor(view, index) {
    this.index = index;
    const pick = (row, column) => view.refresh({ row: row === view.state.row ? "" : row, column });
    const grid = (lookUp, onPick) =>
      new Grid({ panel: this, lookUp, onPick, onCell: (chosen, isKey) => view.onCell(chosen, isKey) });
    this.map = grid(
      (cell) => this.mapCell(cell),
      ([row, column]) => pick(this.rowNames[row], this.columnNames[column]),
    );
    this.drift = grid(
      (cell) => this.driftCell(cell),
      ([row, column]) => {
        view.goTo(column);
        pick(this.driftNames[row], "");
      },
    );
    [this.title, this.driftTitle] = ["h3", "h3"].map((tag) => h(tag, { "data-title": true }));
    this.mapFigure = h("figure", {}, this.title, this.map.root);
    this.driftFigure = h("figure", {}, this.driftTitle, this.drift.root);
    const placeOf = (result) => view.moments.findIndex(({ frames }) => frames[index].index === result);
    this.flags = new FlagList((result) => view.goTo(placeOf(result)));
    this.flagNode = this.flags.root;
  }

  /** Show a series. `name` is that of the run, or "" if there is only one. */
  update(name, series) {
    Object.assign(this, { name, series });
    this.driftTitle.textContent = name;
    this.flags.update(name, series);
  }

  /** Take what all panels share: `filter`, `moments`, results to subtract or null, and the `picked` row. */
  arrange({ base, ...shared }) {
    Object.assign(this, shared, { kept: new Map(), arranged: null, base: base && base[this.index] });
    const { layers } = this.series.frames.at(-1);
    const names = this.choose(layers).rows.map((row) => layers.rows[row]);
    const hasDrift = !this.series.isSelf && this.moments.length > 1;
    this.driftNames = hasDrift ? names.filter((name) => layers.pairOfName.has(name)) : [];
  }

  /** Return the places of rows and columns that the filter leaves: all of a side on which no layer matches. */
  choose(layers) {
    if (!this.kept.has(layers)) {
      const [rows, columns] = [layers.rows, layers.columns].map((names) => {
        const found = filtered(this.filter, names);
        return found.length ? found : [...names.keys()];
      });
      this.kept.set(layers, { rows, columns });
    }
    return this.kept.get(layers);
  }

  /** Return the number to draw for a cell: a value, or its change since the base. */
  number(frame, row, column) {
    const { base } = this;
    if (base && base.layers !== frame.layers) return frame.change(base, row, column).change;
    return frame.value(row, column) - (base ? base.value(row, column) : 0);
  }

  /** Return the numbers of the chosen cells, row by row. */
  numbers(frame) {
    const { rows, columns } = this.choose(frame.layers);
    return rows.flatMap((row) => columns.map((column) => this.number(frame, row, column)));
  }

  /** Return the smallest and the largest number of all results. */
  extremes() {
    let [low, high] = [Infinity, -Infinity];
    for (const number of this.series.frames.flatMap((frame) => this.numbers(frame))) {
      if (number < low) low = number;
      if (number > high) high = number;
    }
    return [low, high];
  }

  /** Draw the heatmap of a result in the colours of a range. */
  drawMap(frame, range) {
    this.frame = frame;
    if (this.arranged !== frame.layers) this.arrangeMap(frame.layers);
    const mean = frame.mean === null ? "" : `${frame.meanName} ${digits(frame.mean)}`;
    this.title.textContent = [this.name, mean].filter(Boolean).join(", ");
    const [rows, columns] = [this.rowNames.length, this.columnNames.length];
    this.map.draw({
      ...{ values: this.numbers(frame), range, picked: this.rowNames.indexOf(this.picked) },
      name: `${this.title.textContent}: ${rows} by ${columns} layers, ${frame.moment}. Arrow keys move.`,
      rowTitle: titleOf(frame.model, this.rowLabels),
      columnTitle: titleOf(frame.reference, this.columnLabels),
      flaggedRows: this.flagged(frame, this.rowNames, false),
      flaggedColumns: this.flagged(frame, this.columnNames, true),
    });
    this.flags.show(frame);
  }

  /** Place the heatmap of some layers. */
  arrangeMap(layers) {
    const { rows, columns } = this.choose(layers);
    const width = widthOf(this.map.root);
    this.rowNames = rows.map((row) => layers.rows[row]);
    this.columnNames = columns.map((column) => layers.columns[column]);
    [this.rowLabels, this.columnLabels] = [labelsOf(this.rowNames, width), labelsOf(this.columnNames, width)];
    this.map.layout(this.rowLabels.labels, this.columnLabels.labels, width, 0.58 * innerHeight, 1);
    this.arranged = layers;
  }

  /** Return the places of the names that are flagged as layers of the model or of the reference. */
  flagged(frame, names, ofReference) {
    const isOfSide = (flag) => flag.ofReference === ofReference || this.series.isSelf;
    const places = this.series.flagsAt[frame.index].filter(isOfSide).map((flag) => names.indexOf(flag.layer));
    return new Set(places.filter((place) => place >= 0));
  }

  /** Place the drift map: layers that are paired with one of the reference, over time. */
  arrangeDrift() {
    const names = this.driftNames;
    const width = widthOf(this.drift.root);
    const times = this.moments.map(({ number }) => String(number));
    this.drift.layout(labelsOf(names, width).labels, times, width, Math.min(18 * names.length, 0.4 * innerHeight), 99);
    const cells = names.flatMap((_, row) => times.map((_, column) => this.driftCell([row, column])));
    const flags = new Set(this.series.flagsAt.flat().map(({ layer }) => layer));
    this.driftContent = {
      values: cells.map(({ frame, cell }) => (cell ? this.number(frame, ...cell) : NaN)),
      ...{ rowTitle: "", columnTitle: this.moments[0].name },
      flaggedRows: new Set([...names.keys()].filter((row) => flags.has(names[row]))),
      flaggedColumns: new Set(),
      name: `Drift of ${names.length} layers over ${times.length} moments. Arrow keys move.`,
    };
  }

  /** Draw the drift map with a cursor at a moment. */
  drawDrift(cursor, range) {
    this.drift.draw({ ...this.driftContent, range, cursor, picked: this.driftNames.indexOf(this.picked) });
  }

  /** Return the result, and row and column in it, of a cell of the heatmap. */
  mapCell([row, column]) {
    const { rows, columns } = this.choose(this.frame.layers);
    return { frame: this.frame, cell: [rows[row], columns[column]] };
  }

  /** Return the same of a cell of the drift map; the cell is undefined if the result has no such layer. */
  driftCell([row, column]) {
    const frame = this.moments[column].frames[this.index];
    return { frame, cell: frame.layers.pairOfName.get(this.driftNames[row]) };
  }

  /** Return the cells of the heatmap as rows of a table. */
  tableRows() {
    const { frame, base, rowNames, columnNames } = this;
    const known = (number) => (Number.isNaN(number) ? "" : digits(number));
    return rowNames.flatMap((layer, place) =>
      columnNames.map((reference_layer, column) => {
        const { cell } = this.mapCell([place, column]);
        const { value, error, low, high } = frame.cell(...cell);
        const row = { epoch: frame.epoch, step: frame.step, layer, reference_layer, value: known(value) };
        Object.assign(row, { standard_error: known(error), low: known(low), high: known(high) });
        if (base) row.since = base.moment;
        for (const [name, text] of Object.entries(base ? changeTexts(frame, base, cell) : {}))
          row[`change_${name}`] = text.replace(/^\+|nan/, "");
        return row;
      }),
    );
  }
}
