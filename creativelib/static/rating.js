// The view of creativelib.study.panel.RatingPanel. It draws what Python says and sends what the rater does:
// the next picture comes when Python has kept the rating of this one, not before.

const PATIENCE = 1500; // ms until a rater is told that Python has not answered
const GLANCE = 250; // ms; nobody has looked at a picture in less, so it was a second press of a key
const LEAVE_KEYS = { "data-lm-suppress-shortcuts": true }; // or JupyterLab would take digits for headings and 0 0 for a restart

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

function render({ model, el }) {
  const subject = model.get("subject");
  const state = () => model.get("state");
  let timer = 0; // of an answer
  let pending = false; // something was sent and not answered
  let seenAt = null; // when the picture appeared, or the page was shown again
  let looked = 0; // ms that it was seen before that: a hidden page is not looked at
  let sent = null; // the last message, to be sent again where it was not kept
  let drawn = null; // the id of the picture on the page
  let url = "";

  function send(message) {
    if (pending) return;
    pending = true;
    sent = message;
    el.classList.add("waiting");
    timer = setTimeout(() => say(note, "Python has not answered yet: it is busy, or was stopped. Nothing is kept until it answers."), PATIENCE);
    model.send(message);
  }

  // --- consent ---

  const code = make("input", {
    type: "text", maxlength: 40, id: `code-${Math.random()}`, autocomplete: "off", autocapitalize: "none", autocorrect: "off", spellcheck: "false",
    ...LEAVE_KEYS,
  });
  const agree = make("input", { type: "checkbox", ...LEAVE_KEYS });
  const begin = button("Begin", start, { class: "main" });
  function start() {
    send({ do: "begin", code: code.value, consent: agree.checked, again: state().known });
  }
  code.addEventListener("keydown", (event) => event.key === "Enter" && start());
  code.addEventListener("input", () => say(begin, goOn() ? `Go on as ${state().known}` : "Begin"));
  const goOn = () => state().known && state().known === code.value.trim();
  const consent = make("div", { class: "consent" },
    ...model.get("consent").split("\n\n").map((text) => make("p", {}, text)),
    make("p", {}, make("label", { for: code.id }, "Your code: "), code, make("span", { class: "hint" }, " note it down: with it you go on later")),
    make("p", {}, make("label", {}, agree, " I have read this and agree to take part.")),
    begin,
  );

  // --- rating ---

  const picture = make("img", { alt: "", draggable: false });
  const stage = make("div", { class: "stage", tabindex: 0, role: "img", ...LEAVE_KEYS }, picture);
  const anchor = model.get("anchor").byteLength ? pictureUrl(model.get("anchor")) : "";
  const pictures = make("div", { class: "pictures" });
  if (anchor) pictures.append(make("figure", {}, make("img", { src: anchor, alt: `the default ${subject}`, draggable: false }), make("figcaption", {}, "for comparison: 1, boring")));
  pictures.append(stage);
  const scale = make("div", { class: "scale", role: "group", "aria-label": "Your rating, keys 0 to 5" },
    ...model.get("meanings").map((words, value) =>
      button("", () => rate(value), { class: "value", "aria-label": `${value}${words && `, ${words}`}`, "aria-keyshortcuts": value })),
  );
  [...scale.children].forEach((element, value) => element.append(make("b", {}, value), make("span", {}, model.get("meanings")[value])));
  const keys = make("p", { class: "keys" });
  const rating = make("div", { class: "rating" },
    make("p", { class: "question" }, `How creative is this ${subject}?`), pictures, scale, keys);

  function rate(value) {
    if (state().phase !== "rate" || seenAt === null) return;
    const milliseconds = Math.round(looked + performance.now() - seenAt);
    if (milliseconds < GLANCE) return;
    send({ do: "rate", stimulus: drawn, value, milliseconds });
  }

  function watch() {
    if (document.hidden && seenAt !== null) {
      looked += performance.now() - seenAt;
      seenAt = null;
    } else if (!document.hidden && seenAt === null && drawn && picture.complete) seenAt = performance.now();
  }

  function show() {
    if (drawn === state().stimulus) return;
    drawn = state().stimulus;
    seenAt = null;
    looked = 0;
    URL.revokeObjectURL(url);
    url = pictureUrl(model.get("picture"));
    picture.onload = () => (seenAt = document.hidden ? null : performance.now());
    picture.src = url;
  }

  // --- all of it ---

  const thanks = make("p", { class: "thanks", tabindex: -1, ...LEAVE_KEYS }, "That was all: thank you. Everything is kept.");
  const bar = make("div", { class: "bar", role: "progressbar", "aria-label": "Pictures rated", "aria-valuemin": 0 }, make("div"));
  const count = make("span", { class: "count" });
  const note = make("p", { class: "note", role: "status", "aria-live": "polite" });
  const error = make("p", { class: "error", role: "alert" });
  const again = button("Send it again", () => send(sent), { class: "again" });
  const sure = make("span", { class: "sure" });
  const undo = button("Undo", () => send({ do: "undo" }), { "aria-keyshortcuts": "U Control+Z Meta+Z", title: "Undo (u)" });
  const leave = button("Stop here", () => send({ do: "leave" }), { title: "Everything is kept; with your code you can go on" });
  const withdraw = button("Withdraw", () => {
    const yes = button(`Delete all of ${state().code}`, () => send({ do: "withdraw" }), { class: "danger" });
    sure.replaceChildren(" It cannot be taken back. ", yes, " ", button("Keep it", () => (sure.replaceChildren(), withdraw.focus())));
    yes.focus();
  });
  const foot = make("div", { class: "foot" }, bar, count, undo, leave, withdraw, sure);

  function hint() {
    say(keys, el.contains(document.activeElement) ? "Press 0 to 5; u takes the last one back." : "Click the picture, then use the keys 0 to 5.");
  }

  function draw() {
    const now = state();
    const focused = el.contains(document.activeElement);
    pending = false;
    clearTimeout(timer);
    el.classList.remove("waiting");
    for (const [phase, part] of [["consent", consent], ["rate", rating], ["done", thanks]]) part.hidden = phase !== now.phase;
    foot.hidden = now.phase === "consent";
    sure.replaceChildren();
    again.hidden = !now.again || sent === null;
    if (now.known) code.value = now.known; // as it is kept, however it was typed
    if (now.phase === "consent" && document.activeElement !== code && (drawn !== null || !code.value)) code.value = now.code;
    if (now.phase === "consent") (drawn = null), say(begin, goOn() ? `Go on as ${now.known}` : "Begin");
    if (now.phase === "rate") {
      show();
      stage.setAttribute("aria-label", `picture ${now.done + 1} of ${now.of}`);
    } else if (now.phase === "done") drawn = "";
    bar.setAttribute("aria-valuenow", now.done);
    bar.setAttribute("aria-valuemax", now.of);
    bar.firstChild.style.width = `${(100 * now.done) / now.of}%`;
    say(count, `${now.code}: ${now.done} of ${now.of}`);
    say(note, now.note);
    say(error, now.error);
    const away = !document.activeElement?.checkVisibility?.();
    if (focused && (away || document.activeElement === document.body)) {
      ({ consent: now.known ? begin : code, rate: stage, done: thanks })[now.phase].focus({ preventScroll: true });
    }
    hint();
  }

  el.classList.add("creativelib-rating");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", `Rating of pictures of the subject ${subject}`);
  el.addEventListener("focusin", hint);
  el.addEventListener("focusout", () => setTimeout(hint));
  el.addEventListener("keydown", (event) => {
    if (event.target === code || state().phase === "consent") return; // there they write
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const back = plain ? event.key === "u" : event.key.toLowerCase() === "z" && !event.altKey && !event.shiftKey;
    const value = plain && /^[0-5]$/.test(event.key) ? Number(event.key) : null;
    if (value === null && !back) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat) return; // a key held down is one answer
    if (back) send({ do: "undo" });
    else rate(value);
  });
  el.append(consent, rating, thanks, foot, note, error, again);
  document.addEventListener("visibilitychange", watch);
  draw();
  model.on("change:state", draw);
  return () => {
    model.off("change:state", draw);
    document.removeEventListener("visibilitychange", watch);
    clearTimeout(timer);
    [url, anchor].forEach(URL.revokeObjectURL);
  };
}

export default { render };
