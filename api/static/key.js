// Asks for the key when the house wants one, tells a wrong one, and forgets it when asked to.

import { ask, keep, key, KeyNeeded } from "./ask.js";
import { byId, say, show } from "./dom.js";

let waiting = null; // whoever needs a key at the same time waits for the same answer

/** Wait until the reader has given a key that the house takes. Nothing else is shown meanwhile. */
export function needKey() {
  waiting ??= new Promise(prompt).finally(() => {
    waiting = null;
  });
  return waiting;
}

/** Wire the button that forgets the key. */
export function setUp() {
  byId("forget").addEventListener("click", () => {
    keep("");
    location.reload();
  });
  show(byId("forget"), key() !== "");
}

function prompt(resolve) {
  const form = byId("key-form");
  const field = byId("key-field");
  const trouble = (words) => say(byId("key-trouble"), words);
  const given = async (event) => {
    event.preventDefault();
    const value = field.value.trim();
    try {
      await ask("house", {}, { using: value });
    } catch (error) {
      const wrong = error instanceof KeyNeeded;
      trouble(wrong ? `The house says: ${error.message}.` : "The house does not answer. Try again in a moment.");
      field.setAttribute("aria-invalid", String(wrong));
      field.select();
      return;
    }
    keep(value);
    form.reset();
    field.removeAttribute("aria-invalid");
    form.removeEventListener("submit", given);
    document.body.classList.remove("locked");
    show(byId("forget"), true);
    resolve();
  };
  trouble(key() ? "The key that this browser keeps is not accepted any more." : "");
  form.addEventListener("submit", given);
  document.body.classList.add("locked", "ready");
  field.focus();
}
