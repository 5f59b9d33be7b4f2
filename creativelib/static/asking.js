// What the pages of creativelib.study.asking.AskingPanel have in common; Python puts it before the script of each.
// They draw what Python says and send what the person does: what comes next comes when Python has kept the answer, not before.

const PATIENCE = 1500; // ms until somebody is told that Python has not answered
const GLANCE = 250; // ms; nobody has looked at pictures in less, so it was a second press of a key
const LEAVE_KEYS = { "data-lm-suppress-shortcuts": true }; // or JupyterLab would take digits and arrows for its own: 0 0 restarts

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function button(text, onclick, attributes = {}) {
  return make("button", { type: "button", click: onclick, ...LEAVE_KEYS, ...attributes }, text);
}

// Set a text only where it changes, for a live region is read out at every change.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function pictureUrl(bytes) {
  return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
}

// How long pictures are seen: from when all of them are there, and not while the page is hidden.
class Look {
  constructor() {
    this.images = [];
    this.urls = [];
    this.watch = () => (document.hidden ? this.pause() : this.go());
    document.addEventListener("visibilitychange", this.watch);
  }
  show(images, bytes) {
    this.urls.forEach(URL.revokeObjectURL);
    Object.assign(this, { images, urls: bytes.map(pictureUrl), before: 0, since: null });
    images.forEach((image, number) => {
      image.onload = () => this.go();
      image.src = this.urls[number];
    });
  }
  go() {
    if (this.since === null && !document.hidden && this.images.every((image) => image.complete)) this.since = performance.now();
  }
  pause() {
    if (this.since !== null) this.before += performance.now() - this.since;
    this.since = null;
  }
  // In ms; null while they are not seen, and within a glance.
  get time() {
    const time = this.since === null ? 0 : Math.round(this.before + performance.now() - this.since);
    return time < GLANCE ? null : time;
  }
  end() {
    document.removeEventListener("visibilitychange", this.watch);
    this.urls.forEach(URL.revokeObjectURL);
  }
}

// One person's page: consent, then what a panel asks, then thanks; below it how far they are, and the ways out.
class Asking {
  constructor(model, el, progress) {
    Object.assign(this, { model, el, look: new Look(), timer: 0 });
    this.pending = false; // something was sent and not answered
    this.sent = null; // the last message, to be sent again where it was not kept
    this.drawn = null; // the id of what is asked about on the page; null while somebody is asked for their consent
    this.consent = this.#consent();
    this.thanks = make("p", { class: "thanks", tabindex: -1, ...LEAVE_KEYS }, "That was all: thank you. Everything is kept.");
    this.bar = make("div", { class: "bar", role: "progressbar", "aria-label": progress, "aria-valuemin": 0 }, make("div"));
    this.count = make("span", { class: "count" });
    this.note = make("p", { class: "note", role: "status", "aria-live": "polite" });
    this.error = make("p", { class: "error", role: "alert" });
    this.again = button("Send it again", () => this.send(this.sent), { class: "again" });
  }

  get state() {
    return this.model.get("state");
  }

  send(message) {
    if (this.pending) return;
    this.pending = true;
    this.sent = message;
    this.el.classList.add("waiting");
    const late = "Python has not answered yet: it is busy, or was stopped. Nothing is kept until it answers.";
    this.timer = setTimeout(() => say(this.note, late), PATIENCE);
    this.model.send(message);
  }

  #consent() {
    const writing = { autocomplete: "off", autocapitalize: "none", autocorrect: "off", spellcheck: "false" };
    this.code = make("input", { type: "text", maxlength: 40, id: `code-${Math.random()}`, ...writing, ...LEAVE_KEYS });
    this.agree = make("input", { type: "checkbox", ...LEAVE_KEYS });
    const start = () => this.send({ do: "begin", code: this.code.value, consent: this.agree.checked, again: this.state.known });
    this.begin = button("Begin", start, { class: "main" });
    this.code.addEventListener("keydown", (event) => event.key === "Enter" && start());
    this.code.addEventListener("input", () => this.#named());
    return make("div", { class: "consent" },
      ...this.model.get("consent").split("\n\n").map((text) => make("p", {}, text)),
      make("p", {}, make("label", { for: this.code.id }, "Your code: "), this.code, make("span", { class: "hint" }, " note it down: with it you go on later")),
      make("p", {}, make("label", {}, this.agree, " I have read this and agree to take part.")),
      this.begin,
    );
  }

  // Who types another code than the known one does not go on as that person.
  #named() {
    const { known } = this.state;
    say(this.begin, known && known === this.code.value.trim() ? `Go on as ${known}` : "Begin");
  }

  #foot(extra) {
    const sure = (this.sure = make("span", { class: "sure" }));
    const leave = button("Stop here", () => this.send({ do: "leave" }), { title: "Everything is kept; with your code you can go on" });
    const withdraw = button("Withdraw", () => {
      const yes = button(`Delete all of ${this.state.code}`, () => this.send({ do: "withdraw" }), { class: "danger" });
      sure.replaceChildren(" It cannot be taken back. ", yes, " ", button("Keep it", () => (sure.replaceChildren(), withdraw.focus())));
      yes.focus();
    });
    return make("div", { class: "foot" }, this.bar, this.count, ...extra, leave, withdraw, sure);
  }

  // Put the page together. phase: in which `part` asks; focus: what of it takes keys; extra: buttons of the foot; show(state): draw
  // what is asked now; key(event): what a key does there, false for one that means nothing; after(): whenever all is drawn.
  // Returns what anywidget calls at the end.
  start({ phase, part, focus, label, extra = [], show, key, after = () => {} }) {
    const parts = { consent: this.consent, [phase]: part, done: this.thanks };
    this.foot = this.#foot(extra);
    this.el.classList.add("creativelib-rating");
    this.el.setAttribute("role", "group");
    this.el.setAttribute("aria-label", label);
    this.el.append(...Object.values(parts), this.foot, this.note, this.error, this.again);
    this.el.addEventListener("keydown", (event) => {
      if (event.target === this.code || this.state.phase === "consent") return; // there they write
      const act = key(event);
      if (!act) return;
      event.preventDefault();
      event.stopPropagation();
      if (!event.repeat) act(); // a key held down is one answer
    });
    const draw = () => {
      const now = this.state;
      const focused = this.el.contains(document.activeElement);
      this.pending = false;
      clearTimeout(this.timer);
      this.el.classList.remove("waiting");
      for (const [name, element] of Object.entries(parts)) element.hidden = name !== now.phase;
      this.foot.hidden = now.phase === "consent";
      this.sure.replaceChildren();
      this.again.hidden = !now.again || this.sent === null;
      if (now.known) this.code.value = now.known; // as it is kept, however it was typed
      if (now.phase === "consent") {
        if (document.activeElement !== this.code && (this.drawn !== null || !this.code.value)) this.code.value = now.code;
        this.drawn = null;
        this.#named();
      } else if (now.phase === "done") this.drawn = "";
      else show(now);
      this.bar.setAttribute("aria-valuenow", now.done);
      this.bar.setAttribute("aria-valuemax", now.of);
      this.bar.firstChild.style.width = `${(100 * now.done) / now.of}%`;
      say(this.count, `${now.code}: ${now.done} of ${now.of}`);
      say(this.note, now.note);
      say(this.error, now.error);
      const away = !document.activeElement?.checkVisibility?.();
      if (focused && (away || document.activeElement === document.body)) {
        ({ consent: now.known ? this.begin : this.code, [phase]: focus, done: this.thanks })[now.phase].focus({ preventScroll: true });
      }
      after();
    };
    draw();
    this.model.on("change:state", draw);
    return () => {
      this.model.off("change:state", draw);
      clearTimeout(this.timer);
      this.look.end();
    };
  }
}
