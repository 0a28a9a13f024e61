/** `Grid`: a matrix as coloured cells with labels, which pointer and keyboard can explore. */

import { colourOf, hexOf } from "./colours.js";
import { LABEL_SIZE, h, label, s, textWidth } from "./elements.js";

const GAP = 6;
const LINE = LABEL_SIZE + 3;
const LARGEST_CELL = 110;

/** How far keys move the chosen cell: rows and columns. */
const MOVES = {
  ...{ ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] },
  ...{ Home: [0, -Infinity], End: [0, Infinity] },
};

const within = (place, count) => Math.min(count - 1, Math.max(0, Math.floor(place)));

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

/** A matrix as coloured cells, the first row at the bottom. `cell` is the chosen one, or null. */
export class Grid {
  /**
   * `onCell(grid, isKey)` is told when another cell is under pointer or focus, `onPick(cell)` when one is clicked.
   * `lookUp(cell)` returns the result that a cell is from, and its row and column there.
   */
  constructor({ panel, lookUp, onCell, onPick }) {
    Object.assign(this, { panel, lookUp, onCell, onPick, cell: null });
    this.canvas = h("canvas", {
      ...{ tabindex: 0, role: "application", "aria-roledescription": "heatmap" },
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onpointerleave: (event) => event.pointerType !== "touch" && this.select(null),
      onclick: (event) => {
        this.point(event);
        this.onPick(this.cell);
      },
      onkeydown: (event) => this.key(event),
      onfocus: () => this.canvas.matches(":focus-visible") && this.select(this.cell ?? [0, 0], true),
      onblur: () => this.select(null),
    });
    [this.labels, this.boxes] = [s("g"), s("g")];
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
    const tallest = Math.min(LARGEST_CELL, most / rows.length);
    const widest = Math.min(LARGEST_CELL, stretch > 1 ? LARGEST_CELL : 2 * tallest);
    const cellWidth = Math.min((width - left - 1) / columns.length, widest);
    const whole = (size) => (size >= 6 ? Math.floor(size) : size);
    this.size = [whole(cellWidth), whole(Math.min(tallest, cellWidth * stretch))];
    const isFlat = longest(columns) + GAP <= this.size[0];
    const [plotWidth, plotHeight] = [this.size[0] * columns.length, this.size[1] * rows.length];
    const height = plotHeight + (isFlat ? LINE : Math.ceil(longest(columns)) + GAP) + LINE + GAP;
    Object.assign(this, { rows, columns, left, isFlat, plotWidth, plotHeight, height, content: null });
    Object.assign(this.canvas, { width: columns.length, height: rows.length });
    Object.assign(this.canvas.style, { left: `${left}px`, width: `${plotWidth}px`, height: `${plotHeight}px` });
    for (const [name, size] of Object.entries({ width, height })) this.axes.setAttribute(name, size);
    this.root.style.height = `${height}px`;
    if (this.cell?.[0] >= rows.length || this.cell?.[1] >= columns.length) this.select(null);
  }

  /**
   * Draw `values`, row by row, in the colours of a `range`, with titles of both axes, sets of flagged rows
   * and columns, a `cursor` (a column), a `picked` row, and a `name` of the figure.
   */
  draw(content) {
    const before = this.content;
    this.content = content;
    this.canvas.setAttribute("aria-label", content.name);
    if (content.values !== before?.values || content.range !== before.range) {
      const image = new ImageData(this.columns.length, this.rows.length);
      const pixels = new Uint32Array(image.data.buffer);
      this.eachCell((column, top, colour) => {
        pixels[top * image.width + column] = colour;
      });
      this.canvas.getContext("2d").putImageData(image, 0, 0);
    }
    const { rowTitle, columnTitle, flaggedRows, flaggedColumns, picked } = content;
    const labels = JSON.stringify([rowTitle, columnTitle, [...flaggedRows], [...flaggedColumns], picked]);
    if (!before || labels !== this.drawnLabels) this.drawLabels();
    this.drawnLabels = labels;
    this.drawBoxes();
  }

  /** Call `paint` with column, row from the top and colour of each cell. */
  eachCell(paint) {
    const { values, range } = this.content;
    const [width, last] = [this.columns.length, this.rows.length - 1];
    values.forEach((value, place) => {
      paint(place % width, last - Math.floor(place / width), colourOf(value, range));
    });
  }

  /** The figure as SVG, with a rectangle for each cell. */
  toSvg() {
    const [width, height] = this.size;
    const cells = s("g", { "shape-rendering": "crispEdges" });
    this.eachCell((column, top, colour) => {
      cells.append(s("rect", { x: this.left + column * width, y: top * height, width, height, fill: hexOf(colour) }));
    });
    const figure = this.axes.cloneNode(true);
    figure.prepend(cells);
    return figure;
  }

  /** The middle of a cell in the figure. */
  middle([row, column]) {
    return [this.left + (column + 0.5) * this.size[0], this.plotHeight - (row + 0.5) * this.size[1]];
  }

  /** Draw labels and titles. */
  drawLabels() {
    const { flaggedRows, flaggedColumns, picked, rowTitle, columnTitle } = this.content;
    const { isFlat, left, plotWidth, plotHeight } = this;
    const text = (name, isFlagged, x, y, style) => {
      const look = { fill: isFlagged ? "var(--flag)" : "var(--muted)", "text-anchor": "end", ...style };
      return label((isFlagged ? "⚠ " : "") + name, x, y, look);
    };
    const rows = labelPlaces(this.rows.length, this.size[1], flaggedRows).map((row) => {
      const style = row === picked ? { "font-weight": 700 } : {};
      return text(this.rows[row], flaggedRows.has(row), left - GAP, this.middle([row, 0])[1] + 4, style);
    });
    const columns = labelPlaces(this.columns.length, isFlat ? 99 : this.size[0], flaggedColumns).map((column) => {
      const [x, y] = [this.middle([0, column])[0], plotHeight + (isFlat ? LINE : GAP)];
      const style = isFlat ? { "text-anchor": "middle" } : { transform: `rotate(-90 ${x} ${y})`, dy: 4 };
      return text(this.columns[column], flaggedColumns.has(column), x, y, style);
    });
    const title = { "text-anchor": "middle", fill: "var(--ink)" };
    const turned = { ...title, transform: `rotate(-90 ${LABEL_SIZE} ${plotHeight / 2})` };
    const titles = [
      label(rowTitle, LABEL_SIZE, plotHeight / 2, turned),
      label(columnTitle, left + plotWidth / 2, this.height - GAP, title),
    ];
    this.labels.replaceChildren(...rows, ...columns, ...titles, box(left, 0, plotWidth, plotHeight, "var(--line)", 1));
  }

  /** Draw boxes around the chosen cell, the cursor's column and the picked row. */
  drawBoxes() {
    const { cursor, picked } = this.content;
    const [width, height] = this.size;
    const top = (row) => this.plotHeight - (row + 1) * height;
    const parts = [];
    if (cursor >= 0) parts.push(box(this.left + cursor * width, 0, width, this.plotHeight, "var(--accent)"));
    if (picked >= 0) parts.push(box(this.left, top(picked), this.plotWidth, height, "var(--accent)"));
    if (this.cell) {
      const place = [this.left + this.cell[1] * width, top(this.cell[0]), width, height];
      parts.push(box(...place, "#000000", 3), box(...place, "#ffffff"));
    }
    this.boxes.replaceChildren(...parts);
  }

  /** Choose the cell under the pointer. */
  point(event) {
    const [width, height] = this.size;
    const row = within((this.plotHeight - event.offsetY) / height, this.rows.length);
    this.select([row, within(event.offsetX / width, this.columns.length)]);
  }

  /** Arrows, Home and End move the chosen cell, Enter picks it, Escape leaves it. */
  key(event) {
    const [row, column] = this.cell ?? [0, 0];
    const [up, right] = MOVES[event.key] ?? [];
    if (event.key === "Enter" && this.cell) this.onPick(this.cell);
    else if (event.key === "Escape") this.select(null);
    else if (event.key in MOVES)
      this.select([within(row + up, this.rows.length), within(column + right, this.columns.length)], true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Choose a cell or, with null, none. `isKey` tells whether the keyboard did. */
  select(cell, isKey = false) {
    if (!isKey && String(cell) === String(this.cell)) return;
    this.cell = cell;
    if (this.content) this.drawBoxes();
    this.onCell(this, isKey);
  }

  /** The middle of the chosen cell in the window. */
  cellPlace() {
    const frame = this.axes.getBoundingClientRect();
    const [x, y] = this.middle(this.cell);
    return { x: frame.left + x, y: frame.top + y };
  }
}
