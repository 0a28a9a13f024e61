/** `Series`: the results of one reference and one measure in order of time, read from the payload. */

import { joinedIntegers, PayloadError, UNDEFINED, unpackIntegers, unpackJson } from "./packed.js";

/** Number of decimals of values, errors and bounds. */
export const DECIMALS = 4;

const UNIT = 10 ** -DECIMALS;
const FINE_UNIT = 1e-8;
const MOST_NUMBERS = 1e8;
const NUMBERS = ["epochs", "steps", "samples", "batches", "effective", "factors", "means"];

const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isNull = (value) => value === null;
const isListOf = (check) => (value) => Array.isArray(value) && value.every(check);
const either = (one, other) => (value) => one(value) || other(value);
const isTextOrNull = either(isText, isNull);
const isNumbers = isListOf(either(isNumber, isNull));

const RUN = { name: isText, series: Array.isArray };
const SERIES = { reference: isText, measure: isText, flags: isText, blocks: Array.isArray };
const BLOCK = {
  ...{ model: isListOf(isText), reference: isListOf(isText), rows: isListOf(isText), columns: isListOf(isText) },
  ...{ pairs: Array.isArray, mean: isText, values: isText, errors: isTextOrNull, bounds: isTextOrNull },
  ...Object.fromEntries(NUMBERS.map((name) => [name, isNumbers])),
};
const PAIRED = {
  ...{ probe: isText, fine: isText, left_out: isText },
  ...{ batches: isNumber, scale: isNumber, decimals: isNumber },
};

/** Throw an error if something is not as expected. */
function expect(isRight, expected) {
  if (!isRight) throw new PayloadError(`expected ${expected}`);
}

/** Check that an object has the fields of a schema: checks of its values by name. */
function checkFields(value, schema, name) {
  expect(value !== null && typeof value === "object", `an object as ${name}`);
  for (const [field, check] of Object.entries(schema))
    expect(check(value[field]), `another value as ${field} of ${name}`);
}

/** Check a payload, and return its title, its notes and its runs: a name and a list of `Series` each. */
export function readPayload(payload) {
  checkFields(payload, { title: isText, notes: isListOf(isText), runs: Array.isArray }, "results");
  expect(payload.format === 1, `results of format 1, but they have format ${String(payload.format).slice(0, 20)}`);
  const runs = payload.runs.map((run) => {
    checkFields(run, RUN, "a run");
    return { name: run.name, series: run.series.map((raw) => new Series(raw)) };
  });
  return { title: payload.title, notes: payload.notes, runs };
}

/** Check one block of the payload. */
function checkBlock(raw) {
  checkFields(raw, BLOCK, "results");
  const size = raw.epochs.length;
  for (const name of NUMBERS) expect(raw[name].length === size, `${size} ${name}`);
  for (const name of ["model", "reference"]) expect([1, size].includes(raw[name].length), `names of the ${name}`);
  const isCell = (cell) => Array.isArray(cell) && isText(raw.rows[cell[0]]) && isText(raw.columns[cell[1]]);
  expect(raw.pairs.every(isCell), "pairs of layers");
  if (raw.paired !== null) checkFields(raw.paired, PAIRED, "paired layers");
}

/** What blocks of the payload share if they differ only in time. */
function sharedContent({ rows, columns, pairs, mean, errors, paired }) {
  const records = paired && [paired.probe, paired.batches, paired.scale, paired.factor];
  return JSON.stringify([rows, columns, pairs, mean, errors === null, records]);
}

/** Join consecutive blocks of the payload that differ only in time: a run that goes on packs its results in parts. */
function joinedBlocks(blocks) {
  const groups = new Map();
  let [last, group] = ["", 0];
  for (const block of blocks) {
    checkBlock(block);
    const shared = sharedContent(block);
    if (shared !== last) [last, group] = [shared, group + 1];
    groups.set(group, [...(groups.get(group) ?? []), block]);
  }
  return [...groups.values()].map((parts) => new Block(parts));
}

/** Results that share their layers and their probe set, in one or several parts. */
class Block {
  constructor(parts) {
    const ofResults = (part, name) => (part[name].length === 1 ? part.epochs.map(() => part[name][0]) : part[name]);
    const joined = (name) => [name, parts.flatMap((part) => ofResults(part, name))];
    const lists = [...NUMBERS, "model", "reference"].map(joined);
    const raw = { ...parts[0], ...Object.fromEntries(lists) };
    const [size, height, width] = [raw.epochs.length, raw.rows.length, raw.columns.length];
    const most = size * Math.max(height * width, (raw.paired?.batches ?? 0) * raw.pairs.length);
    expect(most <= MOST_NUMBERS, `at most ${MOST_NUMBERS} numbers, but there are ${most}`);
    Object.assign(this, { raw, parts, size, height, width, rows: raw.rows, columns: raw.columns, pairs: raw.pairs });
    const decimals = parts.map((part) => part.paired?.decimals ?? 0);
    [this.leastDecimals, this.decimals] = [Math.min(...decimals), Math.max(...decimals)];
    this.placeOfPair = new Map(raw.pairs.map((cell, place) => [String(cell), place]));
    this.pairOfName = new Map(raw.pairs.map((cell) => [raw.rows[cell[0]], cell]));
  }

  /** Unpack the numbers. */
  async load() {
    const { raw, parts, pairs } = this;
    const numbers = async (textOf, stride, scaleOf = () => 1) => {
      if (!isText(textOf(raw))) return false;
      const unpack = async (part) => {
        const found = await unpackIntegers(textOf(part), part.epochs.length * stride, stride);
        const scale = scaleOf(part);
        return scale === 1 ? found : found.map((number) => (number === UNDEFINED ? number : scale * number));
      };
      return joinedIntegers(await Promise.all(parts.map(unpack)));
    };
    const cells = ["values", "errors", "bounds"].map((name) => numbers((part) => part[name], this.height * this.width));
    const fine = numbers((part) => part.paired?.fine, pairs.length);
    const inUnit = (part) => 10 ** (this.decimals - part.paired.decimals);
    const leftOut = numbers((part) => part.paired?.left_out, pairs.length * raw.paired?.batches, inUnit);
    [this.values, this.errors, this.bounds, this.fine, this.leftOut] = await Promise.all([...cells, fine, leftOut]);
  }
}

/** One result: number `place` of a block, and number `index` of the series. */
class Frame {
  constructor(block, place, index) {
    const { raw } = block;
    Object.assign(this, { block, place, index, rows: block.rows, columns: block.columns });
    const names = ["epoch", "step", "samples", "batches", "effective", "factor", "mean"];
    names.forEach((name, at) => (this[name] = raw[NUMBERS[at]][place]));
    for (const name of ["model", "reference"]) this[name] = raw[name][place];
  }

  /** Epoch and step in words. */
  get moment() {
    const parts = ["epoch", "step"].filter((name) => this[name] !== null).map((name) => `${name} ${this[name]}`);
    return parts.join(", ") || "one comparison";
  }

  /** The number of a cell in units of the last decimal; `NaN` where it is undefined or not known. */
  digits(numbers, row, column) {
    const found = numbers ? numbers[(this.place * this.block.height + row) * this.block.width + column] : UNDEFINED;
    return found === UNDEFINED ? NaN : found;
  }

  /** The value of a cell; `NaN` where it is undefined. */
  value(row, column) {
    return this.digits(this.block.values, row, column) * UNIT;
  }

  /** Value, error and bounds of a cell; `NaN` where one is not known. */
  cell(row, column) {
    const { values, errors, bounds } = this.block;
    const [value, error, code] = [values, errors, bounds].map((numbers) => this.digits(numbers, row, column));
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
    const { block } = this;
    const isSame = base.block === block;
    const otherRow = isSame ? row : base.rows.indexOf(this.rows[row]);
    const otherColumn = isSame ? column : base.columns.indexOf(this.columns[column]);
    const isThere = otherRow >= 0 && otherColumn >= 0;
    const change = isThere ? this.value(row, column) - base.value(otherRow, otherColumn) : NaN;
    const pair = block.placeOfPair.get(`${row},${column}`);
    const isPaired = isSame && block.raw.paired && pair !== undefined && !Number.isNaN(change);
    if (!isPaired) return { change, slack: UNIT, error: NaN, errorSlack: 0, factor: NaN };
    return { ...this.pairedChange(base, pair, change), factor: block.raw.paired.factor ?? NaN };
  }

  /** The change of paired layers with all its digits, and its error from the values without each batch. */
  pairedChange(base, pair, change) {
    const { fine, leftOut, pairs, raw, decimals, leastDecimals } = this.block;
    const { batches, scale } = raw.paired;
    const fineChange = fine[this.place * pairs.length + pair] - fine[base.place * pairs.length + pair];
    let sum = 0;
    for (let batch = 0; batch < batches; batch++) {
      const one = leftOut[(this.place * batches + batch) * pairs.length + pair];
      const other = leftOut[(base.place * batches + batch) * pairs.length + pair];
      sum += one === UNDEFINED || other === UNDEFINED ? NaN : (one - other) ** 2;
    }
    const unit = Math.sqrt(scale) * 10 ** -decimals;
    const errorSlack = this === base ? 0 : Math.sqrt(scale * batches) * 10 ** -leastDecimals;
    return {
      change: change + fineChange * FINE_UNIT,
      slack: 1.1 * FINE_UNIT,
      error: unit * Math.sqrt(sum),
      errorSlack,
    };
  }

  /** The column of the highest value in a row, but not the layer itself if `isSelf`; -1 if all are undefined. */
  mostAlike(row, isSelf) {
    let [best, highest] = [-1, -Infinity];
    for (let column = 0; column < this.block.width; column++) {
      const value = isSelf && column === row ? NaN : this.value(row, column);
      if (value > highest) [best, highest] = [column, value];
    }
    return best;
  }
}

/** The results of one reference and one measure. */
export class Series {
  constructor(raw) {
    checkFields(raw, SERIES, "results of a reference");
    const { reference, measure } = raw;
    Object.assign(this, { raw, reference, measure, isSelf: raw.self === true });
    this.blocks = joinedBlocks(raw.blocks);
    const places = this.blocks.flatMap((block) => block.raw.epochs.map((_, place) => [block, place]));
    this.frames = places.map(([block, place], index) => new Frame(block, place, index));
    expect(this.frames.length > 0, "at least one result of a reference");
  }

  /** Unpack the numbers and the flags. */
  async load() {
    if (this.flagsAt) return;
    await Promise.all(this.blocks.map((block) => block.load()));
    const rows = await unpackJson(this.raw.flags);
    const isFlag = (row) =>
      Array.isArray(row) && row[0] in this.frames && row.slice(3, 6).every(isText) && isListOf(isText)(row[6]);
    expect(isListOf(isFlag)(rows), "flags with a layer, a reason and a sentence");
    this.flagsAt = this.frames.map(() => []);
    for (const [place, layer, ofReference, reason, short, sentence, samples] of rows) {
      this.flagsAt[place].push({ place, layer, ofReference, reason, short, sentence, samples });
    }
  }
}
