// The view of creativelib.study.paired_panel.PairedPanel: two sets of pictures, the keys left and right choose one.
// The next pair comes when Python has kept the choice, not before.

const PATIENCE = 1500; // ms until a rater is told that Python has not answered
const GLANCE = 250; // ms; nobody has looked at two sets in less, so it was a second press of a key
const LEAVE_KEYS = { "data-lm-suppress-shortcuts": true }; // or JupyterLab would take the arrows for its own
const SIDES = ["left", "right"];

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

function say(element, text) {
  if (element.textContent !== text) element.textContent = text; // a live region is read out at every change
}

function render({ model, el }) {
  const state = () => model.get("state");
  let timer = 0; // of an answer
  let pending = false; // something was sent and not answered
  let sent = null; // the last message, to be sent again where it was not kept
  let seenAt = null; // when both pictures had appeared
  let drawn = null; // the id on the left
  let urls = [];

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
  const start = () => send({ do: "begin", code: code.value, consent: agree.checked, again: state().known });
  const begin = button("Begin", start, { class: "main" });
  code.addEventListener("keydown", (event) => event.key === "Enter" && start());
  const consent = make("div", { class: "consent" },
    ...model.get("consent").split("\n\n").map((text) => make("p", {}, text)),
    make("p", {}, make("label", { for: code.id }, "Your code: "), code, make("span", { class: "hint" }, " note it down: with it you go on later")),
    make("p", {}, make("label", {}, agree, " I have read this and agree to take part.")),
    begin,
  );

  // --- choosing ---

  const pictures = SIDES.map(() => make("img", { alt: "", draggable: false }));
  const choices = SIDES.map((side, number) =>
    button("", () => choose(side), { class: "choice", "aria-keyshortcuts": number ? "ArrowRight" : "ArrowLeft" }));
  choices.forEach((element, number) => element.append(make("b", {}, number ? "right →" : "← left"), pictures[number]));
  const question = make("p", { class: "question" });
  const keys = make("p", { class: "keys" }, "Click one, or press the left or right arrow key.");
  const choosing = make("div", { class: "choosing", tabindex: -1, ...LEAVE_KEYS },
    question, make("div", { class: "choices", role: "group", "aria-label": "Your choice" }, ...choices), keys);

  function choose(side) {
    if (state().phase !== "choose" || seenAt === null || performance.now() - seenAt < GLANCE) return;
    send({ do: "choose", side, left: drawn });
  }

  function show() {
    if (drawn === state().left) return;
    drawn = state().left;
    seenAt = null;
    urls.forEach(URL.revokeObjectURL);
    urls = SIDES.map((side) => URL.createObjectURL(new Blob([model.get(side)], { type: "image/png" })));
    let waiting = SIDES.length;
    pictures.forEach((picture, number) => {
      picture.onload = () => (waiting -= 1) === 0 && (seenAt = performance.now());
      picture.src = urls[number];
    });
  }

  // --- all of it ---

  const thanks = make("p", { class: "thanks", tabindex: -1, ...LEAVE_KEYS }, "That was all: thank you. Everything is kept.");
  const bar = make("div", { class: "bar", role: "progressbar", "aria-label": "Pairs done", "aria-valuemin": 0 }, make("div"));
  const count = make("span", { class: "count" });
  const note = make("p", { class: "note", role: "status", "aria-live": "polite" });
  const error = make("p", { class: "error", role: "alert" });
  const again = button("Send it again", () => send(sent), { class: "again" });
  const sure = make("span", { class: "sure" });
  const leave = button("Stop here", () => send({ do: "leave" }), { title: "Everything is kept; with your code you can go on" });
  const withdraw = button("Withdraw", () => {
    const yes = button(`Delete all of ${state().code}`, () => send({ do: "withdraw" }), { class: "danger" });
    sure.replaceChildren(" It cannot be taken back. ", yes, " ", button("Keep it", () => (sure.replaceChildren(), withdraw.focus())));
    yes.focus();
  });
  const foot = make("div", { class: "foot" }, bar, count, leave, withdraw, sure);

  function draw() {
    const now = state();
    const focused = el.contains(document.activeElement);
    pending = false;
    clearTimeout(timer);
    el.classList.remove("waiting");
    for (const [phase, part] of [["consent", consent], ["choose", choosing], ["done", thanks]]) part.hidden = phase !== now.phase;
    foot.hidden = now.phase === "consent";
    sure.replaceChildren();
    again.hidden = !now.again || sent === null;
    if (now.known) code.value = now.known; // as it is kept, however it was typed
    if (now.phase === "consent") {
      if (document.activeElement !== code && (drawn !== null || !code.value)) code.value = now.code;
      say(begin, now.known ? `Go on as ${now.known}` : "Begin");
      drawn = null;
    }
    if (now.phase === "choose") {
      say(question, `Which is more creative? The subject is: ${now.subject}.`);
      show();
      choices.forEach((element, number) => element.setAttribute("aria-label", `${SIDES[number]}: three pictures of ${now.subject}, pair ${now.done + 1} of ${now.of}`));
    }
    bar.setAttribute("aria-valuenow", now.done);
    bar.setAttribute("aria-valuemax", now.of);
    bar.firstChild.style.width = `${(100 * now.done) / now.of}%`;
    say(count, `${now.code}: ${now.done} of ${now.of}`);
    say(note, now.note);
    say(error, now.error);
    const away = !document.activeElement?.checkVisibility?.();
    if (focused && (away || document.activeElement === document.body)) {
      ({ consent: now.known ? begin : code, choose: choosing, done: thanks })[now.phase].focus({ preventScroll: true });
    }
  }

  el.classList.add("creativelib-rating", "creativelib-paired");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Choosing between two sets of pictures");
  el.addEventListener("keydown", (event) => {
    const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
    if (!side || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target === code || state().phase !== "choose") return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) choose(side); // a key held down is one answer
  });
  el.append(consent, choosing, thanks, foot, note, error, again);
  draw();
  model.on("change:state", draw);
  return () => {
    model.off("change:state", draw);
    clearTimeout(timer);
    urls.forEach(URL.revokeObjectURL);
  };
}

export default { render };
