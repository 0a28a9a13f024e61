/** Make elements of the page. Texts and attributes are set as such, never parsed as markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Fill an element.
 * @param {Element} node The element.
 * @param {object} properties Attributes; functions are listeners of the event that their name has after "on".
 * @param {(Element | string)[]} children Elements and texts inside.
 * @returns {Element} The element.
 */
function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false && value !== undefined)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/**
 * Make an HTML element.
 * @param {string} tag Name of the element.
 * @param {object} properties Attributes and listeners.
 * @param {...(Element | string)} children Elements and texts inside.
 * @returns {HTMLElement} The element.
 */
export const h = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);

/**
 * Make an SVG element.
 * @param {string} tag Name of the element.
 * @param {object} properties Attributes and listeners.
 * @param {...(Element | string)} children Elements and texts inside.
 * @returns {SVGElement} The element.
 */
export const s = (tag, properties = {}, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

let pen = null;

/**
 * Return the width of a text in the font of labels.
 * @param {string} text The text.
 * @returns {number} The width in pixels.
 */
export function textWidth(text) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = LABEL_FONT;
  return pen.measureText(text).width;
}

export const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
export const LABEL_SIZE = 11;
const LABEL_FONT = `${LABEL_SIZE}px ${FONT}`;

/**
 * Make a label of a figure.
 * @param {string} text The text.
 * @param {number} x Distance from the left.
 * @param {number} y Distance of the base line from the top.
 * @param {object} properties Further attributes.
 * @returns {SVGElement} The label.
 */
export const label = (text, x, y, properties = {}) =>
  s("text", { x, y, "font-family": FONT, "font-size": LABEL_SIZE, ...properties }, text);
