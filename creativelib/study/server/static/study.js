// The page of raters. What it shows follows from what the server said last and from the answers that still wait in the outbox.
"use strict";

const GLANCE = 250; // ms; nobody has looked at a picture in less, so it was a second press
const AHEAD = 4; // pictures that are fetched before they are shown, for when the network is away
const $ = (id) => document.getElementById(id);
const page = document.body.dataset;
const memory = new Memory();
const here = (name) => `creativelib ${page.study} ${name}`;

let server = null; // what /api/state said
let shown = ""; // what is on the page: a phase and an id
let phase = "";
let looked = 0; // ms that the picture was seen
let since = null; // when it appeared, or the page was shown again; null while it cannot be seen
let practice = Number(memory.get(here("practice")) ?? 0); // 0: instructions, 1, 2: shapes, 3: done
let rested = 0; // pictures at which the last break was made
let pairsBegun = false;
const fetched = new Map();

const outbox = new Outbox(page.study, { said: take, problem: stop, changed: draw, elsewhere: refresh });

function take(state) {
  server = state;
  outbox.who = state.who ?? null;
  draw();
}

async function refresh() {
  const found = await ask("/api/state").catch(() => ({}));
  if (found.ok && found.who === outbox.who) take(found);
}

function stop(status, message) {
  if (status === 410 || status === 401) forget();
  show(status === 410 || status === 401 ? "gone" : status === 403 && server && !server.open ? "closed" : phase || "gone");
  if (status === 403) server = { ...server, open: false };
  $("problem").textContent = status === 410 || status === 401 ? "" : message || `The server refused (${status}).`;
}

function forget() {
  outbox.clear();
  for (const name of ["practice", "key"]) memory.remove(here(name));
}

// --- where somebody is --------------------------------------------------------------------------------------------------

// The server's view with the waiting answers applied.
function now() {
  const rated = { ...server.rated };
  const chosen = new Set(server.pairs.filter((pair) => pair[2]).map((pair) => pair.slice(0, 2).join()));
  let last = null;
  for (const answer of outbox.waiting()) {
    if (answer.do === "rate" && rated[answer.stimulus] === undefined) rated[answer.stimulus] = answer.value;
    if (answer.do === "back") delete rated[answer.stimulus];
    if (answer.do === "choose") chosen.add([answer.left, answer.right].join());
  }
  for (const name of server.order) if (rated[name] !== undefined) last = name;
  const left = server.order.filter((name) => rated[name] === undefined);
  const pairs = server.pairs.filter((pair) => !chosen.has(pair.slice(0, 2).join()));
  return { done: server.order.length - left.length, of: server.order.length, left, last, pairs, chosen: server.pairs.length - pairs.length };
}

function draw() {
  if (!server) return;
  const waiting = outbox.waiting().length;
  const late = waiting && (outbox.tries > 0 || !navigator.onLine);
  say("net", late ? `No connection: ${waiting === 1 ? "1 answer is" : `${waiting} answers are`} kept here and will be sent by ${waiting === 1 ? "itself" : "themselves"}. You can go on.` : "");
  document.body.dataset.waiting = waiting;
  if (!server.joined) return show(server.open ? "consent" : "closed");
  $("mycode").textContent = server.code;
  $("mylink").href = server.link;
  if (!server.open && !server.finished && !waiting) return show("closed");
  if (outbox.stopped) return;
  words();
  const where = now();
  if (where.done === 0 && practice < 3) {
    if (practice === 0) return show("instructions");
    return picture("practice", `practice-${practice}`, `/static/practice-${practice}.svg`);
  }
  if (where.left.length) {
    const pause = where.done > 0 && where.done % server.break_every === 0 && rested !== where.done && where.left.length >= 3;
    if (pause) {
      $("sofar").textContent = `You have rated ${where.done} of ${where.of} pictures.`;
      return show("pause");
    }
    for (const name of where.left.slice(0, AHEAD)) ahead(name);
    return picture("rate", where.left[0], `/picture/${where.left[0]}.png`);
  }
  if (where.pairs.length) {
    if (!pairsBegun && where.chosen === 0) return show("pairintro");
    for (const pair of where.pairs.slice(0, AHEAD)) pair.slice(0, 2).forEach(ahead);
    return two(where.pairs[0]);
  }
  show("done");
  $("sending").hidden = server.finished;
  $("finish").hidden = !server.finished;
  if (server.finished) {
    $("code").textContent = server.completion.code;
    $("back").hidden = !server.completion.url;
    if (server.completion.url) $("url").href = server.completion.url;
  }
}

// --- what is seen -------------------------------------------------------------------------------------------------------

function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text; // a live region is read out at every change
}

function ahead(name) {
  if (fetched.has(name)) return fetched.get(name);
  const image = new Image();
  fetched.set(name, image);
  image.onerror = () => fetched.delete(name);
  image.src = `/picture/${name}.png`;
  return image;
}

function show(next) {
  const changed = phase !== next;
  phase = next;
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== (next === "practice" ? "rate" : next);
  $("practice").hidden = next !== "practice";
  const footed = ["rate", "pause", "pairintro", "pair", "done", "practice", "instructions"].includes(next);
  $("foot").hidden = !footed && !(next === "closed" && server?.joined); // who has not finished may withdraw all the same
  if (!["rate", "pair", "practice"].includes(next)) (shown = ""), (since = null);
  if (server?.joined) {
    const where = now();
    const total = where.of + server.pairs.length;
    const done = where.done + where.chosen;
    $("bar").setAttribute("aria-valuenow", done);
    $("bar").setAttribute("aria-valuemax", total);
    $("bar").firstElementChild.style.width = `${(100 * done) / total}%`;
    say("count", `${done} of ${total}`);
    $("undo").hidden = where.last === null || where.chosen > 0 || !["rate", "pause", "pairintro"].includes(next);
  }
  if (changed) document.querySelector(`#${next === "practice" ? "rate" : next} h1`)?.focus({ preventScroll: true });
  if (changed) scrollTo(0, 0);
}

function begin(what) {
  shown = what;
  looked = 0;
  since = null;
}

function seen() {
  since = document.hidden ? null : performance.now();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && since !== null) (looked += performance.now() - since), (since = null);
  else if (!document.hidden && shown && since === null) seen();
});

function picture(next, name, address) {
  show(next);
  say("question", server.question);
  if (shown === `${next} ${name}`) return;
  begin(`${next} ${name}`);
  const image = $("picture");
  const mine = shown;
  image.classList.add("coming");
  image.onload = () => {
    if (shown !== mine) return;
    image.classList.remove("coming");
    image.alt = next === "rate" ? `picture ${now().done + 1} of ${now().of}` : "a shape, to try it out";
    seen();
  };
  image.onerror = () => setTimeout(() => shown === mine && (image.src = address), 2000); // the network is away: try again
  image.src = address;
}

function two(pair) {
  show("pair");
  say("pairquestion", question());
  const name = pair.slice(0, 2).join();
  if (shown === `pair ${name}`) return;
  begin(`pair ${name}`);
  const mine = shown;
  let missing = 2;
  for (const [side, one] of [["left", pair[0]], ["right", pair[1]]]) {
    const image = $(side);
    image.alt = `${side} picture of pair ${now().chosen + 1}`;
    image.onload = () => shown === mine && --missing === 0 && seen();
    image.onerror = () => setTimeout(() => shown === mine && (image.src = `/picture/${one}.png`), 2000);
    image.src = `/picture/${one}.png`;
  }
}

function question() {
  return server.question.replace(/^How (\w+) is this (.*)\?$/, "Which $2 is more $1?");
}

// --- what is done -------------------------------------------------------------------------------------------------------

function time() {
  const milliseconds = since === null ? -1 : Math.round(looked + performance.now() - since);
  return milliseconds < GLANCE ? -1 : milliseconds;
}

function rate(value) {
  const milliseconds = time();
  if (milliseconds < 0) return;
  if (phase === "practice") {
    practice += 1;
    memory.set(here("practice"), practice);
    return draw();
  }
  if (phase !== "rate") return;
  const stimulus = shown.split(" ")[1];
  begin("");
  outbox.put({ do: "rate", stimulus, value, milliseconds });
}

function choose(chosen) {
  if (phase !== "pair" || time() < 0) return;
  const [left, right] = shown.split(" ")[1].split(",");
  begin("");
  outbox.put({ do: "choose", left, right, chosen });
}

function undo() {
  const where = now();
  if ($("undo").hidden || where.last === null) return;
  outbox.put({ do: "back", stimulus: where.last });
}

async function attempt(path, body, then) {
  say("problem", "");
  let found;
  try {
    found = await ask(path, body);
  } catch {
    return say("problem", "No connection. Try again in a moment.");
  }
  if (found.ok) return then(found);
  say("problem", found.message || `The server refused (${found.status}). Try again in a moment.`);
}

function join() {
  if (!$("agree").checked) return say("problem", "Tick the box first: nobody takes part who has not agreed.");
  let key = memory.get(here("key"));
  if (!key) memory.set(here("key"), (key = newName()));
  const source = Object.fromEntries(new URLSearchParams(location.search));
  const body = { link: page.link, key, agreed: true, version: page.version, source };
  attempt("/api/join", body, (state) => {
    if (page.link) memory.set(here("link"), page.link);
    history.replaceState(null, "", "/");
    take(state);
  });
}

$("join").onclick = join;
$("try").onclick = () => {
  practice = 1;
  memory.set(here("practice"), 1);
  draw();
};
$("goon").onclick = () => {
  rested = now().done;
  draw();
};
$("topairs").onclick = () => {
  pairsBegun = true;
  draw();
};
$("undo").onclick = undo;
for (const button of document.querySelectorAll(".choice")) button.onclick = () => choose(button.dataset.chosen);
$("leave").onclick = () => {
  if (outbox.waiting().length) return say("problem", "Some answers have not arrived yet. Wait until they have.");
  const link = memory.get(here("link"));
  attempt("/api/leave", { who: outbox.who }, () => (forget(), location.assign(link ? `/join/${link}` : "/")));
};
$("withdraw").onclick = () => {
  $("sure").hidden = false;
  $("yes").focus();
};
$("no").onclick = () => ($("sure").hidden = true);
$("yes").onclick = () => attempt("/api/withdraw", { sure: true, who: outbox.who }, () => (forget(), (outbox.stopped = true), show("gone")));

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, summary")) return;
  if (/^[0-5]$/.test(event.key) && ["rate", "practice"].includes(phase)) rate(Number(event.key));
  else if (phase === "pair" && ["1", "ArrowLeft"].includes(event.key)) choose("left");
  else if (phase === "pair" && ["2", "ArrowRight"].includes(event.key)) choose("right");
  else if (event.key.toLowerCase() === "u") undo();
  else return;
  event.preventDefault();
});

function words() {
  if ($("scale").children.length) return;
  say("asked", server.question);
  say("pairasked", question());
  server.words.forEach((text, value) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "value";
    button.setAttribute("aria-label", text ? `${value}, ${text}` : String(value));
    button.setAttribute("aria-keyshortcuts", String(value));
    button.append(Object.assign(document.createElement("b"), { textContent: value }), Object.assign(document.createElement("span"), { textContent: text }));
    button.onclick = () => rate(value);
    $("scale").append(button);
    if (!text) return;
    $("meaning").append(Object.assign(document.createElement("dt"), { textContent: value }), Object.assign(document.createElement("dd"), { textContent: text }));
  });
}

async function start(tries = 0) {
  try {
    const found = await ask("/api/state");
    if (found.ok) {
      take(found);
      outbox.send();
    } else stop(found.status, found.message);
  } catch {
    say("net", "No connection. This page tries again by itself.");
    setTimeout(() => start(tries + 1), Math.min(SLOWEST, 1000 * 2 ** tries));
  }
}
start();
