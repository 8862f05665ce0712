// One of a few: a row of radio buttons that looks like a switch.

import { make } from "./dom.js";

/** Fill a fieldset with choices `{ value: words }` and call `chosen(value)` whenever another one is taken. */
export function choice(fieldset, name, choices, first, chosen) {
  const buttons = Object.entries(choices).map(([value, words]) =>
    make(
      "label",
      {},
      make("input", { type: "radio", name, value, checked: value === first, onchange: () => chosen(value) }),
      make("span", {}, words),
    ),
  );
  fieldset.append(...buttons);
}
