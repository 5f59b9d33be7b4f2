// Answers stay in this browser until the server has said that they are on disk. Each has a name of its own, so that one that is
// sent again counts once; each is an item of its own in the storage, so that two tabs do not overwrite each other's.
"use strict";

const PATIENCE = 15000; // ms until a request counts as lost
const SLOWEST = 15000; // ms between two tries at most

function newName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// localStorage where there is one; a browser that keeps nothing, or whose storage is full, still works while its page stays open.
class Memory {
  constructor() {
    this.items = new Map();
    this.lasts = false;
    try {
      localStorage.setItem("creativelib-test", "1");
      localStorage.removeItem("creativelib-test");
      this.lasts = true;
    } catch {}
  }
  get(name) {
    return this.items.get(name) ?? (this.lasts ? localStorage.getItem(name) : null);
  }
  set(name, value) {
    this.items.delete(name); // what is in the storage another tab may remove
    try {
      if (this.lasts) return localStorage.setItem(name, value);
    } catch {} // it is full: the page still has it
    this.items.set(name, value);
  }
  remove(name) {
    this.items.delete(name);
    if (this.lasts) localStorage.removeItem(name);
  }
  names(prefix) {
    const names = new Set(this.items.keys());
    if (this.lasts) for (let index = 0; index < localStorage.length; index++) names.add(localStorage.key(index));
    return [...names].filter((name) => name.startsWith(prefix));
  }
}

async function ask(path, body) {
  const late = new AbortController(); // phones of 2015 know no AbortSignal.timeout
  const options = { credentials: "same-origin", cache: "no-store", signal: late.signal };
  if (body) Object.assign(options, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const timer = setTimeout(() => late.abort(), PATIENCE);
  try {
    const response = await fetch(path, options);
    const found = await response.json().catch(() => ({}));
    return { status: response.status, ok: response.ok, ...found };
  } finally {
    clearTimeout(timer);
  }
}

class Outbox {
  // said(state): the server's answer with its state; problem(status, message): it will not take them; changed(): more or fewer wait;
  // elsewhere(): another tab of this person sent some. `who` answers is known when the server has said it: nobody sends another's.
  constructor(study, { said, problem, changed, elsewhere }) {
    Object.assign(this, { memory: new Memory(), study, who: null, said, problem, changed });
    this.tries = this.timer = 0;
    this.busy = this.stopped = false;
    window.addEventListener("online", () => this.send());
    window.addEventListener("beforeunload", (event) => {
      if (this.memory.items.size && this.waiting().length) event.preventDefault();
    });
    window.addEventListener("storage", (event) => {
      if (this.who && event.newValue === null && event.key?.startsWith(this.prefix)) elsewhere();
    });
  }

  get prefix() {
    return `creativelib ${this.study} answer ${this.who} `;
  }

  waiting() {
    if (!this.who) return [];
    const found = this.memory.names(this.prefix).map((name) => JSON.parse(this.memory.get(name))).filter(Boolean);
    return found.sort((one, other) => one.at - other.at);
  }

  put(answer) {
    const at = Math.max(Date.now(), (this.waiting().pop()?.at ?? 0) + 1);
    const whole = { ...answer, answer: newName(), at };
    this.memory.set(this.prefix + whole.answer, JSON.stringify(whole));
    this.changed();
    this.send();
  }

  clear() {
    if (this.who) for (const name of this.memory.names(this.prefix)) this.memory.remove(name);
    this.changed();
  }

  async send() {
    clearTimeout(this.timer);
    if (this.busy || this.stopped) return;
    const answers = this.waiting().slice(0, 50);
    if (!answers.length) return;
    this.busy = true;
    let found = null;
    try {
      found = await ask("/api/answers", { who: this.who, answers: answers.map(({ at, ...answer }) => answer) });
    } catch {} // no network, or no answer in time
    this.busy = false;
    if (found?.ok) {
      this.tries = 0;
      for (const answer of answers) if (found.done[answer.answer]) this.memory.remove(this.prefix + answer.answer);
      this.said(found);
      this.changed();
      if (this.waiting().length) this.send();
    } else if (found && [400, 401, 403, 409, 410, 413, 415].includes(found.status)) {
      this.stopped = true;
      this.problem(found.status, found.message ?? "");
    } else {
      this.tries += 1;
      this.changed();
      this.timer = setTimeout(() => this.send(), Math.min(SLOWEST, 500 * 2 ** this.tries) * (0.75 + Math.random() / 2));
    }
  }
}
