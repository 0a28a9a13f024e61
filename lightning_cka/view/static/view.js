/** `mount` shows a payload in an element of a page. */

import { cellTexts } from "./cell_text.js";
import { MAP_NAMES } from "./colours.js";
import { Controls } from "./controls.js";
import { curveFigure, legendFigure, runsOf } from "./curves.js";
import { h } from "./elements.js";
import { csvFile, pngFile, save, svgFile, wholeFigure } from "./exports.js";
import { valueTable } from "./lists.js";
import { momentsOf, readState, writeState } from "./moments.js";
import { filtered } from "./names.js";
import { PayloadError } from "./packed.js";
import { Panel } from "./panel.js";
import { readPayload } from "./series.js";

const MOST_RUNS = 4;
const PLAY_SECONDS = 10;
const COLOURS = ["paper", "ink", "muted", "line", "accent", "flag", "nan", "second", "third", "fourth"];
const LINES = ["accent", "second", "third", "fourth"];

const unique = (list) => [...new Set(list)];

/** A view of one payload. */
class View {
  /**
   * @param {HTMLElement} root Where the view is.
   * @param {object} content What `readPayload` returned.
   * @param {object} state A state of `readState`.
   * @param {object} options Options of `mount`, and `onError`.
   */
  constructor(root, content, state, options) {
    Object.assign(this, { root, content, state, options, panels: [], moments: [], place: 0, shown: null });
    this.series = content.runs.flatMap((run) => run.series);
    this.controls = new Controls({
      onChange: this.safely((change) => this.change(change)),
      onTime: this.safely((place) => this.goTo(place)),
      onPlay: this.safely(() => this.play(!this.playing)),
      onExport: this.safely((kind) => this.export(kind)),
    });
    this.build();
    const arrange = this.safely(() => this.arrange());
    this.observer = new ResizeObserver(arrange);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    const keys = this.safely((event) => this.key(event));
    const listeners = [
      [this.scheme, "change", arrange],
      [options.isWholePage ? document : root, "keydown", keys],
      [window, "hashchange", this.safely(() => this.readLink())],
    ];
    for (const [target, ...listener] of listeners) target.addEventListener(...listener);
    this.destroy = () => {
      this.play(false);
      this.observer.disconnect();
      for (const [target, ...listener] of listeners) target.removeEventListener(...listener);
    };
  }

  /**
   * Return a function that shows an error instead of raising it.
   * @param {(...values: any[]) => any} action The function; it may be asynchronous.
   * @returns {(...values: any[]) => Promise<void>} The safe function.
   */
  safely(action) {
    return async (...values) => {
      try {
        await action(...values);
      } catch (error) {
        this.options.onError(error);
      }
    };
  }

  /** Make the elements of the page. */
  build() {
    const { controls, content } = this;
    const title = (text) => h("h2", { "data-title": true }, text);
    const section = (name, label, ...children) => h("section", { class: name, "aria-label": label }, ...children);
    this.subtitle = h("p", { class: "subtitle", "data-title": true });
    this.legend = h("div", { class: "legend" });
    this.maps = h("div", { class: "panels" });
    this.layerTitle = title("");
    this.curve = h("div", { class: "curve", onpointerdown: this.safely((event) => this.pickTime(event)) });
    this.layerText = h("ul", { class: "text" });
    this.drifts = h("div", { class: "panels" });
    this.driftNote = h("p", { class: "muted", "data-title": true });
    this.drift = section("drift", "Drift", title("Drift"), this.drifts, this.driftNote);
    this.flags = h("div", { class: "flags" });
    this.table = h("div", { class: "table" });
    const onToggle = this.safely(() => this.drawTable());
    this.details = h(
      "details",
      { class: "values", ontoggle: onToggle },
      h("summary", {}, "Values as a table"),
      this.table,
    );
    this.tooltip = h("div", { class: "tooltip", role: "tooltip", hidden: true });
    this.live = h("div", { class: "hidden", "aria-live": "polite" });
    const heading = h("div", {}, h("h1", { "data-title": true }, content.title), this.subtitle);
    const notes = content.notes.map((note) => h("li", {}, note));
    const maps = section("maps", "Heatmap", this.legend, this.maps, controls.time, this.details);
    const layer = section("layer", "One layer over time", this.layerTitle, this.curve, this.layerText);
    const list = section("list", "Flags", h("h2", {}, "Flags"), this.flags);
    const side = h("div", { class: "side" }, h("div", {}, layer, this.drift), list);
    this.root.replaceChildren(
      h("header", {}, heading, controls.exports),
      h("ul", { class: "notes", role: "status" }, ...notes),
      controls.form,
      h("div", { class: "body" }, maps, side),
      this.tooltip,
      this.live,
    );
  }

  /** @param {object} change What the user changed of the state. */
  async change(change) {
    Object.assign(this.state, change);
    await this.refresh();
  }

  /** Show the state: choose the series, load them and draw. */
  async refresh() {
    const { state, content } = this;
    const runs = content.runs.map((run) => run.name);
    const references = unique(this.series.map((series) => series.reference));
    const measures = unique(this.series.map((series) => series.measure));
    if (!MAP_NAMES.includes(state.map)) state.map = "";
    if (!["fixed", "fitted"].includes(state.range)) state.range = "";
    state.runs = state.runs.filter((name) => runs.includes(name));
    if (!state.runs.length) state.runs = runs.slice(0, MOST_RUNS);
    if (!references.includes(state.reference)) state.reference = references[0];
    if (!measures.includes(state.measure)) state.measure = measures[0];
    const isChosen = ({ reference, measure }) => reference === state.reference && measure === state.measure;
    const chosen = content.runs.filter((run) => state.runs.includes(run.name));
    const found = chosen.map((run) => [run.name, run.series.find(isChosen)]).filter(([, series]) => series);
    const token = (this.token = {});
    await Promise.all(found.map(([, series]) => series.load()));
    if (token !== this.token) return;
    this.moments = found.length ? momentsOf(found.map(([, series]) => series)) : [];
    const moments = this.moments.map(({ text }) => text);
    if (!moments.includes(state.since)) state.since = "";
    this.place = moments.includes(state.at) ? moments.indexOf(state.at) : Math.max(0, moments.length - 1);
    this.controls.show(state, { runs, references, measures, moments });
    this.setPanels(found);
    this.arrange();
    this.observer.observe(this.root);
    this.remember();
  }

  /** @param {[string, Series][]} found Name of the run and series of each panel. */
  setPanels(found) {
    const isSame = ([, series], place) => series === this.panels[place]?.series;
    if (found.length && found.length === this.panels.length && found.every(isSame)) return;
    this.showCell(null);
    const listeners = {
      onCell: this.safely((...values) => this.onCell(...values)),
      onPick: this.safely((row, column) => this.change({ row: row === this.state.row ? "" : row, column })),
      onTime: this.safely((place) => this.goTo(place)),
      onResult: this.safely((panel, place) =>
        this.goTo(this.moments.findIndex(({ frames }) => frames[panel.index].index === place)),
      ),
    };
    const isSingle = this.content.runs.length < 2;
    this.panels = found.map(([name, series], index) => new Panel(isSingle ? "" : name, series, index, listeners));
    const name = (panel) => (isSingle ? [] : [h("h3", { "data-title": true }, panel.name)]);
    const none = h("p", { class: "muted" }, "No chosen run has this reference and this measure.");
    const maps = this.panels.map(({ title, map }) => h("figure", {}, title, map.root));
    this.maps.replaceChildren(...(maps.length ? maps : [none]));
    this.drifts.replaceChildren(...this.panels.map((panel) => h("figure", {}, ...name(panel), panel.drift.root)));
    this.flags.replaceChildren(...this.panels.flatMap((panel) => [...name(panel), ...panel.flags.nodes]));
  }

  /** Measure the room and the range of values, and draw all. */
  arrange() {
    this.root.classList.toggle("empty", !this.panels.length);
    if (!this.panels.length) return;
    const style = getComputedStyle(this.root);
    this.theme = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    const { state, theme, moments } = this;
    const base = moments.find(({ text }) => text === state.since)?.frames ?? null;
    const shared = { filter: state.layers, picked: state.row, theme, moments, base };
    for (const panel of this.panels) panel.arrange(shared);
    const names = this.panels.flatMap(({ series }) =>
      series.blocks.flatMap(({ rows, columns }) => [...rows, ...columns]),
    );
    this.controls.patterns.textContent = filtered(state.layers, names).length ? "" : "no layer matches";
    this.range = this.colourRange();
    this.drift.hidden = !this.panels.some((panel) => panel.hasDrift);
    const hasMarks = this.panels
      .filter((panel) => panel.hasDrift)
      .map((panel) => panel.arrangeDrift() ?? panel.driftContent);
    this.driftNote.textContent = hasMarks.some(({ marks }) => marks.length)
      ? "◇ from here within ±0.01 of the last value (95 %)"
      : "";
    this.draw();
  }

  /** @returns {boolean} Whether the colours fit the values; by default, those of changes do. */
  get isFitted() {
    return (this.state.range || (this.state.since ? "fitted" : "fixed")) === "fitted";
  }

  /** @returns {{map: string, low: number, high: number}} The colour map and the values at its ends. */
  colourRange() {
    const isChange = this.state.since !== "";
    const map = isChange ? "change" : this.state.map || "magma";
    if (!this.isFitted) return { map, low: isChange ? -1 : 0, high: 1 };
    const extremes = this.panels.map((panel) => panel.extremes());
    let [low, high] = [Math.min(...extremes.map(([one]) => one)), Math.max(...extremes.map(([, other]) => other))];
    if (!(low <= high)) [low, high] = [0, 1];
    if (isChange) [low, high] = [-Math.max(-low, high), Math.max(-low, high)];
    return high - low < 1e-4 ? { map, low: low - 0.005, high: high + 0.005 } : { map, low, high };
  }

  /** Draw the moment. */
  draw() {
    const { range, theme, state } = this;
    const { text, frames } = this.moments[this.place];
    this.controls.showTime(this.place, this.moments);
    const change = state.since ? `: change since ${state.since}` : "";
    const { measure } = this.panels[0].series;
    this.subtitle.textContent = `${measure} of ${frames[0].model} with ${frames[0].reference}, ${text}${change}`;
    this.legend.replaceChildren(legendFigure({ range, theme, title: state.since ? `change of ${measure}` : measure }));
    for (const panel of this.panels) {
      panel.drawMap(frames[panel.index], range);
      if (panel.hasDrift) panel.drawDrift(this.place, range);
      panel.flags.show(panel.frame);
    }
    this.drawLayer();
    if (this.shown) this.showCell(this.shown);
    if (this.details.open) this.drawTable();
  }

  /** Draw the curve of the chosen layer, or the mean over layers. */
  drawLayer() {
    const { row, column } = this.state;
    const lines = [];
    const strips = [];
    const texts = [];
    this.panels.forEach((panel, index) => {
      const colour = this.theme[LINES[index % LINES.length]];
      const frames = this.moments.map((moment) => moment.frames[index]);
      const cellOf = (frame, name) => [frame.rows.indexOf(row), frame.columns.indexOf(name)];
      const point = (frame, cell) => (cell && cell[0] >= 0 && cell[1] >= 0 ? frame.cell(...cell) : { value: NaN });
      const isPair = (frame) => String(frame.block.pairOfName.get(row)) === String(cellOf(frame, column));
      if (!row) lines.push({ colour, points: frames.map(({ mean }) => ({ value: mean ?? NaN, low: NaN, high: NaN })) });
      else lines.push({ colour, points: frames.map((frame) => point(frame, frame.block.pairOfName.get(row))) });
      if (!row) return;
      if (column && !frames.every(isPair)) {
        lines.push({ colour, isDashed: true, points: frames.map((frame) => point(frame, cellOf(frame, column))) });
      }
      const alike = frames.map((frame) => frame.mostAlike(frame.rows.indexOf(row), panel.series.isSelf));
      strips.push({ alike, columns: frames.at(-1).columns.length });
      const names = runsOf(alike.map((place, at) => frames[at].columns[place] ?? "nothing (nan)"));
      const whose = panel.name ? `${panel.name}: ` : "";
      const items = names.map((run) =>
        h("li", {}, `${whose}most alike to `, h("b", {}, run.value), `, ${this.when(run)}`),
      );
      texts.push(...items);
    });
    const dashed = lines.some((line) => line.isDashed) ? `; dashed: with ${column}` : "";
    this.layerTitle.textContent = row ? `${row} over time${dashed}` : "Mean over time. Click a row for its curve.";
    this.layerText.replaceChildren(...texts);
    const points = lines.flatMap((line) => line.points).flatMap(({ value, low, high }) => [value, low, high]);
    const known = points.filter((value) => value !== undefined && !Number.isNaN(value));
    const isFixed = !this.isFitted || this.state.since || !known.length;
    const [low, high] = isFixed ? [0, 1] : [Math.min(...known), Math.max(...known)];
    const content = {
      lines,
      strips,
      low: Math.min(low, ...known),
      high,
      moments: this.moments.map(({ name, number }) => `${name} ${number}`),
    };
    const size = { width: this.curve.clientWidth, height: 190 + 16 * strips.length };
    this.curveSvg = curveFigure({ ...content, ...size, theme: this.theme, cursor: this.place });
    this.curve.replaceChildren(this.curveSvg);
  }

  /**
   * Return some moments in words.
   * @param {{from: number, to: number}} run Places of the first and the last one.
   * @returns {string} Such as "epochs 3–7".
   */
  when({ from, to }) {
    const [one, other] = [this.moments[from], this.moments[to]];
    return from === to ? `${one.name} ${one.number}` : `${one.name}s ${one.number}–${other.number}`;
  }

  /** @param {PointerEvent} event A click on the curve, which goes to its moment. */
  pickTime(event) {
    this.goTo(this.curveSvg.placeAt(event.clientX - this.curve.getBoundingClientRect().left));
  }

  /**
   * Tell about the cell under pointer or focus.
   * @param {Panel} panel The panel.
   * @param {Grid} grid Its heatmap or its drift map.
   * @param {(cell: [number, number]) => object} lookUp See `Panel`.
   * @param {[number, number] | null} cell The cell in the figure; null for none.
   * @param {boolean} isKey Whether the keyboard chose it.
   */
  onCell(panel, grid, lookUp, cell, isKey) {
    this.showCell(cell && { panel, grid, lookUp });
    if (cell && isKey) this.live.textContent = this.tooltip.innerText;
  }

  /** @param {{panel: Panel, grid: Grid, lookUp: Function} | null} shown What the tooltip shows. */
  showCell(shown) {
    this.shown = shown?.grid.cell ? shown : null;
    const found = this.shown && shown.lookUp(shown.grid.cell);
    this.tooltip.hidden = !found?.cell;
    if (this.tooltip.hidden) return;
    const { frame, cell } = found;
    const { series, base } = shown.panel;
    const names = [h("b", {}, frame.rows[cell[0]]), ` of ${frame.model}`, h("br"), h("b", {}, frame.columns[cell[1]])];
    const lines = cellTexts(series, frame, base, cell);
    const list = lines.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]);
    const head = h("p", {}, ...names, ` of ${frame.reference}`);
    this.tooltip.replaceChildren(head, h("p", { class: "muted" }, frame.moment), h("dl", {}, ...list));
    const { x, y } = shown.grid.cellPlace();
    const { offsetWidth: width, offsetHeight: height } = this.tooltip;
    const left = x + 14 + width < innerWidth ? x + 14 : Math.max(4, x - 14 - width);
    const top = Math.min(Math.max(4, y - height / 2), Math.max(4, innerHeight - height - 4));
    Object.assign(this.tooltip.style, { left: `${left}px`, top: `${top}px` });
  }

  /** Fill the table of values, if it is open. */
  drawTable() {
    if (!this.details.open) return;
    const tables = this.panels.map((panel) =>
      valueTable(`${panel.title.textContent}, ${panel.frame.moment}`, panel.tableRows()),
    );
    this.table.replaceChildren(...tables);
  }

  /** @param {number} place Place of the moment to show. */
  goTo(place) {
    const next = Math.min(this.moments.length - 1, Math.max(0, place));
    this.place = next;
    // At the end, the view stays at the end while results are added.
    this.state.at = next === this.moments.length - 1 ? "" : this.moments[next].text;
    this.draw();
    this.remember();
  }

  /** @param {boolean} isOn Whether to play. */
  play(isOn) {
    cancelAnimationFrame(this.request);
    this.playing = isOn && this.moments.length > 1;
    this.controls.showPlaying(this.playing);
    if (!this.playing) return;
    const wait = Math.min(300, (1000 * PLAY_SECONDS) / this.moments.length);
    let [place, last] = [this.place === this.moments.length - 1 ? -1 : this.place, -Infinity];
    const step = this.safely((now) => {
      if (now - last >= wait) {
        last = Number.isFinite(last) && now - last < 2 * wait ? last + wait : now;
        this.goTo(++place);
      }
      if (place >= this.moments.length - 1) this.play(false);
      else this.request = requestAnimationFrame(step);
    });
    this.request = requestAnimationFrame(step);
  }

  /** @param {KeyboardEvent} event A key: left and right move in time, and the space bar plays. */
  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    const hasOwnKeys = event.target.closest?.("input, select, button, summary, a, [contenteditable]");
    if (hasOwnKeys || event.ctrlKey || event.altKey || event.metaKey || !this.panels.length) return;
    if (event.key in moves) this.goTo(this.place + moves[event.key]);
    else if (event.key === " ") this.play(!this.playing);
    else return;
    event.preventDefault();
  }

  /** Put the state into links, a moment after the last change: browsers limit how often an address may change. */
  remember() {
    const link = writeState(this.state);
    this.controls.link.setAttribute("href", link);
    clearTimeout(this.timer);
    if (this.options.isWholePage) this.timer = setTimeout(() => history.replaceState(null, "", link), 300);
  }

  /** Show the state of the address. */
  async readLink() {
    if (this.options.isWholePage && location.hash !== writeState(this.state))
      await this.change(readState(location.hash));
  }

  /** @param {string} kind "png", "svg" or "csv". */
  async export(kind) {
    const name = `cka-${this.moments[this.place].text.replace(/\W+/g, "-")}.${kind}`;
    if (kind === "csv") {
      const rows = this.panels.flatMap((panel) => panel.tableRows());
      const { reference, measure } = this.state;
      save(csvFile(rows.map(({ run, ...row }) => ({ run, reference, measure, ...row }))), name);
      return;
    }
    const grids = this.panels.flatMap((panel) => [panel.map, ...(panel.hasDrift ? [panel.drift] : [])]);
    const figures = grids.map((grid) => ({ node: grid.root, draw: () => grid.toSvg() }));
    for (const node of [this.legend.firstChild, this.curveSvg])
      figures.push({ node, draw: () => node.cloneNode(true) });
    const figure = wholeFigure(this.root, figures, this.theme.paper);
    save(kind === "svg" ? svgFile(figure) : await pngFile(figure), name);
  }
}

/**
 * Show a payload in an element of a page. If the payload is damaged, a message says so.
 * @param {HTMLElement} element The element, which must be empty.
 * @param {any} payload The payload of `lightning_cka.view.payload.view_payload`, or its JSON text.
 * @param {{isWholePage?: boolean}} options Whether its address and its keys are the view's.
 * @returns {{update: (payload: any) => void, destroy: () => void}} `update` shows another payload in the same state.
 */
export function mount(element, payload, options = {}) {
  const root = h("div", { class: "cka-view" });
  element.append(root);
  let view = null;
  const onError = (error) => {
    const text =
      error instanceof PayloadError ? `These results cannot be shown: ${error.message}.` : `The view failed: ${error}`;
    view?.destroy();
    root.replaceChildren(h("p", { class: "problem", role: "alert" }, text));
  };
  const update = (given) => {
    const state = view?.state ?? readState(options.isWholePage ? location.hash : "");
    view?.destroy();
    try {
      const content = readPayload(typeof given === "string" ? parsed(given) : given);
      const none = content.notes.concat("there are no results").join("; ");
      if (!content.runs.length) throw new PayloadError(none);
      view = new View(root, content, state, { ...options, onError });
      view.safely(() => view.refresh())();
    } catch (error) {
      onError(error);
    }
  };
  update(payload);
  return { update, destroy: () => view?.destroy() };
}

/**
 * Parse JSON.
 * @param {string} text The text.
 * @returns {any} The values.
 */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PayloadError(`they are not JSON (${error.message})`);
  }
}
