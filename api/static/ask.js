// Asks the api of this house, with the reader's key where one is kept.

const PLACE = "wattherd.key";

/** The api wants a key, or another one than it got. */
export class KeyNeeded extends Error {}

/** The api answered that it cannot: `status` and its own words. */
export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

/** The key of this browser; empty if there is none, or where it may keep nothing. */
export function key() {
  try {
    return localStorage.getItem(PLACE) ?? "";
  } catch {
    return "";
  }
}

/** Keep a key in this browser, or forget it. */
export function keep(value) {
  try {
    if (value) localStorage.setItem(PLACE, value);
    else localStorage.removeItem(PLACE);
  } catch {
    // A browser that keeps nothing asks again next time.
  }
}

/** Fetch a path; whoever gets no usable answer gets an error that says why. */
export async function get(path, { signal, using = key() } = {}) {
  const answer = await fetch(path, { cache: "no-store", signal, headers: using ? { "X-API-Key": using } : {} });
  if (answer.ok) return answer;
  const words = await answer.json().then(
    (body) => String(body.error ?? ""),
    () => "",
  );
  if (answer.status === 403) throw new KeyNeeded(words);
  throw new Refused(answer.status, words || `the house answered with ${answer.status}`);
}

/** Fetch what the api says as JSON. */
export async function ask(path, parameters = {}, options = {}) {
  const query = new URLSearchParams(parameters).toString();
  const answer = await get(`/api/v1/${path}${query && "?"}${query}`, options);
  return answer.json();
}
