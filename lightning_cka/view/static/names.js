/** Names of layers: patterns that choose some, and short labels. The rules are those of the Python package. */

const TOKENS = /((?:^|(?<=\.))\*\*+\.)|(\*\*+)|(\*)|(\?)|(\[!?\]?[^\]]*\])|[^]/gu;

/**
 * Return the regular expression of a set of characters, such as `[!a-c]`.
 * @param {string} set The set with its brackets.
 * @returns {string} The expression.
 */
function translatedSet(set) {
  const isNegated = set[1] === "!";
  const body = set.slice(isNegated ? 2 : 1, -1).replace(/[\\\]^[]/g, "\\$&");
  return `(?!\\.)[${isNegated ? "^" : ""}${body}]`;
}

/**
 * Return the names that a pattern matches.
 * @param {string} pattern `*` matches within one dotted level, `**` across levels, `?` and `[...]` one character.
 * @param {string[]} names All names.
 * @returns {string[]} The name that equals the pattern; if there is none, the names that match it.
 */
export function namesMatching(pattern, names) {
  if (names.includes(pattern)) return [pattern];
  const source = pattern.replace(TOKENS, (token, levels, any, star, one, set) => {
    if (levels) return "(?:[^.]+\\.)*";
    if (set) return translatedSet(set);
    if (any) return ".*";
    if (star) return "[^.]*";
    if (one) return "[^.]";
    return token.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  });
  try {
    const expression = new RegExp(`^(?:${source})$`, "su");
    return names.filter((name) => expression.test(name));
  } catch (error) {
    if (error instanceof SyntaxError) return []; // A set such as [z-a] matches nothing.
    throw error;
  }
}

/**
 * Return which names a filter leaves.
 * @param {string} filter Patterns, separated by commas or spaces; a leading `!` takes away. Empty: all names.
 * @param {string[]} names All names.
 * @returns {number[]} Places of the names that are left, in order.
 */
export function filtered(filter, names) {
  const patterns = filter.split(/[\s,]+/).filter(Boolean);
  const takesAway = (pattern) => pattern[0] === "!" && !names.includes(pattern);
  const matches = (list) => new Set(list.flatMap((pattern) => namesMatching(pattern, names)));
  const chosen = patterns.filter((pattern) => !takesAway(pattern));
  const kept = chosen.length ? matches(chosen) : new Set(names);
  const removed = matches(patterns.filter(takesAway).map((pattern) => pattern.slice(1)));
  return names.map((_, place) => place).filter((place) => kept.has(names[place]) && !removed.has(names[place]));
}

/**
 * Return a text without its middle if it is long.
 * @param {string} text The text.
 * @param {number} most Largest number of characters.
 * @returns {string} The text, with an ellipsis in place of its middle.
 */
export function elided(text, most) {
  const half = Math.max(1, Math.floor(most / 2));
  return text.length <= most ? text : `${text.slice(0, half - 1)}…${text.slice(-half)}`;
}

/**
 * Remove the common dotted prefix of names, and the middle of long names. Distinct names get distinct labels.
 * @param {string[]} names The names.
 * @param {number} most Largest number of characters of a label, if labels stay distinct.
 * @returns {{labels: string[], prefix: string}} One label per name, and the removed prefix.
 */
export function shortLabels(names, most) {
  const parts = names.map((name) => name.split(".").slice(0, -1));
  const shared = [];
  for (let level = 0; names.length && level < Math.min(...parts.map((part) => part.length)); level++) {
    if (parts.some((part) => part[level] !== parts[0][level])) break;
    shared.push(parts[0][level]);
  }
  const prefix = shared.join(".");
  const labels = prefix ? names.map((name) => name.slice(prefix.length + 1)) : names;
  const longest = Math.max(most, ...labels.map((label) => label.length));
  for (let length = most; length < longest; length++) {
    const shown = labels.map((label) => elided(label, length));
    if (new Set(shown).size === new Set(labels).size) return { labels: shown, prefix };
  }
  return { labels, prefix };
}
