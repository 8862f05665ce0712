// The table of devices: what each does now, what it used today, and how old that is.

import { colourOf } from "./colours.js";
import { byId, make, say, show } from "./dom.js";
import { duration, energy, known, metricValue, money, power } from "./numbers.js";
import { titleOf } from "./titles.js";

const COLUMNS = ["name", "state", "power", "today", "cost", "age"];

const ROLES = { grid: "grid", generation: "generation" };

export class Devices {
  #rows = new Map();
  #sort = { by: "name", down: false };
  #devices = [];
  #since_s = 0;

  constructor(energy) {
    this.energy = energy;
    for (const button of document.querySelectorAll("#devices-table thead button")) {
      button.addEventListener("click", () => this.#sortBy(button.dataset.by));
    }
    document.addEventListener("colours", () => this.#render());
    document.addEventListener("energy", () => this.#render());
  }

  /** Show a message of the stream that came `since_s` ago. */
  live({ devices }, since_s = 0) {
    this.#devices = devices;
    this.#since_s = since_s;
    this.#render();
  }

  /** Nothing is known any more. */
  blank() {
    for (const row of this.#rows.values()) {
      row.line.classList.remove("stale");
      row.state.className = "state none";
      say(row.state, "");
      say(row.power, "–");
      say(row.age, "no connection");
    }
  }

  #render() {
    const keys = new Set(this.#devices.map(keyOf));
    for (const [key, row] of this.#rows) {
      if (!keys.has(key)) {
        row.line.remove();
        this.#rows.delete(key);
      }
    }
    for (const device of this.#devices) this.#fill(device);
    show(byId("devices-empty"), !this.#devices.length);
    byId("devices-table").classList.toggle("costless", !this.energy.currency);
    this.#order();
  }

  #fill(device) {
    const key = keyOf(device);
    if (!this.#rows.has(key)) this.#rows.set(key, this.#row(device));
    const row = this.#rows.get(key);
    const age_s = known(device.age_s) ? device.age_s + this.#since_s : null;
    const today = this.energy.todayOf(device.source, device.device);
    row.swatch.className = `swatch of-${colourOf(key, device.role)}`;
    row.line.classList.toggle("stale", device.stale);
    say(row.state, device.stale ? "silent" : (device.values.state ?? ""));
    row.state.className = `state ${moodOf(device)}`;
    say(row.power, device.stale ? "–" : ownValue(device));
    say(row.today, `${energy(today.energy_wh)}${today.estimated ? " ~" : ""}`);
    row.today.title = today.estimated ? "partly estimated" : "";
    say(row.cost, money(today.cost, this.energy.currency));
    say(row.age, device.stale ? (age_s === null ? "never heard" : `stale for ${duration(age_s)}`) : ago(age_s));
    row.value = {
      name: titleOf(device.source, device.device).toLowerCase(),
      state: device.stale ? "\uffff" : (device.values.state ?? ""),
      power: device.stale ? null : (device.values.power_w ?? null),
      today: today.energy_wh,
      cost: today.cost,
      age: age_s,
    };
  }

  #row({ source, device, role }) {
    const title = titleOf(source, device);
    const more = [title === device ? source : `${source}/${device}`, ROLES[role]].filter(Boolean).join(" · ");
    const row = {
      swatch: make("span", { class: "swatch", "aria-hidden": "true" }),
      state: make("span", { class: "state" }),
      power: make("span"),
      today: make("span"),
      cost: make("span"),
      age: make("span"),
    };
    const link = make("a", { href: hashOf(source, device) }, make("span", { class: "device-name" }, title));
    row.line = make(
      "tr",
      { role: "row" },
      make("th", { scope: "row", role: "rowheader", class: "name" }, row.swatch, link, make("small", {}, more)),
      ...COLUMNS.slice(1).map((column) => make("td", { role: "cell", class: column }, row[column])),
    );
    byId("devices-rows").append(row.line);
    return row;
  }

  #sortBy(column) {
    const first_down = column === "power" || column === "today" || column === "cost";
    this.#sort = this.#sort.by === column ? { by: column, down: !this.#sort.down } : { by: column, down: first_down };
    for (const head of document.querySelectorAll("#devices-table thead th")) {
      const mine = head.querySelector("button").dataset.by === this.#sort.by;
      if (mine) head.setAttribute("aria-sort", this.#sort.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    this.#order(true);
  }

  /** Put the rows in order. Numbers that change do not make rows jump: only their names and a click do that. */
  #order(asked = false) {
    const there = [...byId("devices-rows").children];
    const fixed = this.#sort.by === "name" || asked || this.#rows.size !== this.ordered;
    if (!fixed) return;
    this.ordered = this.#rows.size;
    const { by, down } = this.#sort;
    const sorted = [...this.#rows.values()].sort((one, other) => {
      const [a, b] = [one.value[by], other.value[by]];
      if (a === null || b === null) return (a === null) - (b === null); // what nobody knows comes last, either way
      const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
      return (down ? -order : order) || one.value.name.localeCompare(other.value.name);
    });
    if (sorted.some((row, i) => row.line !== there[i])) byId("devices-rows").append(...sorted.map((row) => row.line));
  }
}

/** The address of a device's own page. */
export function hashOf(source, device) {
  return `#device=${encodeURIComponent(source)}/${encodeURIComponent(device)}`;
}

export function keyOf({ source, device }) {
  return `${source}/${device}`;
}

/** How long ago, in words. */
export function ago(age_s) {
  if (!known(age_s)) return "–";
  return age_s < 2.5 ? "just now" : `${duration(age_s)} ago`;
}

function moodOf(device) {
  if (device.stale) return device.sleeps ? "plain" : "bad";
  return device.values.state ? "plain" : "none";
}

/** Its power; for what has none (a gas meter, a thermometer) the first thing that it measures. */
function ownValue({ values }) {
  if ("power_w" in values) return power(values.power_w);
  const metric = Object.keys(values).find((name) => name !== "state" && typeof values[name] === "number");
  return metric ? metricValue(metric, values[metric]) : "–";
}
