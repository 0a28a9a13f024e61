/** Make elements of the page. Texts and attributes are set as such, never parsed as markup. */

const SVG = "http://www.w3.org/2000/svg";

export const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";

/** Size of labels in figures, in pixels. */
export const LABEL_SIZE = 11;

/** Return the width of a figure in an element, which has none while it is hidden. */
export const widthOf = (node) => Math.max(200, node.clientWidth);

/** Set attributes of an element, or listeners of the event that their name has after "on", and add children. */
function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Make an HTML element with attributes, listeners, and elements and texts inside. */
export const h = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);

/** Make an SVG element, as `h` does. */
export const s = (tag, properties = {}, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

/** Make a label of a figure. */
export const label = (text, x, y, properties = {}) =>
  s("text", { x, y, "font-family": FONT, "font-size": LABEL_SIZE, ...properties }, text);

/** Give an element these children. Those that it has already are not moved, and so they keep their focus. */
export function setChildren(node, children) {
  for (const child of [...node.children]) if (!children.includes(child)) child.remove();
  children.forEach((child, place) => {
    if (node.children[place] !== child) node.insertBefore(child, node.children[place] ?? null);
  });
}

let pen = null;

/** Return the width of a label in pixels. */
export function textWidth(text) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = `${LABEL_SIZE}px ${FONT}`;
  return pen.measureText(text).width;
}
