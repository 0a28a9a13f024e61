/** The controls of a view. */

import { MAP_NAMES } from "./colours.js";
import { h } from "./elements.js";

/**
 * Make a list to choose from.
 * @param {string} name Text of the label.
 * @param {(value: string) => void} onChoice Called with the chosen value.
 * @returns {{node: HTMLElement, show: (options: [string, string][], value: string) => void}} The list with its label.
 */
function choice(name, onChoice) {
  const select = h("select", { onchange: () => onChoice(select.value) });
  const show = (options, value) => {
    const isSame = options.length === select.length && options.every(([key], place) => select[place].value === key);
    if (!isSame) select.replaceChildren(...options.map(([key, text]) => h("option", { value: key }, text)));
    select.value = value;
  };
  return { node: h("label", { class: "field" }, h("span", {}, name), select), select, show };
}

/** All controls, which tell the view what the user changes. */
export class Controls {
  /** @param {object} listeners `onChange(state)`, `onTime(place)`, `onPlay()` and `onExport(kind)`. */
  constructor({ onChange, onTime, onPlay, onExport }) {
    const list = (name, field) => choice(name, (value) => onChange({ [field]: value }));
    this.reference = list("Reference", "reference");
    this.measure = list("Measure", "measure");
    this.since = list("Change since", "since");
    this.range = list("Colours", "range");
    this.map = list("Colour map", "map");
    this.layers = h("input", {
      type: "search",
      placeholder: "net.*  !**.norm",
      spellcheck: "false",
      "aria-describedby": "cka-patterns",
      oninput: () => onChange({ layers: this.layers.value }),
    });
    this.patterns = h("span", { class: "hint", id: "cka-patterns" });
    const layers = h("label", { class: "field" }, h("span", {}, "Layers"), this.layers, this.patterns);
    this.runs = h("fieldset", { class: "runs" });
    this.onRuns = (runs) => onChange({ runs });
    const lists = [this.reference, this.measure, this.since, this.range, this.map].map(({ node }) => node);
    lists.splice(2, 0, layers);
    this.form = h("form", { class: "controls", onsubmit: (event) => event.preventDefault() }, this.runs, ...lists);
    const kinds = { png: "PNG", svg: "SVG", csv: "CSV" };
    const button = ([kind, text]) => h("button", { type: "button", onclick: () => onExport(kind) }, text);
    this.link = h("a", { href: "#", onclick: () => onExport("link") }, "Link");
    const names = { class: "exports", role: "group", "aria-label": "Save what is seen" };
    this.exports = h("div", names, ...Object.entries(kinds).map(button), this.link);
    this.play = h("button", { type: "button", class: "play", "aria-label": "Play", onclick: onPlay }, "▶");
    const slider = {
      type: "range",
      min: 0,
      step: 1,
      "aria-label": "Time",
      oninput: () => onTime(Number(this.slider.value)),
    };
    this.slider = h("input", slider);
    this.moment = h("output", { class: "moment" });
    this.time = h("div", { class: "time" }, this.play, this.slider, this.moment);
  }

  /**
   * Show a state.
   * @param {object} state The state of the view.
   * @param {object} options Names of `runs`, `references` and `measures`, and the `moments` to compare with.
   */
  show(state, { runs, references, measures, moments }) {
    const same = (names) => names.map((name) => [name, name]);
    this.reference.show(same(references), state.reference);
    this.measure.show(same(measures), state.measure);
    this.since.show([["", "show values"], ...same(moments)], state.since);
    const fixed = state.since ? "−1 to 1" : "0 to 1";
    this.range.show(Object.entries({ fixed, fitted: "fitted" }), state.range || (state.since ? "fitted" : "fixed"));
    this.range.select[0].textContent = fixed;
    this.map.show(same(MAP_NAMES), state.map || MAP_NAMES[0]);
    this.map.select.disabled = state.since !== "";
    if (this.layers.value !== state.layers) this.layers.value = state.layers;
    this.runs.hidden = runs.length < 2;
    if (this.runs.childElementCount !== runs.length + 1) {
      const box = (name) =>
        h("input", { type: "checkbox", value: name, onchange: () => this.onRuns(this.chosenRuns()) });
      const boxes = runs.map((name) => h("label", {}, box(name), h("span", {}, name)));
      this.runs.replaceChildren(h("legend", {}, "Runs"), ...boxes);
    }
    for (const box of this.runs.querySelectorAll("input")) box.checked = state.runs.includes(box.value);
  }

  /** @returns {string[]} Names of the runs whose boxes are checked. */
  chosenRuns() {
    return [...this.runs.querySelectorAll("input:checked")].map((box) => box.value);
  }

  /** @param {boolean} isPlaying Whether time moves by itself. */
  showPlaying(isPlaying) {
    this.play.textContent = isPlaying ? "❚❚" : "▶";
    this.play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  }

  /**
   * Show a moment.
   * @param {number} place Its place.
   * @param {{text: string}[]} moments All moments.
   */
  showTime(place, moments) {
    this.slider.max = moments.length - 1;
    this.slider.value = place;
    this.slider.setAttribute("aria-valuetext", moments[place].text);
    this.moment.textContent = moments[place].text;
    this.time.classList.toggle("single", moments.length < 2);
  }
}
