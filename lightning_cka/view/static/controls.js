/** The controls of a view. */

import { MAP_NAMES } from "./colours.js";
import { h, setChildren } from "./elements.js";

const LISTS = {
  reference: "Reference",
  measure: "Measure",
  since: "Change since",
  range: "Colours",
  map: "Colour map",
};

/** Give a list to choose from its pairs of value and text, and the chosen value. A list that is open stays open. */
function setOptions(select, options, value) {
  options.forEach(([key, text], place) => {
    if (select[place]?.textContent !== text) select[place] = new Option(text, key);
  });
  select.length = options.length;
  select.value = value;
}

const same = (names) => names.map((name) => [name, name]);

/** All controls. They call methods of the view. */
export class Controls {
  constructor(view) {
    const field = (text, ...nodes) => h("label", { class: "field" }, h("span", {}, text), ...nodes);
    this.lists = {};
    const lists = Object.entries(LISTS).map(([name, text]) => {
      this.lists[name] = h("select", { onchange: (event) => view.refresh({ [name]: event.target.value }) });
      return field(text, this.lists[name]);
    });
    const onInput = () => view.refresh({ layers: this.layers.value });
    this.layers = h("input", { type: "search", placeholder: "net.*  !**.norm", spellcheck: "false", oninput: onInput });
    this.problem = h("span", { class: "hint", role: "status" });
    lists.splice(2, 0, field("Layers", this.layers, this.problem));
    this.boxes = new Map();
    this.legend = h("legend", {}, "Runs");
    const chosen = () => [...this.boxes.values()].filter((box) => box.checked).map((box) => box.value);
    this.runs = h("fieldset", { class: "runs", onchange: () => view.refresh({ runs: chosen() }) });
    this.form = h("form", { class: "controls", onsubmit: (event) => event.preventDefault() }, this.runs, ...lists);
    const button = (text) => h("button", { type: "button", onclick: () => view.export(text.toLowerCase()) }, text);
    const hidden = location.protocol === "about:"; // In such a frame, the link would open the page around it.
    this.link = h("a", { href: "#", hidden }, "Link");
    const group = { class: "exports", role: "group", "aria-label": "Save what is seen" };
    this.exports = h("div", group, ...["PNG", "SVG", "CSV"].map(button), this.link);
    this.play = h("button", { type: "button", class: "play", onclick: () => view.play(!view.playing) });
    this.showPlaying(false);
    const onSlide = () => view.goTo(Number(this.slider.value));
    this.slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Time", oninput: onSlide });
    this.moment = h("output", { class: "moment" });
    this.time = h("div", { class: "time" }, this.play, this.slider, this.moment);
  }

  /** Show a state, with the names to choose from. */
  show(state, { runs, references, measures, moments }) {
    const { reference, measure, since, range, map } = this.lists;
    const isChange = state.since !== "";
    setOptions(reference, same(references), state.reference);
    setOptions(measure, same(measures), state.measure);
    setOptions(since, [["", "show values"], ...same(moments)], state.since);
    const ranges = { fixed: isChange ? "−1 to 1" : "0 to 1", fitted: "fitted" };
    setOptions(range, Object.entries(ranges), state.range || (isChange ? "fitted" : "fixed"));
    setOptions(map, same(MAP_NAMES), state.map);
    map.disabled = isChange;
    if (this.layers.value !== state.layers) this.layers.value = state.layers;
    this.runs.hidden = runs.length < 2;
    const before = this.boxes;
    this.boxes = new Map(runs.map((name) => [name, before.get(name) ?? h("input", { type: "checkbox", value: name })]));
    for (const box of this.boxes.values()) {
      box.checked = state.runs.includes(box.value);
      if (!box.parentNode) h("label", {}, box, h("span", {}, box.value));
    }
    setChildren(this.runs, [this.legend, ...[...this.boxes.values()].map((box) => box.parentNode)]);
  }

  /** Show whether time moves by itself. */
  showPlaying(isPlaying) {
    this.play.textContent = isPlaying ? "❚❚" : "▶";
    this.play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  }

  /** Show the moment at a place. */
  showTime(place, moments) {
    this.slider.max = moments.length - 1;
    this.slider.value = place;
    this.slider.setAttribute("aria-valuetext", moments[place].text);
    this.moment.textContent = moments[place].text;
    this.time.classList.toggle("single", moments.length < 2);
  }
}
