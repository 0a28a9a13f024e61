/** `mount` shows a payload in an element of a page. */

import { cellTexts } from "./cell_text.js";
import { MAP_NAMES } from "./colours.js";
import { Controls } from "./controls.js";
import { curveFigure, legendFigure } from "./curves.js";
import { h, setChildren, widthOf } from "./elements.js";
import { csvFile, pngFile, save, svgFile, wholeFigure } from "./exports.js";
import { layerHistory } from "./layer.js";
import { momentsOf, readState, writeState } from "./moments.js";
import { filtered } from "./names.js";
import { Panel } from "./panel.js";
import { PayloadError, readPayload } from "./series.js";

const MOST_RUNS = 4;
const PLAY_SECONDS = 8;

const section = (name, label, ...children) => h("section", { class: name, "aria-label": label }, ...children);
const title = (text) => h("h2", { "data-title": true }, text);
const part = (name) => h("div", { class: name });

/** A view of payloads, one after the other. `state` is what `readState` returned. */
class View {
  constructor(root, state) {
    Object.assign(this, { root, state, content: null, panels: [], moments: [], place: 0, shown: null });
    this.controls = new Controls(this);
    this.elements = this.build();
    new ResizeObserver(() => this.size !== this.currentSize() && this.arrange()).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.arrange());
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("hashchange", () => {
      if (location.hash !== writeState(this.state)) this.refresh(readState(location.hash));
    });
  }

  /** Make the elements of the page. */
  build() {
    const { controls } = this;
    this.title = h("h1", { "data-title": true });
    this.subtitle = h("p", { class: "subtitle", "data-title": true });
    this.notes = h("ul", { class: "notes", role: "status" });
    [this.legend, this.maps, this.drifts, this.flags] = ["legend", "panels", "panels", "flags"].map(part);
    this.none = h("p", { class: "muted" }, "No chosen run has this reference and this measure.");
    this.layerTitle = title("");
    this.curve = h("div", { class: "curve", onpointerdown: (event) => this.pickTime(event) });
    this.layerText = h("ul", { class: "text" });
    this.drift = section("drift", "Drift", title("Drift"), this.drifts);
    this.tooltip = h("div", { class: "tooltip", role: "tooltip", hidden: true });
    this.live = h("div", { class: "hidden", "aria-live": "polite" });
    const header = h("header", {}, h("div", {}, this.title, this.subtitle), controls.exports);
    const maps = section("maps", "Heatmap", this.legend, this.maps, controls.time);
    const layer = section("layer", "One layer over time", this.layerTitle, this.curve, this.layerText);
    const list = section("list", "Flags", h("h2", {}, "Flags"), this.flags);
    const side = h("div", { class: "side" }, h("div", {}, layer, this.drift), list);
    return [header, this.notes, controls.form, h("div", { class: "body" }, maps, side), this.tooltip, this.live];
  }

  /** Change the state or the payload: choose the series, load them and draw. If this fails, a message says so. */
  async refresh(change, payload) {
    try {
      if (payload !== undefined) this.content = readPayload(payload);
      Object.assign(this.state, change);
      const token = (this.token = {});
      const found = this.chosen();
      await Promise.all(found.map(([, series]) => series.load()));
      if (token === this.token) this.show(found);
    } catch (error) {
      this.play(false);
      const text = error instanceof PayloadError ? error.message : `they are damaged (${error.message})`;
      const message = `These results cannot be shown: ${text}.`;
      this.root.replaceChildren(h("p", { class: "problem", role: "alert" }, message));
    }
  }

  /** Replace unknown names in the state, and return names and series of the runs to show. */
  chosen() {
    const { state } = this;
    const { runs } = this.content;
    const all = runs.flatMap((run) => run.series);
    const names = (field) => [...new Set(all.map((series) => series[field]))];
    const known = {
      reference: names("reference"),
      measure: names("measure"),
      map: MAP_NAMES,
      range: ["", "fixed", "fitted"],
    };
    for (const [field, list] of Object.entries(known)) if (!list.includes(state[field])) [state[field]] = list;
    const runNames = runs.map(({ name }) => name);
    state.runs = state.runs.filter((name) => runNames.includes(name));
    if (!state.runs.length) state.runs = runNames.slice(0, MOST_RUNS);
    this.choices = { runs: runNames, references: known.reference, measures: known.measure };
    const isChosen = ({ reference, measure }) => reference === state.reference && measure === state.measure;
    const found = runs.map(({ name, series }) => [name, series.find(isChosen)]);
    return found.filter(([name, series]) => series && state.runs.includes(name));
  }

  /** Show these runs, whose series are loaded. What stays on the page keeps its focus. */
  show(found) {
    const { state, root, content, controls } = this;
    if (root.firstChild !== this.elements[0]) root.replaceChildren(...this.elements);
    this.title.textContent = content.title;
    const notes = content.notes.map((note) => h("li", {}, note));
    if (this.notes.textContent !== content.notes.join("")) this.notes.replaceChildren(...notes);
    this.moments = found.length ? momentsOf(found.map(([, series]) => series)) : [];
    const moments = this.moments.map(({ text }) => text);
    if (!moments.includes(state.since)) state.since = "";
    this.place = moments.includes(state.at) ? moments.indexOf(state.at) : Math.max(0, moments.length - 1);
    controls.show(state, { ...this.choices, moments });
    const isSingle = content.runs.length < 2;
    this.panels = found.map(([name, series], place) => {
      const panel = this.panels[place] ?? new Panel(this, place);
      panel.update(isSingle ? "" : name, series);
      return panel;
    });
    const nodes = (name) => this.panels.map((panel) => panel[name]);
    setChildren(this.maps, found.length ? nodes("mapFigure") : [this.none]);
    setChildren(this.drifts, nodes("driftFigure"));
    setChildren(this.flags, nodes("flagNode"));
    if (!this.panels.includes(this.shown?.panel)) this.shown = null;
    this.arrange();
    this.remember();
  }

  /** The sizes that the places of figures depend on. */
  currentSize() {
    return `${this.root.clientWidth} ${innerHeight}`;
  }

  /** Measure the room and the range of values, and draw all. */
  arrange() {
    const { root, state, moments, panels } = this;
    this.size = this.currentSize();
    root.classList.toggle("empty", !panels.length);
    if (!panels.length) return;
    const base = moments.find(({ text }) => text === state.since)?.frames ?? null;
    for (const panel of panels) panel.arrange({ filter: state.layers, picked: state.row, moments, base });
    const names = panels.flatMap(({ series }) => series.layers.flatMap(({ rows, columns }) => [...rows, ...columns]));
    this.controls.problem.textContent = filtered(state.layers, names).length ? "" : "no layer matches";
    this.range = { ...this.colourRange(), nan: getComputedStyle(root).getPropertyValue("--nan") };
    for (const panel of panels) panel.driftFigure.hidden = !panel.driftNames.length;
    this.drift.hidden = panels.every(({ driftFigure }) => driftFigure.hidden);
    for (const panel of panels) if (panel.driftNames.length) panel.arrangeDrift();
    const { measure } = panels[0].series;
    const title = state.since ? `change of ${measure}` : measure;
    this.legend.replaceChildren(legendFigure(this.range, title));
    this.drawLayer();
    this.draw();
  }

  /** Whether the colours fit the values; by default, those of changes do. */
  get isFitted() {
    return (this.state.range || (this.state.since ? "fitted" : "fixed")) === "fitted";
  }

  /** Return the colour map and the values at its ends. */
  colourRange() {
    const isChange = this.state.since !== "";
    const map = isChange ? "change" : this.state.map;
    if (!this.isFitted) return { map, low: isChange ? -1 : 0, high: 1 };
    const extremes = this.panels.flatMap((panel) => panel.extremes());
    let [low, high] = [Math.min(...extremes), Math.max(...extremes)];
    if (low > high) [low, high] = [0, 1]; // All values are undefined.
    if (isChange) [low, high] = [-Math.max(-low, high), Math.max(-low, high)];
    return high - low < 1e-4 ? { map, low: low - 0.005, high: high + 0.005 } : { map, low, high };
  }

  /** Draw the moment. */
  draw() {
    const { text, frames } = this.moments[this.place];
    this.controls.showTime(this.place, this.moments);
    const change = this.state.since ? `: change since ${this.state.since}` : "";
    const { measure } = this.panels[0].series;
    this.subtitle.textContent = `${measure} of ${frames[0].model} with ${frames[0].reference}, ${text}${change}`;
    for (const panel of this.panels) {
      panel.drawMap(frames[panel.index], this.range);
      if (panel.driftNames.length) panel.drawDrift(this.place, this.range);
    }
    this.curveSvg.showCursor(this.place);
    this.showTooltip();
  }

  /** Draw the curve of the chosen layer, or the mean over layers. */
  drawLayer() {
    const { moments, panels, state } = this;
    const { lines, alike } = layerHistory(panels, moments, state);
    const texts = new Set(lines.filter((line) => line.isDashed).map((line) => line.dashed));
    const dashed = texts.size ? `; dashed: ${[...texts].join(", ")}` : "";
    const title = state.row ? `${state.row} over time${dashed}` : "Mean over time. Click a row for its curve.";
    this.layerTitle.textContent = title;
    const items = alike.map(([before, name, after]) => h("li", {}, before, h("b", {}, name), after));
    this.layerText.replaceChildren(...items);
    const numbers = lines.flatMap((line) => line.points.flatMap(({ value, low, high }) => [value, low, high]));
    const known = numbers.filter((number) => !Number.isNaN(number));
    const isFixed = !this.isFitted || state.since !== "" || !known.length;
    const [low, high] = isFixed ? [0, 1] : [Math.min(...known), Math.max(...known)];
    const times = moments.map(({ name, number }) => `${name} ${number}`);
    const size = { width: widthOf(this.curve), height: 190 };
    this.curveSvg = curveFigure({ ...size, lines, low, high, moments: times });
    this.curve.replaceChildren(this.curveSvg);
  }

  /** A click on the curve goes to its moment. */
  pickTime(event) {
    this.goTo(this.curveSvg.placeAt(event.clientX - this.curve.getBoundingClientRect().left));
  }

  /** Tell about the chosen cell of a grid, which may be none. */
  onCell(grid, isKey) {
    if (grid.cell) this.shown = grid;
    else if (grid === this.shown) this.shown = null;
    this.showTooltip();
    if (grid.cell && isKey) this.live.textContent = this.tooltip.innerText;
  }

  /** Show the tooltip of the chosen cell, if there is one. */
  showTooltip() {
    const { shown, tooltip } = this;
    const { frame, cell } = shown?.content ? shown.lookUp(shown.cell) : {};
    tooltip.hidden = !cell;
    if (!cell) return;
    const { series, base } = shown.panel;
    const list = cellTexts(series, frame, base, cell).flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]);
    const [row, column] = [frame.rows[cell[0]], frame.columns[cell[1]]].map((name) => h("b", {}, name));
    const head = h("p", {}, row, ` of ${frame.model}`, h("br"), column, ` of ${frame.reference}`);
    tooltip.replaceChildren(head, h("p", { class: "muted" }, frame.moment), h("dl", {}, ...list));
    const { x, y } = shown.cellPlace();
    const { offsetWidth: width, offsetHeight: height } = tooltip;
    const left = x + 14 + width < innerWidth ? x + 14 : Math.max(4, x - 14 - width);
    const top = Math.max(4, Math.min(y - height / 2, innerHeight - height - 4));
    Object.assign(tooltip.style, { left: `${left}px`, top: `${top}px` });
  }

  /** Show the moment at a place. */
  goTo(place) {
    const last = this.moments.length - 1;
    this.place = Math.min(last, Math.max(0, place));
    // At the end, the view stays at the end while results are added.
    this.state.at = this.place === last ? "" : this.moments[this.place].text;
    this.draw();
    this.remember();
  }

  /** Start or stop to play. */
  play(isOn) {
    clearInterval(this.player);
    this.playing = isOn && this.moments.length > 1;
    this.controls.showPlaying(this.playing);
    if (!this.playing) return;
    const isAtEnd = () => this.place >= this.moments.length - 1;
    if (isAtEnd()) this.goTo(0);
    const step = () => {
      this.goTo(this.place + 1);
      if (isAtEnd()) this.play(false);
    };
    this.player = setInterval(step, Math.min(300, (1000 * PLAY_SECONDS) / this.moments.length));
  }

  /** Left and right move in time, and the space bar plays. */
  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    const hasOwnKeys = event.target.closest?.("input, select, button, summary, a");
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
    if (window !== window.parent) return; // A page inside another one has no address of its own.
    this.timer = setTimeout(() => history.replaceState(null, "", link), 300);
  }

  /** Save what is seen as "png", "svg" or "csv". */
  async export(kind) {
    const name = `cka-${this.moments[this.place].text.replace(/\W+/g, "-")}.${kind}`;
    if (kind === "csv") {
      const { reference, measure } = this.state;
      const rows = this.panels.flatMap((panel) =>
        panel.tableRows().map((row) => ({ run: panel.name, reference, measure, ...row })),
      );
      save(csvFile(rows), name);
      return;
    }
    const grids = this.panels.flatMap(({ map, drift }) => [map, drift]).filter(({ root }) => root.offsetParent);
    const figures = grids.map((grid) => ({ node: grid.root, draw: () => grid.toSvg() }));
    for (const node of [this.legend.firstChild, this.curveSvg])
      figures.push({ node, draw: () => node.cloneNode(true) });
    const file = svgFile(wholeFigure(this.root, figures), this.root);
    save(kind === "svg" ? file : await pngFile(file), name);
  }
}

/**
 * Show a payload of `lightning_cka.view.payload.view_payload`, or its JSON text, in an element of a page, whose address
 * and keys the view takes. If the payload is damaged, a message says so.
 * @param {HTMLElement} element The element. The view is added to it.
 * @param {any} payload The payload.
 * @returns {{update: (payload: any) => Promise<void>}} `update` shows another payload in the same state.
 */
export function mount(element, payload) {
  const root = h("div", { class: "cka-view" });
  element.append(root);
  const view = new View(root, readState(location.hash));
  view.refresh({}, payload);
  return { update: (given) => view.refresh({}, given) };
}
