/** `Grid`: a matrix as coloured cells with labels, which pointer and keyboard can explore. */

import { colourIndex, colourTable, hexColour } from "./colours.js";
import { LABEL_SIZE, h, label, s, textWidth } from "./elements.js";

const GAP = 6;
const LINE = LABEL_SIZE + 3;
const LARGEST_CELL = 72;

/**
 * Return which cells of an axis get a label: evenly spaced ones, and all flagged ones if these are few.
 * @param {number} count Number of cells.
 * @param {number} room Size of a cell in pixels.
 * @param {Set<number>} flagged Places of flagged cells.
 * @returns {number[]} Places of the cells.
 */
function labelPlaces(count, room, flagged) {
  const step = Math.max(1, Math.ceil(LINE / room));
  const isMany = flagged.size > count / step / 2;
  const isFree = (place) => isMany || [...flagged].every((other) => other === place || Math.abs(other - place) >= step);
  const all = Array.from({ length: count }, (_, place) => place);
  return all.filter((place) => (!isMany && flagged.has(place)) || (place % step === 0 && isFree(place)));
}

/** A matrix as coloured cells, the first row at the bottom. */
export class Grid {
  /**
   * @param {object} listeners `onCell(cell, isKey)` for the cell under pointer or focus, or null; `onPick(cell)`.
   */
  constructor({ onCell, onPick }) {
    Object.assign(this, { onCell, onPick, cell: null });
    this.canvas = h("canvas", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "heatmap",
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
    this.axes = s("svg", { "aria-hidden": "true" });
    this.root = h("div", { class: "grid" }, this.canvas, this.axes);
  }

  /**
   * Place the cells. Call it if the labels or the room change.
   * @param {string[]} rows Labels of the rows.
   * @param {string[]} columns Labels of the columns.
   * @param {number} width Width of the whole figure.
   * @param {number} most Largest height of all cells together.
   * @param {number} stretch How much higher than wide a cell may be.
   */
  layout(rows, columns, width, most, stretch) {
    const longest = (labels) => Math.max(0, ...labels.map((text) => textWidth(`⚠ ${text}`)));
    const left = Math.ceil(Math.min(longest(rows), 0.4 * width)) + GAP + LINE;
    const tallest = Math.min(LARGEST_CELL, most / Math.max(1, rows.length));
    const cellWidth = Math.min((width - left - 1) / Math.max(1, columns.length), LARGEST_CELL, 2 * tallest);
    const cellHeight = Math.min(tallest, cellWidth * stretch);
    const whole = (size) => (size >= 6 ? Math.floor(size) : size);
    this.size = [whole(cellWidth), whole(cellHeight)];
    const isFlat = longest(columns) + GAP <= this.size[0];
    const below = isFlat ? LINE : Math.ceil(Math.min(longest(columns), 0.4 * width)) + GAP;
    const [plotWidth, plotHeight] = [this.size[0] * columns.length, this.size[1] * rows.length];
    Object.assign(this, { rows, columns, left, isFlat, plotWidth, plotHeight, below, width });
    this.height = plotHeight + below + LINE + GAP;
    Object.assign(this.canvas, { width: columns.length, height: rows.length });
    Object.assign(this.canvas.style, { left: `${left}px`, width: `${plotWidth}px`, height: `${plotHeight}px` });
    for (const [name, size] of [
      ["width", width],
      ["height", this.height],
    ])
      this.axes.setAttribute(name, size);
    this.root.style.height = `${this.height}px`;
    this.image = new ImageData(Math.max(1, columns.length), Math.max(1, rows.length));
  }

  /**
   * Draw values.
   * @param {object} content Values of the cells, row by row; `range`, the titles of the axes and the theme; sets of
   *   flagged rows and columns; `marks`, cells with a diamond; `cursor`, a column; `picked`, a row; and a name.
   */
  draw(content) {
    this.content = content;
    const { values, range, theme } = content;
    const table = colourTable(range.map);
    const nan = theme.nan.match(/\w\w/g).map((digits) => parseInt(digits, 16));
    const [width, height] = [this.columns.length, this.rows.length];
    const pixels = this.image.data;
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const value = values[row * width + column];
        const at = 4 * ((height - 1 - row) * width + column);
        const start = Number.isNaN(value) ? -1 : colourIndex(value, range.low, range.high);
        for (let part = 0; part < 3; part++) pixels[at + part] = start < 0 ? nan[part] : table[start + part];
        pixels[at + 3] = 255;
      }
    }
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
    this.canvas.setAttribute("aria-label", content.name);
    this.drawAxes();
  }

  /** Draw labels, marks and the frame of the chosen cell. */
  drawAxes() {
    const { theme, flaggedRows, flaggedColumns, marks = [], cursor = -1, picked = -1 } = this.content;
    const [width, height] = this.size;
    const middle = ([row, column]) => [this.left + (column + 0.5) * width, this.plotHeight - (row + 0.5) * height];
    const look = (place, flagged, chosen) => ({
      fill: flagged.has(place) ? theme.flag : place === chosen ? theme.ink : theme.muted,
      "font-weight": place === chosen ? 700 : 400,
    });
    const sign = (flagged, place) => (flagged.has(place) ? "⚠ " : "");
    const parts = labelPlaces(this.rows.length, height, flaggedRows).map((row) =>
      label(sign(flaggedRows, row) + this.rows[row], this.left - GAP, middle([row, 0])[1] + 4, {
        "text-anchor": "end",
        ...look(row, flaggedRows, this.cell?.[0] ?? picked),
      }),
    );
    for (const column of labelPlaces(this.columns.length, this.isFlat ? 99 : width, flaggedColumns)) {
      const [x, y] = [middle([0, column])[0], this.plotHeight + (this.isFlat ? LINE : GAP)];
      const turned = { transform: `rotate(-90 ${x} ${y})`, dy: 4, "text-anchor": "end" };
      const style = { ...(this.isFlat ? { "text-anchor": "middle" } : turned) };
      const text = sign(flaggedColumns, column) + this.columns[column];
      parts.push(label(text, x, y, { ...style, ...look(column, flaggedColumns, this.cell?.[1] ?? cursor) }));
    }
    const title = { "text-anchor": "middle", fill: theme.ink };
    const up = [LABEL_SIZE, this.plotHeight / 2];
    parts.push(label(this.content.rowTitle, ...up, { ...title, transform: `rotate(-90 ${up.join(" ")})` }));
    parts.push(label(this.content.columnTitle, this.left + this.plotWidth / 2, this.height - GAP, title));
    const box = (x, y, boxWidth, boxHeight, stroke, size = 1) =>
      s("rect", { x, y, width: boxWidth, height: boxHeight, fill: "none", stroke, "stroke-width": size });
    parts.push(box(this.left, 0, this.plotWidth, this.plotHeight, theme.line));
    for (const mark of marks) {
      const [x, y] = middle(mark);
      parts.push(s("path", { d: `M${x - 4} ${y}l4 -4 4 4 -4 4z`, fill: "#ffffff", stroke: "#000000" }));
    }
    const top = (row) => this.plotHeight - (row + 1) * height;
    if (cursor >= 0) parts.push(box(this.left + cursor * width, 0, width, this.plotHeight, theme.accent, 1.5));
    if (picked >= 0) parts.push(box(this.left, top(picked), this.plotWidth, height, theme.accent, 1.5));
    if (this.cell) {
      const place = [this.left + this.cell[1] * width, top(this.cell[0]), width, height];
      parts.push(box(...place, "#000000", 3), box(...place, "#ffffff", 1.5));
    }
    this.axes.replaceChildren(...parts);
  }

  /** @returns {SVGElement} The figure as SVG, with a rectangle for each cell. */
  toSvg() {
    const [width, height] = this.size;
    const { values, range, theme } = this.content;
    const cells = Array.from(values, (value, place) => {
      const [row, column] = [Math.floor(place / this.columns.length), place % this.columns.length];
      const [x, y] = [this.left + column * width, this.plotHeight - (row + 1) * height];
      return s("rect", { x, y, width, height, fill: Number.isNaN(value) ? theme.nan : hexColour(value, range) });
    });
    const copy = this.axes.cloneNode(true);
    copy.prepend(s("g", { "shape-rendering": "crispEdges" }, ...cells));
    return copy;
  }

  /** @param {PointerEvent} event Where the pointer is. */
  point(event) {
    const [width, height] = this.size;
    const column = Math.min(this.columns.length - 1, Math.max(0, Math.floor(event.offsetX / width)));
    const row = Math.floor((this.plotHeight - event.offsetY) / height);
    this.select([Math.min(this.rows.length - 1, Math.max(0, row)), column]);
  }

  /** @param {KeyboardEvent} event A key: arrows, Home and End move the cell, Enter picks it, Escape leaves it. */
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

  /**
   * Choose a cell.
   * @param {[number, number] | null} cell Row and column.
   * @param {boolean} isKey Whether the keyboard chose it.
   */
  select(cell, isKey = false) {
    const isSame = cell && this.cell && cell[0] === this.cell[0] && cell[1] === this.cell[1];
    if (!this.content || (isSame && !isKey)) return;
    this.cell = cell;
    this.drawAxes();
    this.onCell(cell, isKey);
  }

  /** @returns {{x: number, y: number}} The middle of the chosen cell in the window. */
  cellPlace() {
    const box = this.canvas.getBoundingClientRect();
    const [row, column] = this.cell;
    return { x: box.left + (column + 0.5) * this.size[0], y: box.bottom - (row + 0.5) * this.size[1] };
  }
}
