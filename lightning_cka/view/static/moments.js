/** The moments of training that the slider moves through, and the state of a view as a text for links. */

/**
 * Return the moments of several series in order: their epochs, or their steps if an epoch has several results. Each has
 * the name and the number of what is counted, a text, and the latest result of every series.
 */
export function momentsOf(all) {
  const isKey = (name) =>
    all.every(({ frames }) => {
      const found = frames.map((frame) => frame[name]);
      return new Set(found).size === found.length && !found.includes(null);
    });
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

const TEXTS = ["reference", "measure", "at", "since", "layers", "row", "column", "range", "map"];

/** Return the state that a link's fragment describes: a list of runs, and texts that are empty by default. */
export function readState(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  return { ...Object.fromEntries(TEXTS.map((name) => [name, given.get(name) ?? ""])), runs: given.getAll("run") };
}

/** Return the fragment of a link that opens a view in a state. */
export function writeState(state) {
  const given = new URLSearchParams(state.runs.map((run) => ["run", run]));
  for (const name of TEXTS) if (state[name]) given.append(name, state[name]);
  return `#${given}`;
}
