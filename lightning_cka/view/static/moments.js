/** The moments of training that the slider moves through, and the state of a view as a text for links. */

/**
 * Return the moments of several series: their epochs, or their steps if an epoch has several results.
 * @param {Series[]} all The series that are shown side by side.
 * @returns {{name: string, number: number, text: string, frames: Frame[]}[]} Moments in order: what is counted, its
 *   number, the moment in words, and the latest result of every series.
 */
export function momentsOf(all) {
  const isKey = (name) =>
    all.every(({ frames }) => new Set(frames.map((frame) => frame[name] ?? "")).size === frames.length) &&
    all.every(({ frames }) => frames.every((frame) => frame[name] !== null));
  const name = ["epoch", "step", "index"].find(isKey);
  const keys = [...new Set(all.flatMap(({ frames }) => frames.map((frame) => frame[name])))].sort((a, b) => a - b);
  const places = all.map(() => 0);
  return keys.map((key) => {
    const frames = all.map(({ frames: own }, place) => {
      while (places[place] + 1 < own.length && own[places[place] + 1][name] <= key) places[place]++;
      return own[places[place]];
    });
    const texts = new Set(frames.filter((frame) => frame[name] === key).map((frame) => frame.moment));
    return { name, number: key, text: texts.size === 1 ? [...texts][0] : `${name} ${key}`, frames };
  });
}

const DEFAULTS = { reference: "", measure: "", at: "", since: "", layers: "", row: "", column: "", range: "", map: "" };

/**
 * Return the state that a link's fragment describes.
 * @param {string} fragment Such as `#reference=initial&at=epoch+3`.
 * @returns {object} The state: a list of runs, and texts that are empty by default.
 */
export function readState(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, given.get(name) ?? ""]));
  return { ...state, runs: given.getAll("run") };
}

/**
 * Return the fragment of a link that opens a view in a state.
 * @param {object} state The state.
 * @returns {string} The fragment.
 */
export function writeState(state) {
  const given = new URLSearchParams(state.runs.map((run) => ["run", run]));
  for (const name of Object.keys(DEFAULTS)) if (state[name]) given.append(name, state[name]);
  return `#${given}`;
}
