/** The lists of a view: its flags, and its values as a table. */

import { runsOf } from "./curves.js";
import { h } from "./elements.js";

/**
 * Return in words when something was the case.
 * @param {Series} series The series.
 * @param {Set<number>} places Places of results.
 * @returns {string} Such as "epochs 3–7, 9".
 */
function when(series, places) {
  const isThere = series.frames.map((frame) => places.has(frame.index));
  const name = series.frames.every(({ epoch }) => epoch !== null) ? "epoch" : "step";
  const number = (place) => series.frames[place][name] ?? place;
  const runs = runsOf(isThere).filter(({ value }) => value);
  const texts = runs.map(({ from, to }) => (from === to ? number(from) : `${number(from)}–${number(to)}`));
  return series.frames.length === 1 ? "" : `${name}${places.size > 1 ? "s" : ""} ${texts.join(", ")}`;
}

/**
 * List the flags of a series: which layer was flagged why and when, with the sentence and the samples.
 * @param {Series} series The series.
 * @param {(place: number) => void} goTo Shows the result at a place.
 * @returns {{nodes: Element[], show: (frame: Frame) => void}} The list, and how to mark what is flagged in a result.
 */
export function flagList(series, goTo) {
  const groups = new Map();
  for (const flag of series.flagsAt.flat()) {
    const name = `${flag.layer}${flag.ofReference ? " of the reference" : ""}`;
    const key = JSON.stringify([name, flag.reason]);
    if (!groups.has(key)) groups.set(key, { name, reason: flag.reason, flags: new Map() });
    groups.get(key).flags.set(flag.place, flag);
  }
  const items = [...groups.values()].map(({ name, reason, flags }) => {
    const sentence = h("p");
    const samples = h("p", { class: "muted" });
    const first = Math.min(...flags.keys());
    const go = h("button", { type: "button", onclick: () => goTo(first) }, "Show first");
    const time = h("span", { class: "muted" }, when(series, new Set(flags.keys())));
    const summary = h("summary", {}, h("span", { class: "mark" }, "⚠ "), h("b", {}, name), ` ${reason} `, time);
    const node = h("details", { class: "flag" }, summary, sentence, samples, go);
    const show = (frame) => {
      node.classList.toggle("now", flags.has(frame.index));
      const flag = flags.get(frame.index) ?? flags.get(first);
      sentence.textContent = flag.sentence;
      samples.textContent = flag.samples.length ? `Samples: ${flag.samples.join(", ")}` : "";
    };
    return { node, show };
  });
  const none = h("p", { class: "muted" }, "No layer is flagged.");
  const show = (frame) => items.forEach((item) => item.show(frame));
  return { nodes: items.length ? items.map(({ node }) => node) : [none], show };
}

/**
 * Return values as a table, for those who cannot see the heatmap.
 * @param {string} caption Text above the table.
 * @param {object[]} cells The cells, row by row, as `Panel.tableRows` returns them.
 * @returns {HTMLElement} The table.
 */
export function valueTable(caption, cells) {
  const width = cells.findLastIndex(({ layer }) => layer === cells[0].layer) + 1;
  const title = (text, scope) => h("th", { scope }, text);
  const columns = cells.slice(0, width).map((cell) => title(cell.reference_layer, "col"));
  const rows = [];
  for (let start = 0; start < cells.length; start += width) {
    const values = cells
      .slice(start, start + width)
      .map((cell) => h("td", {}, cell.change_change ?? (cell.value || "nan")));
    rows.push(h("tr", {}, title(cells[start].layer, "row"), ...values));
  }
  const head = h("thead", {}, h("tr", {}, title("layer", "col"), ...columns));
  return h("table", {}, h("caption", {}, caption), head, h("tbody", {}, ...rows));
}
