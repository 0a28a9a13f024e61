/** `Series`: the results of one reference and one measure in order of time, read from the payload. */

import { joinedIntegers, PayloadError, UNDEFINED, unpackIntegers, unpackJson } from "./packed.js";

export const DECIMALS = 4;
const UNIT = 10 ** -DECIMALS;
const FINE_UNIT = 1e-8;
const MOST_NUMBERS = 1e8;
const IN_TIME = ["epochs", "steps", "samples", "batches", "effective", "factors", "means"];

const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isNumberOrNull = (value) => value === null || isNumber(value);
const isTextOrNull = (value) => value === null || isText(value);
const isList = (value, check) => Array.isArray(value) && value.every(check);

/**
 * Throw an error for a payload that is not as expected.
 * @param {boolean} isRight Whether it is.
 * @param {string} expected What is expected.
 */
function expect(isRight, expected) {
  if (!isRight) throw new PayloadError(`expected ${expected}`);
}

/**
 * Check the payload of a view, and return its runs.
 * @param {any} payload Plain values; see `lightning_cka/view/payload.py`.
 * @returns {{title: string, notes: string[], runs: {name: string, series: Series[]}[]}} The checked content.
 */
export function readPayload(payload) {
  expect(payload !== null && typeof payload === "object", "an object");
  expect(payload.format === 1, `results of format 1, but they have format ${String(payload.format).slice(0, 20)}`);
  expect(isText(payload.title) && isList(payload.notes, isText), "a title and notes");
  expect(Array.isArray(payload.runs), "a list of runs");
  const runs = payload.runs.map((run) => {
    expect(run && isText(run.name) && Array.isArray(run.series), "runs with a name and a list of series");
    return { name: run.name, series: run.series.map((raw) => new Series(raw)) };
  });
  return { title: payload.title, notes: payload.notes, runs };
}

/**
 * Check the plain values of a block.
 * @param {any} raw The values.
 * @returns {object} The same values.
 */
function checkedBlock(raw) {
  expect(raw && isText(raw.mean) && isList(raw.rows, isText) && isList(raw.columns, isText), "names of layers");
  expect(Array.isArray(raw.epochs), "epochs");
  const size = raw.epochs.length;
  for (const name of IN_TIME) {
    expect(isList(raw[name], isNumberOrNull) && raw[name].length === size, `${size} numbers as ${name}`);
  }
  for (const name of ["model", "reference"]) {
    expect(isList(raw[name], isText) && [1, size].includes(raw[name].length), `names of the ${name}`);
  }
  const isCell = (cell) =>
    Array.isArray(cell) && cell.length === 2 && isText(raw.rows[cell[0]]) && isText(raw.columns[cell[1]]);
  expect(isList(raw.pairs, isCell), "pairs of layers");
  expect(isText(raw.values) && isTextOrNull(raw.errors) && isTextOrNull(raw.bounds), "packed numbers");
  const paired = raw.paired;
  const isPaired = paired && isText(paired.fine) && isText(paired.left_out) && isNumber(paired.batches);
  const hasScale = isPaired && isNumber(paired.scale) && isNumberOrNull(paired.factor) && isNumber(paired.decimals);
  expect(paired === null || (hasScale && isText(paired.probe)), "records of paired layers");
  return raw;
}

/**
 * Join consecutive blocks that differ only in time. A run that is still going on packs its results in such parts.
 * @param {object[]} blocks Checked values of blocks.
 * @returns {Block[]} The joined blocks.
 */
function joinedBlocks(blocks) {
  const shared = ({ rows, columns, pairs, mean, errors, paired }) => {
    const records = paired && [paired.probe, paired.batches, paired.scale, paired.factor];
    return JSON.stringify([rows, columns, pairs, mean, errors === null, records]);
  };
  const groups = [];
  let last = null;
  for (const block of blocks) {
    const key = shared(block);
    if (key === last) groups.at(-1).push(block);
    else groups.push([block]);
    last = key;
  }
  return groups.map((parts) => new Block(parts));
}

/** Results that share their layers and their probe set. */
class Block {
  /** @param {object[]} parts Checked values of blocks that differ only in time. */
  constructor(parts) {
    const [first] = parts;
    const sizes = parts.map((part) => part.epochs.length);
    const size = sizes.reduce((sum, one) => sum + one, 0);
    const inTime = IN_TIME.map((name) => [name, parts.flatMap((part) => part[name])]);
    const names = (part, name) => (part[name].length === 1 ? part.epochs.map(() => part[name][0]) : part[name]);
    const named = ["model", "reference"].map((name) => [name, parts.flatMap((part) => names(part, name))]);
    const raw = { ...first, ...Object.fromEntries([...inTime, ...named]) };
    const [height, width] = [raw.rows.length, raw.columns.length];
    const most = size * Math.max(height * width, (raw.paired?.batches ?? 0) * raw.pairs.length);
    expect(most <= MOST_NUMBERS, `at most ${MOST_NUMBERS} numbers, but there are ${most}`);
    Object.assign(this, { raw, parts, size, height, width, rows: raw.rows, columns: raw.columns, pairs: raw.pairs });
    const decimals = parts.map((part) => part.paired?.decimals ?? 0);
    [this.decimals, this.leastDecimals] = [Math.max(...decimals), Math.min(...decimals)];
    this.pairOfRow = new Map(raw.pairs.map(([row], place) => [row, place]));
    this.pairOfName = new Map(raw.pairs.map((cell) => [raw.rows[cell[0]], cell]));
  }

  /** Unpack the numbers. */
  async load() {
    if (this.values) return;
    const joined = async (textOf, stride) => {
      if (textOf(this.parts[0]) === null) return null;
      const found = this.parts.map((part) => unpackIntegers(textOf(part), part.epochs.length * stride, stride));
      return joinedIntegers(await Promise.all(found));
    };
    const area = this.height * this.width;
    const count = this.pairs.length;
    const kinds = [joined((part) => part.errors, area), joined((part) => part.bounds, area)];
    if (this.raw.paired) {
      kinds.push(joined((part) => part.paired.fine, count));
      kinds.push(this.loadLeftOut(count * this.raw.paired.batches));
    }
    [this.errors, this.bounds, this.fine, this.leftOut] = await Promise.all(kinds);
    this.values = await joined((part) => part.values, area);
  }

  /**
   * Unpack the values without each batch, all with the same decimals.
   * @param {number} stride How many there are of each result.
   * @returns {Promise<Int32Array>} The values as integers.
   */
  async loadLeftOut(stride) {
    const found = this.parts.map(async ({ paired, epochs }) => {
      const integers = await unpackIntegers(paired.left_out, epochs.length * stride, stride);
      const unit = 10 ** (this.decimals - paired.decimals);
      return unit === 1 ? integers : integers.map((number) => (number === UNDEFINED ? number : unit * number));
    });
    return joinedIntegers(await Promise.all(found));
  }
}

/** One result. */
class Frame {
  /**
   * @param {Block} block The block that has its numbers.
   * @param {number} place Its place in the block.
   * @param {number} index Its place in the series.
   */
  constructor(block, place, index) {
    const { raw } = block;
    Object.assign(this, { block, place, index, rows: block.rows, columns: block.columns });
    [this.epoch, this.step, this.samples, this.batches] = [raw.epochs, raw.steps, raw.samples, raw.batches].map(
      (numbers) => numbers[place],
    );
    [this.effective, this.factor, this.mean] = [raw.effective, raw.factors, raw.means].map((numbers) => numbers[place]);
    [this.model, this.reference] = [raw.model[place], raw.reference[place]];
  }

  /** @returns {string} Epoch and step in words. */
  get moment() {
    const parts = [
      ["epoch", this.epoch],
      ["step", this.step],
    ].filter(([, number]) => number !== null);
    return parts.map((part) => part.join(" ")).join(", ") || "one comparison";
  }

  /**
   * Return the number of a cell in units of the last decimal.
   * @param {Int32Array | null} numbers Values, errors or bounds of the block.
   * @param {number} row Row of the cell.
   * @param {number} column Column of the cell.
   * @returns {number} `NaN` where it is undefined or not known.
   */
  digits(numbers, row, column) {
    const found = numbers ? numbers[(this.place * this.block.height + row) * this.block.width + column] : UNDEFINED;
    return found === UNDEFINED ? NaN : found;
  }

  /**
   * Return the value of a cell.
   * @param {number} row Row of the cell.
   * @param {number} column Column of the cell.
   * @returns {number} `NaN` where it is undefined.
   */
  value(row, column) {
    return this.digits(this.block.values, row, column) * UNIT;
  }

  /**
   * Return all that is shown about a cell.
   * @param {number} row Row of the cell.
   * @param {number} column Column of the cell.
   * @returns {{value: number, error: number, low: number, high: number}} `NaN` where it is not known.
   */
  cell(row, column) {
    const value = this.digits(this.block.values, row, column);
    const error = this.digits(this.block.errors, row, column);
    const code = this.digits(this.block.bounds, row, column);
    const half = this.factor === null ? NaN : Math.floor(this.factor * error + 0.5);
    const highOff = ((code + 8) & 15) - 8;
    const lowOff = (code - highOff) / 16;
    const numbers = { value, error, low: value - half + lowOff, high: value + half + highOff };
    return Object.fromEntries(Object.entries(numbers).map(([name, number]) => [name, number * UNIT]));
  }

  /**
   * Return the change of a cell since an earlier or later result.
   * @param {Frame} base The other result.
   * @param {number} row Row of the cell.
   * @param {number} column Column of the cell.
   * @returns {{change: number, slack: number, error: number, errorSlack: number, factor: number}} The change, its
   *   paired standard error and the factor of its interval; `NaN` where one is not known. Slacks bound rounding errors.
   */
  change(base, row, column) {
    const { block } = this;
    const isSame = base.block === block;
    const otherRow = isSame ? row : base.rows.indexOf(this.rows[row]);
    const otherColumn = isSame ? column : base.columns.indexOf(this.columns[column]);
    const isThere = otherRow >= 0 && otherColumn >= 0;
    const change = isThere ? this.value(row, column) - base.value(otherRow, otherColumn) : NaN;
    const none = { change, slack: UNIT, error: NaN, errorSlack: 0, factor: NaN };
    const pair = block.pairOfRow.get(row);
    const paired = block.raw.paired;
    if (!isSame || !paired || pair === undefined || block.pairs[pair][1] !== column || Number.isNaN(change))
      return none;
    const count = block.pairs.length;
    const fine = block.fine[this.place * count + pair] - block.fine[base.place * count + pair];
    let sum = 0;
    for (let batch = 0; batch < paired.batches; batch++) {
      const one = block.leftOut[(this.place * paired.batches + batch) * count + pair];
      const other = block.leftOut[(base.place * paired.batches + batch) * count + pair];
      sum += one === UNDEFINED || other === UNDEFINED ? NaN : (one - other) ** 2;
    }
    const [unit, slackUnit] = [10 ** -block.decimals, 10 ** -block.leastDecimals];
    const scale = Math.sqrt(paired.scale);
    return {
      change: change + fine * FINE_UNIT,
      slack: 1.1 * FINE_UNIT,
      error: scale * unit * Math.sqrt(sum),
      errorSlack: this === base ? 0 : scale * slackUnit * Math.sqrt(paired.batches),
      factor: paired.factor ?? NaN,
    };
  }

  /**
   * Return the column of the highest value in a row, without the layer itself if a model is compared with itself.
   * @param {number} row The row.
   * @param {boolean} isSelf Whether a model is compared with itself.
   * @returns {number} The column; -1 if all values are undefined.
   */
  mostAlike(row, isSelf) {
    let best = -1;
    for (let column = 0; column < this.block.width; column++) {
      const value = isSelf && column === row ? NaN : this.value(row, column);
      if (!Number.isNaN(value) && (best < 0 || value > this.value(row, best))) best = column;
    }
    return best;
  }
}

/** The results of one reference and one measure. */
export class Series {
  /** @param {any} raw Plain values. */
  constructor(raw) {
    expect(raw && isText(raw.reference) && isText(raw.measure) && isText(raw.flags), "series with names and flags");
    expect(Array.isArray(raw.blocks) && raw.blocks.length > 0, "series with results");
    Object.assign(this, { raw, reference: raw.reference, measure: raw.measure, isSelf: raw.self === true });
    this.blocks = joinedBlocks(raw.blocks.map(checkedBlock));
    this.frames = [];
    for (const block of this.blocks) {
      for (let place = 0; place < block.size; place++) this.frames.push(new Frame(block, place, this.frames.length));
    }
    expect(this.frames.length > 0, "series with results");
  }

  /** Unpack the numbers and the flags. */
  async load() {
    if (this.flagsAt) return;
    await Promise.all(this.blocks.map((block) => block.load()));
    const rows = await unpackJson(this.raw.flags);
    const isFlag = (row) =>
      Array.isArray(row) &&
      this.frames[row[0]] !== undefined &&
      [1, 3, 4, 5].every((place) => isText(row[place])) &&
      isList(row[6], isText);
    expect(isList(rows, isFlag), "flags with a layer, a reason and a sentence");
    this.flagsAt = this.frames.map(() => []);
    for (const [place, layer, ofReference, reason, short, sentence, samples] of rows) {
      this.flagsAt[place].push({ place, layer, ofReference: ofReference === true, reason, short, sentence, samples });
    }
  }
}
