/** What is written about a cell: its numbers, with as many digits as are certain, and its flags. */

import { DECIMALS } from "./series.js";

const LEVEL = "95 % interval";

/**
 * Write a number.
 * @param {number} value The number.
 * @returns {string} Its digits, or "nan".
 */
export const digits = (value) => (Number.isNaN(value) ? "nan" : value.toFixed(DECIMALS));

/**
 * Write a number with as many decimals as are certain.
 * @param {number} value The number, or `NaN`.
 * @param {number} slack How far it can be from the true one.
 * @returns {string} At most 4 decimals.
 */
export function certainDigits(value, slack) {
  if (Number.isNaN(value)) return "nan";
  for (let decimals = DECIMALS; decimals > 0; decimals--) {
    const [low, high] = [value - slack, value + slack].map((bound) =>
      bound.toFixed(decimals).replace(/^-(0\.0*)$/, "$1"),
    );
    if (low === high) return low;
  }
  return value.toFixed(0);
}

const signed = (text) => (/^[-n]/.test(text) ? text : `+${text}`);

/**
 * Return the numbers of a change since another result as texts.
 * @param {Frame} frame The result.
 * @param {Frame} base The result that is subtracted.
 * @param {[number, number]} cell Row and column.
 * @returns {{change: string, error: string, low: string, high: string}} Texts; an error is "" where it is not known.
 */
export function changeTexts(frame, base, [row, column]) {
  const { change, slack, error, errorSlack, factor } = frame.change(base, row, column);
  const bound = (sign) => signed(certainDigits(change + sign * factor * error, slack + factor * errorSlack));
  const hasBounds = !Number.isNaN(factor * error);
  return {
    change: signed(certainDigits(change, slack)),
    error: Number.isNaN(error) ? "" : certainDigits(error, errorSlack),
    low: hasBounds ? bound(-1) : "",
    high: hasBounds ? bound(1) : "",
  };
}

/**
 * Return what is written about a cell.
 * @param {Series} series The series.
 * @param {Frame} frame The result.
 * @param {Frame | null} base The result that is subtracted, or null for values.
 * @param {[number, number]} cell Row and column.
 * @returns {[string, string][]} Terms and texts.
 */
export function cellTexts(series, frame, base, [row, column]) {
  const { value, error, low, high } = frame.cell(row, column);
  const lines = [[series.measure, digits(value)]];
  if (base) {
    const texts = changeTexts(frame, base, [row, column]);
    lines.push([`change since ${base.moment}`, texts.change]);
    if (texts.error) lines.push(["standard error", texts.error]);
    if (texts.low) lines.push([LEVEL, `${texts.low} to ${texts.high}`]);
    else lines.push([LEVEL, "not known: results keep it for paired layers of one probe set"]);
  } else {
    if (!Number.isNaN(error)) lines.push(["standard error", digits(error)]);
    const few = frame.effective === null ? "" : `: ${frame.effective} effective batches are too few`;
    if (!Number.isNaN(low)) lines.push([LEVEL, `${digits(low)} to ${digits(high)}`]);
    else if (!Number.isNaN(value)) lines.push([LEVEL, `not known${few}`]);
  }
  if (frame.samples !== null) lines.push(["samples", `${frame.samples} in ${frame.batches} batches`]);
  return lines.concat(flagsOf(series, frame, [row, column]).map(({ short }) => ["⚠ flag", short]));
}

/**
 * Return the flags of a cell's layers.
 * @param {Series} series The series.
 * @param {Frame} frame The result.
 * @param {[number, number]} cell Row and column.
 * @returns {object[]} The flags.
 */
export function flagsOf(series, frame, [row, column]) {
  const isOfCell = ({ layer, ofReference }) => layer === (ofReference ? frame.columns[column] : frame.rows[row]);
  const isOfSelf = ({ layer }) => series.isSelf && layer === frame.columns[column];
  return series.flagsAt[frame.index].filter((flag) => isOfCell(flag) || isOfSelf(flag));
}
