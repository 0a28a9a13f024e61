/** The controls of a view. */

import { MAP_NAMES } from "./colours.js";
import { h } from "./elements.js";

/** Make a list to choose from, with its label. `show` takes pairs of value and text, and the chosen value. */
function choice(name, onChoice) {
  const select = h("select", { onchange: () => onChoice(select.value) });
  const show = (options, value) => {
    const isSame = options.length === select.length && options.every(([, text], at) => select[at].text === text);
    if (!isSame) select.replaceChildren(...options.map(([key, text]) => h("option", { value: key }, text)));
    select.value = value;
  };
  return { node: h("label", { class: "field" }, h("span", {}, name), select), select, show };
}

const same = (names) => names.map((name) => [name, name]);

/** All controls. They call `onChange(state)`, `onTime(place)`, `onPlay()` and `onExport(kind)`. */
export class Controls {
  constructor({ onChange, onTime, onPlay, onExport }) {
    const list = (name, field) => choice(name, (value) => onChange({ [field]: value }));
    this.reference = list("Reference", "reference");
    this.measure = list("Measure", "measure");
    this.since = list("Change since", "since");
    this.range = list("Colours", "range");
    this.map = list("Colour map", "map");
    const onInput = () => onChange({ layers: this.layers.value });
    this.layers = h("input", { type: "search", placeholder: "net.*  !**.norm", spellcheck: "false", oninput: onInput });
    this.problem = h("span", { class: "hint", role: "status" });
    const layers = h("label", { class: "field" }, h("span", {}, "Layers"), this.layers, this.problem);
    this.runs = h("fieldset", { class: "runs", onchange: () => onChange({ runs: this.chosenRuns() }) });
    const [reference, measure, ...others] = [this.reference, this.measure, this.since, this.range, this.map];
    const fields = [reference.node, measure.node, layers, ...others.map(({ node }) => node)];
    this.form = h("form", { class: "controls", onsubmit: (event) => event.preventDefault() }, this.runs, ...fields);
    const button = (text) => h("button", { type: "button", onclick: () => onExport(text.toLowerCase()) }, text);
    const hidden = location.protocol === "about:"; // In such a frame, the link would open the page around it.
    this.link = h("a", { href: "#", hidden }, "Link");
    const group = { class: "exports", role: "group", "aria-label": "Save what is seen" };
    this.exports = h("div", group, ...["PNG", "SVG", "CSV"].map(button), this.link);
    this.play = h("button", { type: "button", class: "play", "aria-label": "Play", onclick: onPlay }, "▶");
    const onSlide = () => onTime(Number(this.slider.value));
    this.slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Time", oninput: onSlide });
    this.moment = h("output", { class: "moment" });
    this.time = h("div", { class: "time" }, this.play, this.slider, this.moment);
  }

  /** Show a state, with the names to choose from. */
  show(state, { runs, references, measures, moments }) {
    this.reference.show(same(references), state.reference);
    this.measure.show(same(measures), state.measure);
    this.since.show([["", "show values"], ...same(moments)], state.since);
    const fixed = state.since ? "−1 to 1" : "0 to 1";
    this.range.show(Object.entries({ fixed, fitted: "fitted" }), state.range || (state.since ? "fitted" : "fixed"));
    this.map.show(same(MAP_NAMES), state.map || MAP_NAMES[0]);
    this.map.select.disabled = state.since !== "";
    if (this.layers.value !== state.layers) this.layers.value = state.layers;
    this.runs.hidden = runs.length < 2;
    if (this.runs.childElementCount !== runs.length + 1) {
      const box = (name) => h("label", {}, h("input", { type: "checkbox", value: name }), h("span", {}, name));
      this.runs.replaceChildren(h("legend", {}, "Runs"), ...runs.map(box));
    }
    for (const box of this.runs.querySelectorAll("input")) box.checked = state.runs.includes(box.value);
  }

  /** Names of the runs whose boxes are checked. */
  chosenRuns() {
    return [...this.runs.querySelectorAll("input:checked")].map((box) => box.value);
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
