/** The lists of a view: its flags, and its values as a table. */

import { runsOf } from "./curves.js";
import { h } from "./elements.js";

/** Return in words at which places of a series something was the case, such as "epochs 3–7, 9". */
function when({ frames }, places) {
  if (frames.length === 1) return "";
  const name = frames.every(({ epoch }) => epoch !== null) ? "epoch" : "step";
  const number = (place) => frames[place][name] ?? place;
  const runs = runsOf(frames.map((frame) => places.has(frame.index))).filter(({ value }) => value);
  const texts = runs.map(({ from, to }) => (from === to ? number(from) : `${number(from)}–${number(to)}`));
  return `${name}${places.size > 1 ? "s" : ""} ${texts.join(", ")}`;
}

/**
 * List the flags of a series: which layer was flagged why and when, with the sentence and the samples. Return the
 * elements, and a function that marks what is flagged in a result. `goTo` shows the result at a place.
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
    const [sentence, samples] = [h("p"), h("p", { class: "muted" })];
    const first = Math.min(...flags.keys());
    const go = h("button", { type: "button", onclick: () => goTo(first) }, "Show first");
    const time = h("span", { class: "muted" }, when(series, flags));
    const summary = h("summary", {}, h("span", { class: "mark" }, "⚠ "), h("b", {}, name), ` ${reason} `, time);
    const node = h("details", { class: "flag" }, summary, sentence, samples, go);
    let shown = null;
    const show = ({ index }) => {
      node.classList.toggle("now", flags.has(index));
      const flag = flags.get(index) ?? flags.get(first);
      if (flag === shown) return;
      shown = flag;
      sentence.textContent = flag.sentence;
      samples.textContent = flag.samples.length ? `Samples: ${flag.samples.join(", ")}` : "";
    };
    return { node, show };
  });
  const none = h("p", { class: "muted" }, "No layer is flagged.");
  const show = (frame) => items.forEach((item) => item.show(frame));
  return { nodes: items.length ? items.map(({ node }) => node) : [none], show };
}

/** Return the rows of `Panel.tableRows` as a table, for those who cannot see the heatmap. */
export function valueTable(caption, cells) {
  const width = cells.findLastIndex(({ layer }) => layer === cells[0].layer) + 1;
  const title = (text, scope) => h("th", { scope }, text);
  const columns = cells.slice(0, width).map((cell) => title(cell.reference_layer, "col"));
  const rows = cells.slice(0, cells.length / width).map((_, row) => {
    const own = cells.slice(row * width, (row + 1) * width);
    const values = own.map((cell) => h("td", {}, cell.change_change ?? (cell.value || "nan")));
    return h("tr", {}, title(own[0].layer, "row"), ...values);
  });
  const head = h("thead", {}, h("tr", {}, title("layer", "col"), ...columns));
  return h("table", {}, h("caption", {}, caption), head, h("tbody", {}, ...rows));
}
