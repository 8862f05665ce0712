// What was used and what it costs: today beside yesterday, seven days, twelve months.

import { ask, Refused } from "./ask.js";
import { Bars } from "./bars.js";
import { choice } from "./choice.js";
import { byId, make, say, show } from "./dom.js";
import { comparison, energy, known, money } from "./numbers.js";

const VIEWS = { today: "Today", days: "7 days", months: "Months" };
const EVERY_MS = 60_000;

export class Energy {
  #view = "today";
  #hours = null;
  #days = null;
  #months = null;
  #bars = [];
  #asked_ms = -Infinity;
  #chart;

  constructor(clock, now_s) {
    this.clock = clock;
    this.now_s = now_s;
    choice(byId("energy-view"), "energy-view", VIEWS, this.#view, (view) => {
      this.#view = view;
      this.load();
    });
    this.#chart = new Bars(byId("energy-chart"), {
      label: "Energy, a period of it",
      read: (index) => this.#readout(index),
    });
  }

  /** Ask again if what is shown has grown old. */
  async refresh() {
    if (performance.now() - this.#asked_ms > EVERY_MS) await this.load();
  }

  async load() {
    this.#asked_ms = performance.now();
    try {
      [this.#hours, this.#days, this.#months] = await Promise.all([
        ask("energy", { by: "hour", from: "-49h" }),
        ask("energy", { by: "day", from: "-7d" }),
        this.#view === "months" ? ask("energy", { by: "month", from: "-365d" }) : this.#months,
      ]);
      this.#show();
    } catch (error) {
      if (error instanceof Refused) this.none(error.message);
    }
  }

  /** Say why there is nothing. */
  none(words) {
    say(byId("energy-empty"), words);
    show(byId("energy-empty"), true);
    byId("energy").classList.add("without");
  }

  /** What one channel used today, and what that costs; null where nobody knows. */
  todayOf(source, device) {
    if (!this.#days) return { energy_wh: null, cost: null, estimated: false };
    const channel = registerOf(this.#days, source, device);
    const at = this.#today();
    return {
      energy_wh: channel?.energy_wh[at] ?? null,
      cost: channel?.cost?.[at] ?? null,
      estimated: channel?.estimated?.[at] ?? false,
    };
  }

  get currency() {
    return this.#days?.currency ?? null;
  }

  #today() {
    return this.#days.periods.length - 1;
  }

  #show() {
    byId("energy").classList.remove("without");
    const { house, currency } = this.#days;
    show(byId("energy-empty"), !house.energy_wh.some(known) && this.#view !== "months");
    say(byId("energy-empty"), "No energy was counted yet. It appears here after some minutes.");
    this.#bars = { today: () => this.#todayBars(), days: () => this.#dayBars(), months: () => this.#monthBars() }[
      this.#view
    ]();
    this.#figures(
      {
        today: () => this.#todayFigures(),
        days: () => this.#sums("7 days", this.#bars),
        months: () => this.#sums("12 months", this.#bars),
      }[this.#view](),
    );
    this.#chart.set(this.#bars);
    this.#table(currency);
    this.#readout(null);
    const notes = [];
    if (this.#bars.some((bar) => bar.estimated)) notes.push("Hatched: partly estimated, because readings are missing.");
    if (this.#view === "today" && this.#bars.some((bar) => known(bar.before_wh))) notes.push("Grey: the day before.");
    if (this.#bars.some((bar) => bar.sent_wh > 0)) notes.push("Below zero: sent to the grid.");
    if (!currency) notes.push("No prices yet: [tariffs.main] in the configuration adds what it costs.");
    say(byId("energy-note"), notes.join(" "));
    document.dispatchEvent(new CustomEvent("energy"));
  }

  /** The hours of today with those of yesterday behind them, hour by hour of the clock on the wall. */
  #todayBars() {
    const today = this.clock.date(this.now_s());
    const hours = barsOf(this.#hours, (period) => period.start.slice(11, 13));
    const mine = hours.filter((bar) => bar.start.startsWith(today));
    const days = [...new Set(hours.map((bar) => bar.start.slice(0, 10)))].filter((day) => day < today);
    const before = new Map(); // an hour that came twice, because the clocks were set back, counts whole
    for (const bar of hours.filter((each) => each.start.startsWith(days.at(-1) ?? "none"))) {
      if (known(bar.used_wh)) before.set(bar.label, (before.get(bar.label) ?? 0) + bar.used_wh);
    }
    const first = new Set();
    const bars = mine.map((bar) => {
      const once = !first.has(bar.label);
      first.add(bar.label);
      return { ...bar, before_wh: once ? (before.get(bar.label) ?? null) : null };
    });
    // The rest of the day is still to come: its place is kept, and yesterday's shows what may be expected.
    for (let hour = Number(bars.at(-1)?.label ?? -1) + 1; hour < 24; hour++) {
      const label = String(hour).padStart(2, "0");
      bars.push({
        label,
        used_wh: null,
        sent_wh: null,
        cost: null,
        estimated: false,
        before_wh: before.get(label) ?? null,
        start: "",
      });
    }
    return bars;
  }

  #dayBars() {
    return barsOf(this.#days, (period) => this.clock.say("weekday", Date.parse(period.start) / 1000)).slice(-7);
  }

  #monthBars() {
    return barsOf(this.#months, (period) => this.clock.say("month", Date.parse(period.start) / 1000 + 86_400)).slice(
      -12,
    );
  }

  #todayFigures() {
    const { house, currency, periods } = this.#days;
    const at = this.#today();
    const used = house.energy_wh[at];
    const before = this.#yesterdayByNow();
    const compared = comparison(used, before);
    return [
      ["Today", energy(used), house.estimated[at] ? "partly estimated" : ""],
      currency ? ["Cost today", money(house.cost[at], currency), ""] : null,
      house.export_wh[at] > 0 ? ["Sent out today", energy(house.export_wh[at]), ""] : null,
      known(before) ? ["Yesterday by now", energy(before), compared && `today ${compared}`] : null,
      periods.length > 1 && known(house.energy_wh[at - 1])
        ? ["Yesterday", energy(house.energy_wh[at - 1]), currency ? money(house.cost[at - 1], currency) : ""]
        : null,
    ]
      .filter(Boolean)
      .slice(0, 4);
  }

  /** Yesterday's hours that are over today, and the fitting part of the one that is not. */
  #yesterdayByNow() {
    const now = this.now_s();
    let sum = null;
    for (const bar of this.#bars) {
      if (!bar.start || !known(bar.before_wh)) continue;
      const passed = Math.min(1, Math.max(0, (now - Date.parse(bar.start) / 1000) / 3600));
      sum = (sum ?? 0) + passed * bar.before_wh;
    }
    return sum;
  }

  #sums(words, bars) {
    const total = (pick) => {
      const seen = bars.map(pick).filter(known);
      return seen.length ? seen.reduce((sum, value) => sum + value, 0) : null;
    };
    const used = total((bar) => bar.used_wh);
    const whole = bars.filter((bar) => known(bar.used_wh)).length;
    const unit = this.#view === "months" ? "month" : "day";
    const { currency } = this.#days;
    const sent = total((bar) => bar.sent_wh);
    return [
      [words, energy(used), bars.some((bar) => bar.estimated) ? "partly estimated" : ""],
      currency
        ? [
            "Cost",
            money(
              total((bar) => bar.cost),
              currency,
            ),
            "",
          ]
        : null,
      [`Mean of a ${unit}`, energy(whole ? used / whole : null), ""],
      sent > 0 ? ["Sent out", energy(sent), ""] : null,
    ].filter(Boolean);
  }

  #figures(figures) {
    const made = figures.map(([name, value, more]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value), more ? make("dd", { class: "more" }, more) : null),
    );
    byId("energy-figures").replaceChildren(...made);
  }

  #readout(index) {
    const bar = index === null ? undefined : this.#bars[index];
    const plain = { today: "Hour by hour, in kWh", days: "Day by day, in kWh", months: "Month by month, in kWh" }[
      this.#view
    ];
    const words = bar ? this.#words(bar) : plain;
    say(byId("energy-when"), words);
    return words;
  }

  #words(bar) {
    const parts = [];
    if (bar.start) parts.push(energy(bar.used_wh));
    if (bar.sent_wh > 0) parts.push(`${energy(bar.sent_wh)} sent out`);
    if (known(bar.cost)) parts.push(money(bar.cost, this.currency));
    if (bar.estimated) parts.push("partly estimated");
    if (known(bar.before_wh)) parts.push(`yesterday ${energy(bar.before_wh)}`);
    return `${this.#periodName(bar)}: ${parts.join(", ") || "nothing known"}`;
  }

  #periodName(bar) {
    if (this.#view === "today") return `${bar.label}:00 to ${String((Number(bar.label) + 1) % 24).padStart(2, "0")}:00`;
    const begin = Date.parse(bar.start) / 1000;
    return this.#view === "days" ? this.clock.say("day", begin) : this.clock.say("monthYear", begin + 86_400);
  }

  #table(currency) {
    const rows = this.#bars
      .filter((bar) => bar.start)
      .map((bar) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, this.#periodName(bar)),
          make("td", {}, energy(bar.used_wh), bar.estimated ? " (estimated)" : ""),
          make("td", {}, money(bar.cost, currency)),
          make("td", {}, bar.sent_wh > 0 ? energy(bar.sent_wh) : "–"),
        ),
      );
    byId("energy-rows").replaceChildren(...rows);
  }
}

/** The register of what a channel used, in an answer of the api. */
export function registerOf({ channels }, source, device) {
  return channels.find((one) => one.source === source && one.device === device && one.metric === "energy_wh");
}

/** The bars of an answer of the api: one to each of its periods. */
export function barsOf({ periods, house }, label) {
  return periods.map((period, i) => ({
    start: period.start,
    label: label(period),
    used_wh: house.energy_wh[i] ?? null,
    sent_wh: house.export_wh?.[i] ?? null,
    cost: house.cost?.[i] ?? null,
    estimated: house.estimated?.[i] ?? false,
    before_wh: null,
  }));
}
