/** Names of layers: patterns that choose some, and short labels. The rules are those of the Python package. */

const TOKENS = /((?:^|(?<=\.))\*\*+\.)|(\*\*+)|(\*)|(\?)|(\[!?\]?[^\]]*\])|[^]/gu;

/** Return the regular expression of a set of characters, such as `[!a-c]`. */
function translatedSet(set) {
  const isNegated = set[1] === "!";
  const body = set.slice(isNegated ? 2 : 1, -1).replace(/[\\\]^[]/g, "\\$&");
  return `(?!\\.)[${isNegated ? "^" : ""}${body}]`;
}

/**
 * Return the name that equals a pattern; if there is none, the names that match it. `*` matches within one dotted
 * level, `**` across levels, `?` and `[...]` one character.
 */
function namesMatching(pattern, names) {
  if (names.includes(pattern)) return [pattern];
  const source = pattern.replace(TOKENS, (token, levels, any, star, one, set) => {
    if (levels) return "(?:[^.]+\\.)*";
    if (set) return translatedSet(set);
    if (any) return ".*";
    if (star) return "[^.]*";
    return one ? "[^.]" : token.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  });
  try {
    const expression = new RegExp(`^(?:${source})$`, "su");
    return names.filter((name) => expression.test(name));
  } catch (error) {
    if (error instanceof SyntaxError) return []; // A set such as [z-a] matches nothing.
    throw error;
  }
}

/** Return the places of the names that a filter leaves: patterns with commas or spaces between; `!` takes away. */
export function filtered(filter, names) {
  const patterns = filter.split(/[\s,]+/).filter(Boolean);
  const takesAway = (pattern) => pattern[0] === "!" && !names.includes(pattern);
  const matches = (list) => new Set(list.flatMap((pattern) => namesMatching(pattern, names)));
  const chosen = patterns.filter((pattern) => !takesAway(pattern));
  const kept = chosen.length ? matches(chosen) : new Set(names);
  const removed = matches(patterns.filter(takesAway).map((pattern) => pattern.slice(1)));
  return names.flatMap((name, place) => (kept.has(name) && !removed.has(name) ? [place] : []));
}

/** Return a text of at most `most` characters, with an ellipsis in place of its middle. */
export function elided(text, most) {
  const half = Math.floor(most / 2);
  return text.length <= most ? text : `${text.slice(0, half - 1)}…${text.slice(-half)}`;
}

/** Return names without their common dotted prefix and as short as `most` while they stay distinct; and the prefix. */
export function shortLabels(names, most) {
  const parts = names.map((name) => name.split(".").slice(0, -1));
  const [first = []] = parts;
  const end = first.findIndex((part, level) => parts.some((other) => other[level] !== part));
  const prefix = first.slice(0, end < 0 ? first.length : end).join(".");
  const labels = prefix ? names.map((name) => name.slice(prefix.length + 1)) : names;
  const longest = Math.max(most, ...labels.map((label) => label.length));
  for (let length = most; length < longest; length++) {
    const shown = labels.map((label) => elided(label, length));
    if (new Set(shown).size === new Set(labels).size) return { labels: shown, prefix };
  }
  return { labels, prefix };
}
