// Elements made of text: whatever a device calls itself is put in as text and never read as HTML.

/** Find the one element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Make an element: `make("td", { class: "power" }, "86 W")`. Children are elements, texts, or nothing. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set a text, and touch the page only if it differs: what a screen reader is reading stays as it is. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show or hide an element. */
export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/** Give an element one of several classes, and take away the others. */
export function mood(element, of, wanted) {
  for (const name of of) element.classList.toggle(name, name === wanted);
}
