// Is the house well? Every source and output with its state, and for each trouble what is wrong and what to do now.

import { byId, make, mood, say, show } from "./dom.js";
import { count, duration, known } from "./numbers.js";

const MOODS = ["good", "waiting", "bad", "unknown"];

export class Health {
  #told = "";
  #parts = null; // how many need attention; null: nobody knows
  #silent = 0; // how many devices say nothing, though nothing may be wrong with their source
  #words = []; // [element, how it is worded, of which part]: ages in it grow

  /** Show what the api says of the house. */
  show(health) {
    const { reasons, sources, outputs } = health;
    this.#parts = new Set(reasons.map((reason) => reason.part)).size;
    this.#judge();
    const attention = reasons.map((reason) => make("li", {}, make("b", {}, reason.part), " ", ...sentences(reason)));
    byId("attention-list").replaceChildren(...attention);
    show(byId("attention"), reasons.length > 0);
    this.#words = [
      ...rows("sources-rows", sources, reasons, "source", sourceWords),
      ...rows("outputs-rows", outputs, reasons, "output", outputWords),
      [byId("health-writer"), writerWords, health],
    ];
    this.grow(0);
    show(byId("sources-empty"), !sources.length);
    show(byId("outputs-empty"), !outputs.length);
  }

  /** So many devices say nothing. */
  silent(devices) {
    this.#silent = devices;
    this.#judge();
  }

  #judge() {
    if (this.#parts === null) return;
    const needs = this.#parts === 1 ? "needs" : "need";
    if (this.#parts) this.#verdict("bad", `${count(this.#parts, "thing")} ${needs} attention`);
    else if (this.#silent) this.#verdict("waiting", `${count(this.#silent, "device")} silent`);
    else this.#verdict("good", "Everything is well");
  }

  /** What was said `since_s` ago is older now. */
  grow(since_s) {
    for (const [element, words, part] of this.#words) say(element, words(part, since_s));
  }

  /** Nobody knows how the house is, because nobody answers. */
  unknown() {
    this.#parts = null;
    this.#verdict("unknown", "No connection");
    show(byId("attention"), false);
  }

  /** What was known is too old to be shown. */
  blank() {
    this.unknown();
    for (const [element] of this.#words) say(element, "not known without a connection");
    for (const state of document.querySelectorAll("#health .state")) {
      state.className = "state unknown";
      say(state, "unknown");
    }
    this.#words = [];
  }

  #verdict(kind, words) {
    mood(byId("verdict"), MOODS, kind);
    if (words !== this.#told) say(byId("verdict"), words);
    this.#told = words;
  }
}

/** Fill a table, and return the cells whose words have an age in them. */
function rows(id, parts, reasons, kind, words) {
  const cells = [];
  const made = parts.map((part) => {
    const cell = make("p");
    cells.push([cell, words, part]);
    const troubles = reasons.filter((reason) => reason.part === `${kind} ${part.name}`);
    const note = part.note && !troubles.some((reason) => reason.what.includes(part.note)) ? part.note : "";
    return make(
      "tr",
      { role: "row" },
      make(
        "th",
        { scope: "row", role: "rowheader", class: "name" },
        make("span", { class: "device-name" }, part.name),
        part.kind && part.kind !== part.name ? make("small", {}, part.kind) : null,
      ),
      make("td", { role: "cell", class: "state-cell" }, make("span", { class: `state ${part.mood}` }, part.state)),
      make(
        "td",
        { role: "cell", class: "words" },
        cell,
        ...troubles.map((reason) => make("p", { class: "trouble" }, ...sentences(reason))),
        note ? make("p", {}, note) : null,
      ),
    );
  });
  byId(id).replaceChildren(...made);
  return cells;
}

function sentences({ what, remedy }) {
  return [what, remedy ? make("span", { class: "remedy" }, remedy) : null].filter(Boolean);
}

function sourceWords(source, since_s) {
  const last = known(source.last_reading_age_s)
    ? `last reading ${moment(source.last_reading_age_s + since_s)}`
    : "no reading yet";
  const again = source.restarts ? ` · started again ${count(source.restarts, "time")}` : "";
  return `${last} · ${count(source.readings, "reading")}${again}`;
}

function outputWords(output, since_s) {
  const words = [`${count(output.delivered, "record")} delivered`, `${count(output.pending, "record")} waiting`];
  if (known(output.oldest_pending_age_s) && output.oldest_pending_age_s > 60)
    words.push(`the oldest for ${duration(output.oldest_pending_age_s + since_s)}`);
  if (output.dropped) words.push(`${count(output.dropped, "record")} lost`);
  return words.join(" · ");
}

/** The house tells of its health every ten seconds, so what is younger than that is not known to the second. */
function moment(age_s) {
  return age_s < 15 ? "a moment ago" : `${duration(age_s)} ago`;
}

function writerWords({ writer, clock }, since_s) {
  const words = [];
  if (known(writer?.last_commit_age_s))
    words.push(`Last written to the disk ${moment(writer.last_commit_age_s + since_s)}.`);
  if (writer?.held) words.push(`${count(writer.held, "record")} held until the clock is set.`);
  if (clock) words.push(clock.synced ? "The clock is set." : "The clock is not set by a time service.");
  if (clock?.steps) words.push(`It was set anew ${count(clock.steps, "time")}.`);
  return words.join(" ");
}
