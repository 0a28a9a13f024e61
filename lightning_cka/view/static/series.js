/** `Series`: the results of one reference and one measure in order of time, read from the payload. */

import { UNDEFINED, unpackIntegers, unpackJson } from "./packed.js";

/** Number of decimals of values, errors and bounds. */
export const DECIMALS = 4;

const UNIT = 10 ** -DECIMALS;
const FINE_UNIT = 1e-8;

/** An error with a message for the user. */
export class PayloadError extends Error {}

/** Return the title, the notes and the runs of a payload, or of its JSON text. A run is a name and `Series`. */
export function readPayload(given) {
  const { format, title, notes, runs } = typeof given === "string" ? JSON.parse(given) : given;
  if (format !== 1) throw new PayloadError(`expected results of format 1, but they have format ${format}`);
  if (!runs.length) throw new PayloadError([...notes, "there are no results"].join("; "));
  return {
    title,
    notes,
    runs: runs.map(({ name, series }) => ({ name, series: series.map((raw) => new Series(raw)) })),
  };
}

/** What results share: their layers, which of them are paired, and their probe set. */
class Layers {
  constructor({ rows, columns, pairs }) {
    Object.assign(this, { rows, columns, pairs });
    this.pairOfName = new Map(pairs.map((cell) => [rows[cell[0]], cell]));
  }
}

/** Results that are packed together: one block of the payload. */
class Block {
  constructor(raw, layers) {
    Object.assign(this, { raw, layers, paired: raw.paired, size: raw.epochs.length });
  }

  /** Unpack the numbers. */
  async load() {
    const { raw, paired, size } = this;
    const { rows, columns, pairs } = this.layers;
    const unpack = (text, stride) => (text ? unpackIntegers(text, size * stride, stride) : null);
    const cells = ["values", "errors", "bounds"].map((name) => unpack(raw[name], rows.length * columns.length));
    const fine = unpack(paired?.fine, pairs.length);
    const leftOut = unpack(paired?.left_out, pairs.length * paired?.batches);
    [this.values, this.errors, this.bounds, this.fine, this.leftOut] = await Promise.all([...cells, fine, leftOut]);
  }
}

/** One result: number `place` of a block, and number `index` of the series. */
class Frame {
  constructor(block, place, index) {
    const { raw, layers } = block;
    Object.assign(this, {
      block,
      place,
      index,
      layers,
      rows: layers.rows,
      columns: layers.columns,
      meanName: raw.mean,
    });
    for (const name of ["epoch", "step", "factor", "mean"]) this[name] = raw[`${name}s`][place];
    for (const name of ["samples", "batches", "effective"]) this[name] = raw[name][place];
    for (const name of ["model", "reference"]) this[name] = raw[name][place] ?? raw[name][0];
  }

  /** Epoch and step in words. */
  get moment() {
    const parts = ["epoch", "step"].filter((name) => this[name] !== null).map((name) => `${name} ${this[name]}`);
    return parts.join(", ") || "one comparison";
  }

  /** One of `count` unpacked numbers of the result; `NaN` where it is undefined or not known. */
  number(name, offset, count) {
    const found = this.block[name]?.[this.place * count + offset] ?? UNDEFINED;
    return found === UNDEFINED ? NaN : found;
  }

  /** The number of a cell in units of the last decimal. */
  digits(name, row, column) {
    return this.number(name, row * this.columns.length + column, this.rows.length * this.columns.length);
  }

  /** The value of a cell; `NaN` where it is undefined. */
  value(row, column) {
    return this.digits("values", row, column) * UNIT;
  }

  /** Value, error and bounds of a cell; `NaN` where one is not known. */
  cell(row, column) {
    const [value, error, code] = ["values", "errors", "bounds"].map((name) => this.digits(name, row, column));
    const half = this.factor === null ? NaN : Math.floor(this.factor * error + 0.5);
    const highOff = ((code + 8) & 15) - 8;
    const lowOff = (code - highOff) / 16;
    const [low, high] = [value - half + lowOff, value + half + highOff];
    return { value: value * UNIT, error: error * UNIT, low: low * UNIT, high: high * UNIT };
  }

  /**
   * The change of a cell since another result: the change, its paired error and the factor of its interval, each `NaN`
   * where it is not known. `slack` and `errorSlack` bound what packing has rounded off.
   */
  change(base, row, column) {
    const isSame = base.layers === this.layers;
    const [otherRow, otherColumn] = [base.rows.indexOf(this.rows[row]), base.columns.indexOf(this.columns[column])];
    const isThere = otherRow >= 0 && otherColumn >= 0;
    const change = isThere ? this.value(row, column) - base.value(otherRow, otherColumn) : NaN;
    const pair = this.layers.pairs.findIndex((cell) => cell[0] === row && cell[1] === column);
    if (isSame && this.block.paired && pair >= 0 && isThere) return this.pairedChange(base, pair, change);
    return { change, slack: UNIT, error: NaN, errorSlack: 0, factor: NaN };
  }

  /** The change of paired layers with all its digits, and its error from the values without each batch. */
  pairedChange(base, pair, change) {
    const { batches, scale, factor } = this.block.paired;
    const { length } = this.layers.pairs;
    const fine = (frame) => frame.number("fine", pair, length) * FINE_UNIT;
    const unit = (frame) => 10 ** -frame.block.paired.decimals;
    const leftOut = (frame, batch) => frame.number("leftOut", batch * length + pair, batches * length) * unit(frame);
    let sum = 0;
    for (let batch = 0; batch < batches; batch++) sum += (leftOut(this, batch) - leftOut(base, batch)) ** 2;
    return {
      change: change + fine(this) - fine(base),
      slack: 1.1 * FINE_UNIT,
      error: Math.sqrt(scale * sum),
      errorSlack: this === base ? 0 : Math.sqrt(scale * batches) * Math.max(unit(this), unit(base)),
      factor: factor ?? NaN,
    };
  }

  /** The column of the highest value in a row, but not the layer itself if `isSelf`; -1 if all are undefined. */
  mostAlike(row, isSelf) {
    let [best, highest] = [-1, -Infinity];
    for (let column = 0; column < this.columns.length; column++) {
      const value = isSelf && column === row ? NaN : this.value(row, column);
      if (value > highest) [best, highest] = [column, value];
    }
    return best;
  }
}

/** The results of one reference and one measure. */
export class Series {
  constructor(raw) {
    const { reference, measure, blocks } = raw;
    Object.assign(this, { raw, reference, measure, isSelf: raw.self, ceiling: raw.ceiling ?? null });
    const layers = new Map();
    this.blocks = blocks.map((block) => {
      const key = JSON.stringify([block.rows, block.columns, block.pairs, block.paired?.probe]);
      if (!layers.has(key)) layers.set(key, new Layers(block));
      return new Block(block, layers.get(key));
    });
    this.layers = [...layers.values()];
    const places = this.blocks.flatMap((block) => Array.from({ length: block.size }, (_, place) => [block, place]));
    this.frames = places.map(([block, place], index) => new Frame(block, place, index));
    if (!places.length) throw new PayloadError("a reference has no results");
  }

  /** What trainings reach in a layer that differ in their seed alone: a point of a curve; null if it is not known. */
  ceilingOf(layer) {
    const { layers } = this.ceiling ?? { layers: {} };
    if (!Object.hasOwn(layers, layer)) return null;
    const [value, low, high] = layers[layer].map((number) => number ?? NaN);
    return { value, low, high };
  }

  /** Unpack the numbers and the flags, once. */
  load() {
    this.loading ??= this.unpack();
    return this.loading;
  }

  async unpack() {
    await Promise.all(this.blocks.map((block) => block.load()));
    this.flagsAt = this.frames.map(() => []);
    for (const [place, layer, ofReference, reason, short, sentence, samples] of await unpackJson(this.raw.flags)) {
      this.flagsAt[place].push({ place, layer, ofReference, reason, short, sentence, samples });
    }
  }
}
