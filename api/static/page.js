// Starts the page: asks which house this is, follows its stream, and turns between the house and one device.

import { ask, KeyNeeded } from "./ask.js";
import { assign } from "./colours.js";
import { Device } from "./device.js";
import { Devices, keyOf } from "./devices.js";
import { byId, say, show } from "./dom.js";
import { Energy } from "./energy.js";
import { Health } from "./health.js";
import { needKey, setUp } from "./key.js";
import { follow } from "./live.js";
import { Now } from "./now.js";
import { Clock } from "./numbers.js";
import { Power } from "./power.js";
import { learn, titleOf } from "./titles.js";

// The api says something at least every ten seconds. What is older than that is not "now" any more.
const DIM_AFTER_S = 15;
const BLANK_AFTER_S = 45;
const BANNER_AFTER_MS = 1_500;
const NO_HISTORY =
  "This house keeps no history yet. Add [outputs.history] to its configuration and reload it: the charts begin then.";

class Page {
  constructor(house) {
    this.house = house;
    this.clock = new Clock(house.timezone);
    this.skew_ms = Date.parse(house.time) - Date.now();
    const now_s = () => (Date.now() + this.skew_ms) / 1000;
    this.now = new Now();
    this.energy = new Energy(this.clock, now_s);
    this.power = new Power(this.clock, now_s);
    this.devices = new Devices(this.energy);
    this.health = new Health();
    this.device = new Device(this.clock, now_s, house.currency);
    this.message = null;
    this.health_ms = 0;
    this.arrived = null; // by both clocks of this computer: one may sleep with it, the other may be set
    this.connected = false;
  }

  start() {
    this.introduce();
    addEventListener("hashchange", () => this.turn());
    this.turn();
    follow({
      told: (event, data) => this.told(event, data),
      state: (state, why) => this.connection(state, why),
      needKey,
    });
    setInterval(() => this.tick(), 1_000);
    document.addEventListener("visibilitychange", () => this.tick());
    this.remember();
  }

  /** Name, zone, banner and hint: what a house says of itself. */
  introduce() {
    const { house } = this;
    say(byId("site"), house.site);
    show(byId("demo"), house.simulated || house.demo);
    show(byId("hint"), Boolean(house.hint));
    say(byId("hint-text"), house.hint?.text ?? "");
    say(byId("hint-command"), house.hint?.command ?? "");
    say(byId("zone"), house.timezone);
    say(byId("version"), house.version);
    this.title();
  }

  title(device) {
    document.title = [device, this.house.site, "wattherd"].filter(Boolean).join(" · ");
  }

  /** What only the history knows. */
  async remember() {
    if (!this.house.history) {
      this.power.none(NO_HISTORY);
      this.energy.none(NO_HISTORY);
      return;
    }
    await Promise.all([this.power.load(), this.energy.load(), this.lastHour()]);
  }

  async lastHour() {
    const [answer, live] = await Promise.all([
      ask("series/stack", { metric: "power_w", from: "-1h" }).catch(() => null),
      this.message ?? ask("live").catch(() => null),
    ]);
    if (answer && live) this.now.remember(answer, live.house.of);
    if (this.message && this.age_s() < 2) this.now.live(this.message);
  }

  told(event, data) {
    if (event === "health") {
      this.health.show(data);
      this.health_ms = performance.now();
    }
    if (event !== "live") return;
    if (!this.house.history) assign(data.devices.filter((each) => each.role === "part").map(keyOf));
    this.message = data;
    this.arrived = { monotonic_ms: performance.now(), wall_ms: Date.now() };
    this.skew_ms = Date.parse(data.time) - Date.now();
    document.body.dataset.age = "fresh";
    this.nameSimulated(data.devices);
    this.now.live(data);
    this.devices.live(data);
    this.device.live(data);
    this.health.silent(data.devices.filter((each) => each.stale && !each.sleeps).length);
  }

  /** Where some sources are simulated and others are not, say which. */
  nameSimulated(devices) {
    const made_up = new Set(devices.filter((each) => each.quality === "simulated").map((each) => each.source));
    const others = devices.filter((each) => !made_up.has(each.source));
    const names = [...made_up].sort().join(" and ");
    const mixed = made_up.size > 0 && others.length > 0;
    say(byId("demo-words"), mixed ? `The numbers of ${names} are simulated` : "These numbers are simulated");
  }

  /** Seconds since the last message, whichever clock of this computer counted more. */
  age_s() {
    if (!this.arrived) return Infinity;
    return Math.max(performance.now() - this.arrived.monotonic_ms, Date.now() - this.arrived.wall_ms) / 1000;
  }

  /** Every second: what is shown grows older, and an old number is never shown as a new one. */
  tick() {
    if (document.hidden || document.body.classList.contains("locked")) return;
    const age_s = this.age_s();
    if (age_s > BLANK_AFTER_S) {
      if (document.body.dataset.age !== "blank") this.blank();
    } else {
      document.body.dataset.age = age_s > DIM_AFTER_S ? "dim" : "fresh";
      this.now.live(this.message, Math.max(age_s, 0.001));
      this.devices.live(this.message, age_s);
      this.health.grow((performance.now() - this.health_ms) / 1000);
      this.device.live(this.message, age_s);
    }
    if (!this.connected || !this.house.history) return;
    if (this.inDevice) this.device.refresh();
    else Promise.all([this.power.refresh(), this.energy.refresh()]);
  }

  blank() {
    document.body.dataset.age = "blank";
    this.now.blank();
    this.devices.blank();
    this.device.blank();
    this.health.blank();
  }

  connection(state, why) {
    const was = this.connected;
    this.connected = state === "connected";
    if (this.connected) {
      clearTimeout(this.banner);
      this.banner = null;
      show(byId("lost"), false);
      if (!was && this.before) this.again();
      this.before = true;
      return;
    }
    say(byId("lost-why"), why ? `The house says: ${why}.` : "Trying again; nothing here is live.");
    // A process that is replaced within a second is no news.
    this.banner ??= setTimeout(() => {
      show(byId("lost"), true);
      this.health.unknown();
    }, BANNER_AFTER_MS);
  }

  /** The house is back: perhaps a newer one, with other parts. */
  async again() {
    const house = await ask("house").catch(() => null);
    if (!house) return;
    if (
      house.version !== this.house.version ||
      house.history !== this.house.history ||
      house.timezone !== this.house.timezone
    )
      location.reload();
    this.house = house;
    this.introduce();
    await this.remember();
  }

  /** Show the house, or the device that the address names. */
  turn() {
    const [, source, device] = /^#device=([^/]+)\/(.+)$/.exec(location.hash) ?? [];
    const was = this.inDevice;
    this.inDevice = Boolean(device);
    show(byId("house-view"), !this.inDevice);
    show(byId("device-view"), this.inDevice);
    if (this.inDevice) {
      const of = { source: decode(source), device: decode(device) };
      this.title(titleOf(of.source, of.device));
      this.device.open(of, this.message);
      scrollTo(0, 0);
      byId("device-title").focus();
    } else {
      this.device.close();
      this.title();
      if (was) byId("devices-title").focus();
    }
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Ask until the house answers. */
async function meet() {
  for (let wait_ms = 500; ; wait_ms = Math.min(5_000, wait_ms * 2)) {
    try {
      return await ask("house");
    } catch (error) {
      if (error instanceof KeyNeeded) {
        await needKey();
        continue;
      }
      show(byId("lost"), true);
      document.body.classList.add("ready");
      await new Promise((resolve) => setTimeout(resolve, wait_ms));
    }
  }
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
setUp();
const page = new Page(await meet());
learn((await ask("devices").catch(() => ({ devices: [] }))).devices);
show(byId("lost"), false);
page.start();
document.body.classList.add("ready");
