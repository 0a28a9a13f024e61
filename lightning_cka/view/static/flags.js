/** `FlagList`: which layer was flagged why and when, with the sentence and the samples. */

import { runsOf } from "./curves.js";
import { h, setChildren } from "./elements.js";

/** Return in words at which places of a series something was the case, such as "epochs 3–7, 9". */
function when({ frames }, places) {
  if (frames.length === 1) return "";
  const name = frames.every(({ epoch }) => epoch !== null) ? "epoch" : "step";
  const number = (place) => frames[place][name] ?? place;
  const runs = runsOf(frames.map((frame) => places.has(frame.index))).filter(({ value }) => value);
  const texts = runs.map(({ from, to }) => (from === to ? number(from) : `${number(from)}–${number(to)}`));
  return `${name}${places.size > 1 ? "s" : ""} ${texts.join(", ")}`;
}

/** One entry: the flags of a layer that have the same reason, by place in the series. */
class Entry {
  constructor(layer, reason, goTo) {
    [this.time, this.sentence, this.samples] = [h("span", { class: "muted" }), h("p"), h("p", { class: "muted" })];
    const mark = h("span", { class: "mark" }, "⚠ ");
    const button = h("button", { type: "button", onclick: () => goTo(this.first) }, "Show first");
    const summary = h("summary", {}, mark, h("b", {}, layer), ` ${reason} `, this.time);
    this.node = h("details", { class: "flag" }, summary, this.sentence, this.samples, button);
  }

  /** Take the flags. */
  update(series, flags) {
    Object.assign(this, { flags, first: Math.min(...flags.keys()), shown: null });
    this.time.textContent = when(series, flags);
  }

  /** Show the flag of a result, or else the first one. */
  show({ index }) {
    this.node.classList.toggle("now", this.flags.has(index));
    const flag = this.flags.get(index) ?? this.flags.get(this.first);
    if (flag === this.shown) return;
    this.shown = flag;
    this.sentence.textContent = flag.sentence;
    this.samples.textContent = flag.samples.length ? `Samples: ${flag.samples.join(", ")}` : "";
  }
}

/** The flags of a series. `goTo` shows the result at a place. */
export class FlagList {
  constructor(goTo) {
    Object.assign(this, { goTo, entries: new Map(), root: h("div"), title: h("h3") });
    this.none = h("p", { class: "muted" }, "No layer is flagged.");
  }

  /** List the flags of a series. Entries that are there already stay open or closed. */
  update(name, series) {
    const found = new Map();
    for (const flag of series.flagsAt.flat()) {
      const layer = `${flag.layer}${flag.ofReference ? " of the reference" : ""}`;
      const key = JSON.stringify([layer, flag.reason]);
      if (!found.has(key)) found.set(key, { layer, reason: flag.reason, flags: new Map() });
      found.get(key).flags.set(flag.place, flag);
    }
    const before = this.entries;
    this.entries = new Map();
    for (const [key, { layer, reason, flags }] of found) {
      const entry = before.get(key) ?? new Entry(layer, reason, this.goTo);
      entry.update(series, flags);
      this.entries.set(key, entry);
    }
    this.title.textContent = name;
    const nodes = [...this.entries.values()].map(({ node }) => node);
    setChildren(this.root, [this.title, ...(nodes.length ? nodes : [this.none])]);
  }

  /** Mark what is flagged in a result. */
  show(frame) {
    for (const entry of this.entries.values()) entry.show(frame);
  }
}
