/**
 * The tab of TensorBoard: shows the results of all runs, and new ones as they come. Runs are chosen in the tab itself,
 * because TensorBoard does not tell a dynamic plugin which runs are chosen in its other tabs: its messages
 * ("experimental.GetRuns", "experimental.RunsChanged") have the names of all runs.
 */

import { mount } from "../view.js";

const SECONDS = 4;
const SCHEME = "prefers-color-scheme";
const OFFLINE = "TensorBoard does not answer. What you see may be old.";

const address = (path) => new URL(path, import.meta.url).href;

/**
 * Load the style sheet of the view.
 * @returns {Promise<CSSStyleSheet>} The style sheet.
 */
async function loadStyle() {
  const link = document.createElement("link");
  const loaded = new Promise((done, fail) => {
    link.addEventListener("load", done);
    link.addEventListener("error", () => fail(new Error("the style sheet cannot be loaded")));
  });
  Object.assign(link, { rel: "stylesheet", href: address("../view.css") });
  document.head.append(link);
  await loaded;
  return link.sheet;
}

/**
 * Ask for the results.
 * @param {string} known The mark of the results that are shown.
 * @returns {Promise<{mark: string, payload: object | null}>} The mark of the results now; no payload if it is known.
 */
async function ask(known) {
  const response = await fetch(`${address("../results")}?${new URLSearchParams({ known })}`);
  if (!response.ok) throw new Error(`TensorBoard answers ${response.status}`);
  return response.json();
}

/** The tab. */
class Tab {
  /** @param {CSSStyleSheet} sheet The style sheet of the view. */
  constructor(sheet) {
    Object.assign(this, { mark: "", payload: null, view: null, isOffline: false });
    this.rules = [...sheet.cssRules].filter((rule) => rule instanceof CSSMediaRule);
    this.rules = this.rules.filter((rule) => rule.media.mediaText.includes(SCHEME));
    this.board = this.bodyOfBoard();
    if (!this.board) return;
    this.setScheme();
    const options = { attributes: true, attributeFilter: ["class"] };
    new MutationObserver(() => this.setScheme()).observe(this.board, options);
  }

  /** @returns {HTMLElement | null} The body of TensorBoard around the tab. */
  bodyOfBoard() {
    return window.frameElement ? window.parent.document.body : null;
  }

  /** Be dark if TensorBoard is dark, and else light. */
  setScheme() {
    const isDark = this.board.classList.contains("dark-mode");
    if (isDark === this.isDark) return;
    this.isDark = isDark;
    for (const rule of this.rules) rule.media.mediaText = isDark ? "all" : "not all";
    document.documentElement.style.colorScheme = isDark ? "dark" : "light";
    this.show();
  }

  /** Show the results. */
  show() {
    if (!this.payload) return;
    const notes = [...this.payload.notes, ...(this.isOffline ? [OFFLINE] : [])];
    const payload = { ...this.payload, notes };
    if (this.view) this.view.update(payload);
    else this.view = mount(document.body, payload);
    if (this.board) document.querySelector(".cka-view").style.colorScheme = this.isDark ? "dark" : "light";
  }

  /** Ask for results that are new, if the tab can be seen. */
  async update() {
    if (this.payload && (document.hidden || !innerWidth)) return;
    let found = null;
    try {
      found = await ask(this.mark);
    } catch (error) {
      found = { mark: this.mark, payload: null, error };
    }
    const isOffline = found.error !== undefined;
    if (isOffline && !this.payload) this.payload = { format: 1, title: "CKA", notes: [found.error.message], runs: [] };
    const isNew = found.payload !== null || isOffline !== this.isOffline;
    this.payload = found.payload ?? this.payload;
    Object.assign(this, { isOffline, mark: found.mark });
    if (isNew) this.show();
  }
}

/** Fill the page of the tab. TensorBoard calls this. */
export async function render() {
  document.documentElement.lang = "en";
  document.querySelector("base")?.remove(); // Links with a state begin with the address of this page.
  for (const node of [document.documentElement, document.body]) {
    Object.assign(node.style, { margin: "0", height: "100%" });
  }
  const tab = new Tab(await loadStyle());
  for (;;) {
    await tab.update();
    await new Promise((done) => setTimeout(done, 1000 * SECONDS));
  }
}
