/** `mount` shows a payload in an element of a page. */

import { cellTexts } from "./cell_text.js";
import { MAP_NAMES } from "./colours.js";
import { Controls } from "./controls.js";
import { curveFigure, legendFigure } from "./curves.js";
import { h, widthOf } from "./elements.js";
import { csvFile, pngFile, save, svgFile, wholeFigure } from "./exports.js";
import { layerHistory } from "./layer.js";
import { valueTable } from "./lists.js";
import { momentsOf, readState, writeState } from "./moments.js";
import { filtered } from "./names.js";
import { PayloadError } from "./packed.js";
import { Panel } from "./panel.js";
import { readPayload } from "./series.js";

const MOST_RUNS = 4;
const PLAY_SECONDS = 10;
const THEME = ["paper", "ink", "muted", "line", "accent", "flag", "nan", "second", "third", "fourth"];

const unique = (list) => [...new Set(list)];

/** A view of one payload. */
class View {
  /** `content` is what `readPayload` returned, `state` what `readState` did, and `options` are those of `mount`. */
  constructor(root, content, state, options) {
    Object.assign(this, { root, content, state, options, panels: [], moments: [], place: 0, shown: null });
    this.series = content.runs.flatMap((run) => run.series);
    this.controls = new Controls({
      onChange: this.safely((change) => this.refresh(change)),
      onTime: this.safely((place) => this.goTo(place)),
      onPlay: this.safely(() => this.play(!this.playing)),
      onExport: this.safely((kind) => this.export(kind)),
    });
    this.build();
    const arrange = this.safely(() => this.arrange());
    this.observer = new ResizeObserver(arrange);
    const listeners = [
      [matchMedia("(prefers-color-scheme: dark)"), "change", arrange],
      [options.isWholePage ? document : root, "keydown", this.safely((event) => this.key(event))],
      [window, "hashchange", this.safely(() => this.readLink())],
    ];
    for (const [target, ...listener] of listeners) target.addEventListener(...listener);
    this.destroy = () => {
      this.play(false);
      clearTimeout(this.timer);
      this.observer.disconnect();
      for (const [target, ...listener] of listeners) target.removeEventListener(...listener);
    };
  }

  /** Return a function that shows an error instead of raising it. The given one may be asynchronous. */
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
    const section = (name, label, ...children) => h("section", { class: name, "aria-label": label }, ...children);
    const title = (text) => h("h2", { "data-title": true }, text);
    const part = (name) => h("div", { class: name });
    this.subtitle = h("p", { class: "subtitle", "data-title": true });
    [this.legend, this.maps, this.drifts, this.flags] = ["legend", "panels", "panels", "flags"].map(part);
    this.layerTitle = title("");
    this.curve = h("div", { class: "curve", onpointerdown: this.safely((event) => this.pickTime(event)) });
    this.layerText = h("ul", { class: "text" });
    this.driftNote = h("p", { class: "muted", "data-title": true });
    this.drift = section("drift", "Drift", title("Drift"), this.drifts, this.driftNote);
    this.table = part("table");
    const onToggle = this.safely(() => this.drawTable());
    this.details = h(
      "details",
      { class: "values", ontoggle: onToggle },
      h("summary", {}, "Values as a table"),
      this.table,
    );
    this.tooltip = h("div", { class: "tooltip", role: "tooltip", hidden: true });
    this.live = h("div", { class: "hidden", "aria-live": "polite" });
    const layer = section("layer", "One layer over time", this.layerTitle, this.curve, this.layerText);
    const list = section("list", "Flags", h("h2", {}, "Flags"), this.flags);
    this.root.replaceChildren(
      h("header", {}, h("div", {}, h("h1", { "data-title": true }, content.title), this.subtitle), controls.exports),
      h("ul", { class: "notes", role: "status" }, ...content.notes.map((note) => h("li", {}, note))),
      controls.form,
      h(
        "div",
        { class: "body" },
        section("maps", "Heatmap", this.legend, this.maps, controls.time, this.details),
        h("div", { class: "side" }, h("div", {}, layer, this.drift), list),
      ),
      this.tooltip,
      this.live,
    );
  }

  /** Change the state: choose the series, load them and draw. */
  async refresh(change = {}) {
    const { state, content } = this;
    Object.assign(state, change);
    const runs = content.runs.map((run) => run.name);
    const names = { runs, references: this.series.map((each) => each.reference) };
    names.measures = this.series.map((each) => each.measure);
    state.runs = state.runs.filter((name) => runs.includes(name));
    if (!state.runs.length) state.runs = runs.slice(0, MOST_RUNS);
    if (!names.references.includes(state.reference)) [state.reference] = names.references;
    if (!names.measures.includes(state.measure)) [state.measure] = names.measures;
    if (!MAP_NAMES.includes(state.map)) state.map = "";
    if (!["fixed", "fitted"].includes(state.range)) state.range = "";
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
    this.controls.show(state, {
      runs,
      references: unique(names.references),
      measures: unique(names.measures),
      moments,
    });
    this.setPanels(found);
    this.arrange();
    this.observer.observe(this.root);
    this.remember();
  }

  /** Show panels of these runs: their names and series. */
  setPanels(found) {
    const isSame = ([, series], place) => series === this.panels[place]?.series;
    if (found.length && found.length === this.panels.length && found.every(isSame)) return;
    this.showCell(null);
    const placeOf = (index, place) => this.moments.findIndex(({ frames }) => frames[index].index === place);
    const listeners = {
      onCell: this.safely((shown, cell, isKey) => this.onCell(shown, cell, isKey)),
      onPick: this.safely((row, column) => this.refresh({ row: row === this.state.row ? "" : row, column })),
      onTime: this.safely((place) => this.goTo(place)),
      onResult: this.safely((index, place) => this.goTo(placeOf(index, place))),
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
    this.theme = Object.fromEntries(THEME.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    const { state, theme, moments, panels } = this;
    const base = moments.find(({ text }) => text === state.since)?.frames ?? null;
    for (const panel of panels) panel.arrange({ filter: state.layers, picked: state.row, theme, moments, base });
    const names = panels.flatMap(({ series }) => series.blocks.flatMap(({ rows, columns }) => [...rows, ...columns]));
    this.controls.problem.textContent = filtered(state.layers, names).length ? "" : "no layer matches";
    this.range = this.colourRange();
    const drifting = panels.filter((panel) => panel.hasDrift);
    this.drift.hidden = !drifting.length;
    const hasMarks = drifting.map((panel) => panel.arrangeDrift()).includes(true);
    this.driftNote.textContent = hasMarks ? "◇ from here within ±0.01 of the last value (95 %)" : "";
    const { measure } = panels[0].series;
    const title = state.since ? `change of ${measure}` : measure;
    this.legend.replaceChildren(legendFigure({ range: this.range, theme, title }));
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
    const map = isChange ? "change" : this.state.map || "magma";
    if (!this.isFitted) return { map, low: isChange ? -1 : 0, high: 1 };
    const extremes = this.panels.flatMap((panel) => panel.extremes());
    let [low, high] = [Math.min(...extremes), Math.max(...extremes)];
    if (!Number.isFinite(low)) [low, high] = [0, 1];
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
      if (panel.hasDrift) panel.drawDrift(this.place, this.range);
      panel.flags.show(panel.frame);
    }
    this.curveSvg.showCursor(this.place);
    if (this.shown) this.showCell(this.shown);
    if (this.details.open) this.drawTable();
  }

  /** Draw the curve of the chosen layer, or the mean over layers. */
  drawLayer() {
    const { moments, theme, panels, state } = this;
    const { lines, strips, alike } = layerHistory(panels, moments, state, theme);
    const dashed = lines.some((line) => line.isDashed) ? `; dashed: with ${state.column}` : "";
    const title = state.row ? `${state.row} over time${dashed}` : "Mean over time. Click a row for its curve.";
    this.layerTitle.textContent = title;
    const when = ({ name, number }, end) => (number === end ? `${name} ${number}` : `${name}s ${number}–${end}`);
    const item = ({ panel, runs }) =>
      runs.map(({ value, from, to }) => {
        const time = `, ${when(moments[from], moments[to].number)}`;
        return h("li", {}, `${panel.name ? `${panel.name}: ` : ""}most alike to `, h("b", {}, value), time);
      });
    this.layerText.replaceChildren(...alike.flatMap(item));
    const numbers = lines.flatMap((line) => line.points.flatMap(({ value, low, high }) => [value, low, high]));
    const known = numbers.filter((number) => !Number.isNaN(number));
    const isFixed = !this.isFitted || state.since !== "" || !known.length;
    const [low, high] = isFixed ? [0, 1] : [Math.min(...known), Math.max(...known)];
    const size = { width: widthOf(this.curve), height: 190 + 16 * strips.length };
    const times = moments.map(({ name, number }) => `${name} ${number}`);
    const content = { lines, strips, low, high, moments: times, theme };
    this.curveSvg = curveFigure({ ...content, ...size });
    this.curve.replaceChildren(this.curveSvg);
  }

  /** A click on the curve goes to its moment. */
  pickTime(event) {
    this.goTo(this.curveSvg.placeAt(event.clientX - this.curve.getBoundingClientRect().left));
  }

  /** Tell about the cell under pointer or focus; null for none. `shown` has its panel, grid and `lookUp(cell)`. */
  onCell(shown, cell, isKey) {
    this.showCell(cell && shown);
    if (cell && isKey) this.live.textContent = this.tooltip.innerText;
  }

  /** Show the tooltip of the chosen cell of a grid, or none for null. */
  showCell(shown) {
    this.shown = shown?.grid.cell ? shown : null;
    const found = this.shown && shown.lookUp(shown.grid.cell);
    this.tooltip.hidden = !found?.cell;
    if (this.tooltip.hidden) return;
    const { frame, cell } = found;
    const { series, base } = shown.panel;
    const lines = cellTexts(series, frame, base, cell);
    const list = lines.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]);
    const [row, column] = [frame.rows[cell[0]], frame.columns[cell[1]]].map((name) => h("b", {}, name));
    const head = h("p", {}, row, ` of ${frame.model}`, h("br"), column, ` of ${frame.reference}`);
    this.tooltip.replaceChildren(head, h("p", { class: "muted" }, frame.moment), h("dl", {}, ...list));
    const { x, y } = shown.grid.cellPlace();
    const { offsetWidth: width, offsetHeight: height } = this.tooltip;
    const left = x + 14 + width < innerWidth ? x + 14 : Math.max(4, x - 14 - width);
    const top = Math.max(4, Math.min(y - height / 2, innerHeight - height - 4));
    Object.assign(this.tooltip.style, { left: `${left}px`, top: `${top}px` });
  }

  /** Fill the table of values, if it is open. */
  drawTable() {
    if (!this.details.open) return;
    const captionOf = ({ title, frame }) => `${title.textContent}, ${frame.moment}`;
    this.table.replaceChildren(...this.panels.map((panel) => valueTable(captionOf(panel), panel.tableRows())));
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
    cancelAnimationFrame(this.request);
    this.playing = isOn && this.moments.length > 1;
    this.controls.showPlaying(this.playing);
    if (!this.playing) return;
    const wait = Math.min(300, (1000 * PLAY_SECONDS) / this.moments.length);
    let [place, next] = [this.place === this.moments.length - 1 ? -1 : this.place, 0];
    const step = this.safely((now) => {
      if (now >= next) {
        next = Math.max(next, now - wait) + wait;
        this.goTo(++place);
      }
      if (place >= this.moments.length - 1) this.play(false);
      else this.request = requestAnimationFrame(step);
    });
    this.request = requestAnimationFrame(step);
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
    // A page inside another one has no address of its own.
    if (!this.options.isWholePage || window !== window.parent) return;
    this.timer = setTimeout(() => history.replaceState(null, "", link), 300);
  }

  /** Show the state of the address. */
  async readLink() {
    if (this.options.isWholePage && location.hash !== writeState(this.state))
      await this.refresh(readState(location.hash));
  }

  /** Save what is seen as "png", "svg" or "csv". */
  async export(kind) {
    const name = `cka-${this.moments[this.place].text.replace(/\W+/g, "-")}.${kind}`;
    const { reference, measure } = this.state;
    if (kind === "csv") {
      const rows = this.panels.flatMap((panel) => panel.tableRows());
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

/** Return a payload, which may be given as JSON text. */
function parsed(payload) {
  try {
    return typeof payload === "string" ? JSON.parse(payload) : payload;
  } catch (error) {
    throw new PayloadError(`they are not JSON (${error.message})`);
  }
}

/**
 * Show a payload of `lightning_cka.view.payload.view_payload`, or its JSON text, in an element of a page. If the
 * payload is damaged, a message says so.
 * @param {HTMLElement} element The element. The view is added to it.
 * @param {any} payload The payload.
 * @param {{isWholePage?: boolean}} options Whether the address and the keys of the page are the view's.
 * @returns {{update: (payload: any) => void, destroy: () => void}} `update` shows another payload in the same state.
 */
export function mount(element, payload, options = {}) {
  const root = h("div", { class: "cka-view" });
  element.append(root);
  let view = null;
  const onError = (error) => {
    view?.destroy();
    const start = error instanceof PayloadError ? "These results cannot be shown" : "The view failed";
    root.replaceChildren(h("p", { class: "problem", role: "alert" }, `${start}: ${error.message}.`));
  };
  const update = (given) => {
    const state = view?.state ?? readState(options.isWholePage ? location.hash : "");
    view?.destroy();
    try {
      const content = readPayload(parsed(given));
      if (!content.runs.length) throw new PayloadError([...content.notes, "there are no results"].join("; "));
      view = new View(root, content, state, { ...options, onError });
      view.safely(() => view.refresh())();
    } catch (error) {
      onError(error);
    }
  };
  update(payload);
  return { update, destroy: () => view?.destroy() };
}
