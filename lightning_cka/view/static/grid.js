/** `Grid`: a matrix as coloured cells with labels, which pointer and keyboard can explore. */

import { colourIndex, colourTable, hexColour } from "./colours.js";
import { LABEL_SIZE, h, label, s, textWidth } from "./elements.js";

const GAP = 6;
const LINE = LABEL_SIZE + 3;
const LARGEST_CELL = 110;

/** Return which of `count` cells of a size get a label: evenly spaced ones, and all flagged ones if these are few. */
function labelPlaces(count, size, flagged) {
  const step = Math.max(1, Math.ceil(LINE / size));
  const isMany = flagged.size > count / step / 2;
  const isFree = (place) => isMany || [...flagged].every((other) => Math.abs(other - place) >= step);
  const isShown = (place) => (!isMany && flagged.has(place)) || (place % step === 0 && isFree(place));
  return Array.from({ length: count }, (_, place) => place).filter(isShown);
}

const box = (x, y, width, height, stroke, size = 1.5) =>
  s("rect", { x, y, width, height, fill: "none", stroke, "stroke-width": size });

/** A matrix as coloured cells, the first row at the bottom. */
export class Grid {
  /** `onCell(cell, isKey)` gets the cell under pointer or focus, or null; `onPick(cell)` a cell that is clicked. */
  constructor(onCell, onPick) {
    Object.assign(this, { onCell, onPick, cell: null });
    this.canvas = h("canvas", {
      ...{ tabindex: 0, role: "application", "aria-roledescription": "heatmap" },
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onpointerleave: (event) => event.pointerType !== "touch" && this.select(null),
      onclick: (event) => {
        this.point(event);
        if (this.cell) this.onPick(this.cell);
      },
      onkeydown: (event) => this.key(event),
      onfocus: () => this.canvas.matches(":focus-visible") && this.select(this.cell ?? [0, 0], true),
      onblur: () => this.select(null),
    });
    this.labels = s("g");
    this.boxes = s("g");
    this.axes = s("svg", { "aria-hidden": "true" }, this.labels, this.boxes);
    this.root = h("div", { class: "grid" }, this.canvas, this.axes);
  }

  /**
   * Place the cells in a figure of a width. All cells together are at most `most` high, and a cell at most `stretch`
   * times as high as wide.
   */
  layout(rows, columns, width, most, stretch) {
    const longest = (labels) => Math.min(Math.max(0, ...labels.map((text) => textWidth(`⚠ ${text}`))), 0.4 * width);
    const left = Math.ceil(1.08 * longest(rows)) + GAP + LINE; // Bold labels are wider.
    const tallest = Math.min(LARGEST_CELL, most / Math.max(1, rows.length));
    const cellWidth = Math.min(
      (width - left - 1) / Math.max(1, columns.length),
      LARGEST_CELL,
      stretch > 1 ? LARGEST_CELL : 2 * tallest,
    );
    const whole = (size) => (size >= 6 ? Math.floor(size) : size);
    this.size = [whole(cellWidth), whole(Math.min(tallest, cellWidth * stretch))];
    const isFlat = longest(columns) + GAP <= this.size[0];
    const [plotWidth, plotHeight] = [this.size[0] * columns.length, this.size[1] * rows.length];
    const height = plotHeight + (isFlat ? LINE : Math.ceil(longest(columns)) + GAP) + LINE + GAP;
    Object.assign(this, { rows, columns, left, isFlat, plotWidth, plotHeight, height, drawn: "" });
    Object.assign(this.canvas, { width: columns.length, height: rows.length });
    Object.assign(this.canvas.style, { left: `${left}px`, width: `${plotWidth}px`, height: `${plotHeight}px` });
    this.axes.setAttribute("width", width);
    this.axes.setAttribute("height", height);
    this.root.style.height = `${height}px`;
    this.image = new ImageData(Math.max(1, columns.length), Math.max(1, rows.length));
  }

  /**
   * Draw `values`, row by row, in the colours of a `range`, with titles of both axes, the `theme`, sets of flagged rows
   * and columns, `marks` (cells with a diamond), a `cursor` (a column), a `picked` row, and a `name` of the figure.
   */
  draw(content) {
    const isNew = content.values !== this.content?.values || content.range !== this.content.range || !this.drawn;
    this.content = { marks: [], cursor: -1, ...content };
    if (isNew) this.paint();
    this.canvas.setAttribute("aria-label", content.name);
    const { rowTitle, columnTitle, flaggedRows, flaggedColumns, picked, theme } = content;
    const key = JSON.stringify([rowTitle, columnTitle, [...flaggedRows], [...flaggedColumns], picked, theme]);
    if (key !== this.drawn) this.drawLabels();
    this.drawn = key;
    this.drawBoxes();
  }

  /** Paint the cells. */
  paint() {
    const { values, range, theme } = this.content;
    const table = colourTable(range.map);
    const nan = theme.nan.match(/\w\w/g).map((part) => parseInt(part, 16));
    const [width, height] = [this.columns.length, this.rows.length];
    const pixels = this.image.data;
    for (let place = 0; place < values.length; place++) {
      const at = 4 * ((height - 1 - Math.floor(place / width)) * width + (place % width));
      const isNan = Number.isNaN(values[place]);
      const start = isNan ? 0 : colourIndex(values[place], range);
      for (let part = 0; part < 3; part++) pixels[at + part] = isNan ? nan[part] : table[start + part];
      pixels[at + 3] = 255;
    }
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
  }

  /** The middle of a cell in the figure. */
  middle([row, column]) {
    return [this.left + (column + 0.5) * this.size[0], this.plotHeight - (row + 0.5) * this.size[1]];
  }

  /** Draw labels, titles and marks. */
  drawLabels() {
    const { theme, flaggedRows, flaggedColumns, marks, picked, rowTitle, columnTitle } = this.content;
    const { isFlat, left, plotWidth, plotHeight } = this;
    const text = (names, place, flagged, x, y, style) => {
      const look = { fill: flagged.has(place) ? theme.flag : theme.muted, "text-anchor": "end", ...style };
      return label((flagged.has(place) ? "⚠ " : "") + names[place], x, y, look);
    };
    const rows = labelPlaces(this.rows.length, this.size[1], flaggedRows).map((row) => {
      const ink = flaggedRows.has(row) ? theme.flag : theme.ink;
      const style = row === picked ? { "font-weight": 700, fill: ink } : {};
      return text(this.rows, row, flaggedRows, left - GAP, this.middle([row, 0])[1] + 4, style);
    });
    const columns = labelPlaces(this.columns.length, isFlat ? 99 : this.size[0], flaggedColumns).map((column) => {
      const [x, y] = [this.middle([0, column])[0], plotHeight + (isFlat ? LINE : GAP)];
      const style = isFlat ? { "text-anchor": "middle" } : { transform: `rotate(-90 ${x} ${y})`, dy: 4 };
      return text(this.columns, column, flaggedColumns, x, y, style);
    });
    const title = { "text-anchor": "middle", fill: theme.ink };
    const turned = { ...title, transform: `rotate(-90 ${LABEL_SIZE} ${plotHeight / 2})` };
    const titles = [
      label(rowTitle, LABEL_SIZE, plotHeight / 2, turned),
      label(columnTitle, left + plotWidth / 2, this.height - GAP, title),
    ];
    const diamonds = marks.map((mark) => {
      const [x, y] = this.middle(mark);
      return s("path", { d: `M${x - 4} ${y}l4 -4 4 4 -4 4z`, fill: "#ffffff", stroke: "#000000" });
    });
    const frame = box(left, 0, plotWidth, plotHeight, theme.line, 1);
    this.labels.replaceChildren(...rows, ...columns, ...titles, frame, ...diamonds);
  }

  /** Draw boxes around the chosen cell, the cursor's column and the picked row. */
  drawBoxes() {
    const { theme, cursor, picked } = this.content;
    const [width, height] = this.size;
    const top = (row) => this.plotHeight - (row + 1) * height;
    const parts = [];
    if (cursor >= 0) parts.push(box(this.left + cursor * width, 0, width, this.plotHeight, theme.accent));
    if (picked >= 0) parts.push(box(this.left, top(picked), this.plotWidth, height, theme.accent));
    if (this.cell) {
      const place = [this.left + this.cell[1] * width, top(this.cell[0]), width, height];
      parts.push(box(...place, "#000000", 3), box(...place, "#ffffff"));
    }
    this.boxes.replaceChildren(...parts);
  }

  /** The figure as SVG, with a rectangle for each cell. */
  toSvg() {
    const [width, height] = this.size;
    const { values, range, theme } = this.content;
    const cells = Array.from(values, (value, place) => {
      const [x, y] = this.middle([Math.floor(place / this.columns.length), place % this.columns.length]);
      const fill = Number.isNaN(value) ? theme.nan : hexColour(value, range);
      return s("rect", { x: x - width / 2, y: y - height / 2, width, height, fill });
    });
    const copy = this.axes.cloneNode(true);
    copy.prepend(s("g", { "shape-rendering": "crispEdges" }, ...cells));
    return copy;
  }

  /** Choose the cell under the pointer. */
  point(event) {
    const within = (place, count) => Math.min(count - 1, Math.max(0, Math.floor(place)));
    const column = within(event.offsetX / this.size[0], this.columns.length);
    this.select([within((this.plotHeight - event.offsetY) / this.size[1], this.rows.length), column]);
  }

  /** Arrows, Home and End move the chosen cell, Enter picks it, Escape leaves it. */
  key(event) {
    const [row, column] = this.cell ?? [0, 0];
    const [lastRow, lastColumn] = [this.rows.length - 1, this.columns.length - 1];
    const moves = {
      ArrowUp: [Math.min(lastRow, row + 1), column],
      ArrowDown: [Math.max(0, row - 1), column],
      ArrowLeft: [row, Math.max(0, column - 1)],
      ArrowRight: [row, Math.min(lastColumn, column + 1)],
      Home: [row, 0],
      End: [row, lastColumn],
    };
    if (event.key === "Enter" && this.cell) this.onPick(this.cell);
    else if (event.key === "Escape") this.select(null);
    else if (moves[event.key] && lastRow >= 0 && lastColumn >= 0) this.select(moves[event.key], true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Choose a cell or, with null, none. `isKey` tells whether the keyboard did. */
  select(cell, isKey = false) {
    if (!this.content || (!isKey && String(cell) === String(this.cell))) return;
    this.cell = cell;
    this.drawBoxes();
    this.onCell(cell, isKey);
  }

  /** The middle of the chosen cell in the window. */
  cellPlace() {
    const frame = this.axes.getBoundingClientRect();
    const [x, y] = this.middle(this.cell);
    return { x: frame.left + x, y: frame.top + y };
  }
}
