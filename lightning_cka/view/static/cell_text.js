/** What is written about a cell: its numbers, with as many digits as are certain, and its flags. */

import { DECIMALS } from "./series.js";

const LEVEL = "95 % interval";

/** Write a number with 4 decimals, or "nan". */
export const digits = (value) => (Number.isNaN(value) ? "nan" : value.toFixed(DECIMALS));

/** Write a number with as many of 4 decimals as are certain if it can be off by `slack`. */
function certainDigits(value, slack) {
  if (Number.isNaN(value)) return "nan";
  for (let decimals = DECIMALS; decimals > 0; decimals--) {
    const write = (bound) => bound.toFixed(decimals).replace(/^-(0\.0*)$/, "$1");
    if (write(value - slack) === write(value + slack)) return write(value);
  }
  return value.toFixed(0);
}

const signed = (text) => (/^[-n]/.test(text) ? text : `+${text}`);

/** Return change, error, low and high of a cell since another result as texts: "" where one is not known. */
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

/** Return terms and texts about a cell: its value or its change since `base`, its error, its interval and its flags. */
export function cellTexts(series, frame, base, [row, column]) {
  const { value, error, low, high } = frame.cell(row, column);
  const lines = [[series.measure, digits(value)]];
  if (base) {
    const texts = changeTexts(frame, base, [row, column]);
    lines.push([`change since ${base.moment}`, texts.change]);
    if (texts.error) lines.push(["standard error", texts.error]);
    const none = "not known: results keep it for paired layers of one probe set";
    lines.push([LEVEL, texts.low ? `${texts.low} to ${texts.high}` : none]);
  } else {
    if (!Number.isNaN(error)) lines.push(["standard error", digits(error)]);
    const few = frame.effective === null ? "" : `: ${frame.effective} effective batches are too few`;
    if (!Number.isNaN(low)) lines.push([LEVEL, `${digits(low)} to ${digits(high)}`]);
    else if (!Number.isNaN(value)) lines.push([LEVEL, `not known${few}`]);
  }
  if (frame.samples !== null) lines.push(["samples", `${frame.samples} in ${frame.batches} batches`]);
  const isOf = ({ layer, ofReference }) =>
    layer === (ofReference ? frame.columns[column] : frame.rows[row]) ||
    (series.isSelf && layer === frame.columns[column]);
  return lines.concat(series.flagsAt[frame.index].filter(isOf).map(({ short }) => ["⚠ flag", short]));
}
