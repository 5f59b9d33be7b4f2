// The view of creativelib.labelling.Labelling. It draws what Python says and sends what the reader does:
// a mark is shown when Python has it, not before. Until then its image looks as if it were waiting.

const SVG = "http://www.w3.org/2000/svg";
const SIZE = 320; // of the map, in its own units
const MARGIN = 30; // room for a lasso around the outermost
const CLICK = 4; // pixels; a drag that is shorter is a click
const PATIENCE = 1500; // ms until a reader is told that Python has not answered
let views = 0;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "circle", "text", "path", "rect"].includes(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  // What takes keys keeps them from JupyterLab, whose Enter and Z would do other things to the cell. It looks at the focused
  // element alone.
  if (["button", "input", "g"].includes(tag)) element.setAttribute("data-lm-suppress-shortcuts", true);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Set a text only where it changes, for a live region is read out at every change.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Points of any scale to the middle of the map, both axes alike, the second upwards.
function onMap(points) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
  const width = (values) => Math.max(...values) - Math.min(...values);
  const scale = (SIZE - 2 * MARGIN) / (Math.max(width(xs), width(ys)) || 1);
  return points.map(([x, y]) => [SIZE / 2 + (x - middle(xs)) * scale, SIZE / 2 - (y - middle(ys)) * scale]);
}

// Is the point inside the closed line? An even number of crossings to its right means that it is not.
function encloses(line, [x, y]) {
  let inside = false;
  line.forEach(([x1, y1], index) => {
    const [x2, y2] = line[(index + 1) % line.length];
    if (y1 > y !== y2 > y && x < x1 + ((y - y1) * (x2 - x1)) / (y2 - y1)) inside = !inside;
  });
  return inside;
}

function render({ model, el }) {
  const ids = model.get("ids");
  const places = onMap(model.get("points"));
  const urls = model.get("pictures").map((png) => URL.createObjectURL(new Blob([png], { type: "image/png" })));
  const view = `creativelib-labelling-${++views}`;
  const state = () => model.get("state");
  let active = 0; // the image that Tab comes to
  let waiting = 0; // the timer of an answer

  function send(message, elements = []) {
    if (state().busy) return;
    elements.forEach((element) => element.classList.add("waiting"));
    clearTimeout(waiting);
    waiting = setTimeout(() => say(note, "Python has not answered yet: it is busy, or was stopped. Nothing is kept until it answers."), PATIENCE);
    model.send(message);
  }

  function toggle(index) {
    if (!tiles[index].classList.contains("waiting")) send({ do: "toggle", image: ids[index] }, both(index));
  }

  // --- clusters ---

  const choices = make("div", { class: "choices", role: "radiogroup", "aria-label": "Cluster to mark into" });
  const name = make("input", { type: "text", placeholder: "new cluster", "aria-label": "Name of a new cluster", maxlength: 60 });
  const add = make("button", { type: "button" }, "Add cluster");
  const naming = make("div", { class: "naming" }, name, add);
  function addCluster() {
    send({ do: "cluster", name: name.value });
    name.value = "";
  }
  add.addEventListener("click", addCluster);
  name.addEventListener("keydown", (event) => event.key === "Enter" && addCluster());
  const undo = make("button", { type: "button", "aria-keyshortcuts": "Control+Z Meta+Z U", title: "Undo (u)" }, "Undo");
  undo.addEventListener("click", () => send({ do: "undo" }));

  // Kept where the clusters are the same, so that the focus stays.
  function drawChoices({ clusters, cluster }) {
    const names = JSON.stringify(clusters.map((item) => item.name));
    if (choices.dataset.names !== names) {
      const focused = choices.contains(document.activeElement);
      choices.dataset.names = names;
      choices.replaceChildren(
        ...clusters.map((item) => {
          const radio = make("input", { type: "radio", name: view, value: item.name });
          radio.addEventListener("change", () => send({ do: "cluster", name: item.name }));
          const sign = make("span", { class: "sign", style: `background: ${item.colour}`, "aria-hidden": true }, item.sign);
          return make("label", {}, radio, sign, item.name);
        }),
      );
      if (focused) choices.querySelector(`input[value="${CSS.escape(cluster)}"]`)?.focus();
    }
    choices.querySelectorAll("input").forEach((radio) => (radio.checked = radio.value === cluster));
  }

  // --- the grid and the map: one button an image in each, of which Tab comes to one ---

  const tiles = ids.map((id, index) =>
    make(
      "button",
      { type: "button", class: "tile", title: id, click: () => toggle(index) },
      make("img", { src: urls[index], alt: "", draggable: false }),
      make("span", { class: "number", "aria-hidden": true }, index + 1),
      make("span", { class: "sign", "aria-hidden": true }),
    ),
  );
  const dots = places.map(([x, y]) =>
    make(
      "g",
      { class: "dot", role: "button", transform: `translate(${x} ${y})` },
      make("circle", { class: "ring", r: 14 }),
      make("circle", { class: "spot", r: 6 }),
      make("text", { "text-anchor": "middle", dy: "0.36em", "aria-hidden": true }),
    ),
  );
  const both = (index) => [tiles, dots].flatMap((elements) => elements[index] ?? []);

  const grid = make("div", { class: "grid", role: "group", "aria-label": "Images: arrow keys move, Enter or Space marks" }, ...tiles);
  const lasso = make("path", { class: "lasso" });
  const map = make(
    "svg",
    { class: "map", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-label": "Map of the embeddings: arrow keys move, Enter or Space marks" },
    ...dots,
    lasso,
  );

  function link(index) {
    el.querySelectorAll(".linked").forEach((element) => element.classList.remove("linked"));
    if (index !== undefined) both(index).forEach((element) => element.classList.add("linked"));
  }

  function activate(index, focus) {
    [tiles, dots].forEach((elements) => elements.forEach((element, at) => element.setAttribute("tabindex", at === index ? 0 : -1)));
    active = index;
    focus?.[index].focus();
  }

  // The nearest dot in the direction of an arrow; what lies aside counts as further away.
  function neighbour(index, [dx, dy]) {
    const [x0, y0] = places[index];
    const cost = ([x, y]) => {
      const along = (x - x0) * dx + (y - y0) * dy;
      return along > 0 ? along + 2 * Math.abs((x - x0) * dy - (y - y0) * dx) : Infinity;
    };
    const best = places.reduce((kept, place, at) => (cost(place) < cost(places[kept]) ? at : kept), index);
    return cost(places[best]) < Infinity ? best : index;
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function inGrid(index, [dx, dy]) {
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const next = index + dx + dy * columns;
    return next >= 0 && next < ids.length ? next : index;
  }

  for (const [elements, step] of [[tiles, inGrid], [dots, neighbour]]) {
    elements.forEach((element, index) => {
      element.addEventListener("mouseenter", () => link(index));
      element.addEventListener("mouseleave", () => link(el.contains(document.activeElement?.closest(".tile, .dot")) ? active : undefined));
      element.addEventListener("focus", () => (activate(index), link(index)));
      element.addEventListener("blur", () => link());
      element.addEventListener("keydown", (event) => {
        const ends = { Home: 0, End: ids.length - 1 };
        if (event.key in ARROWS) activate(step(index, ARROWS[event.key]), elements);
        else if (event.key in ends) activate(ends[event.key], elements);
        else if (event.key !== "Enter" && event.key !== " ") return;
        else if (elements === tiles && !event.repeat) return; // a click follows
        else if (!event.repeat) toggle(index);
        event.preventDefault(); // no scrolling, and no second click by the browser
        event.stopPropagation();
      });
    });
  }

  // --- the lasso ---

  let line = null; // its corners, on the map

  function corner(event) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    return [x, y];
  }

  function drawLasso() {
    lasso.setAttribute("d", line ? `M${line.map((point) => point.join(" ")).join("L")}Z` : "");
  }

  map.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // no selecting of text
    const dot = dots.indexOf(event.target.closest(".dot"));
    activate(dot < 0 ? active : dot, dots);
    map.setPointerCapture(event.pointerId);
    line = [corner(event)];
    line.from = { x: event.clientX, y: event.clientY, dot };
  });
  map.addEventListener("pointermove", (event) => {
    if (!line) return;
    line.push(corner(event));
    line.long ||= Math.hypot(event.clientX - line.from.x, event.clientY - line.from.y) > CLICK;
    drawLasso();
  });
  map.addEventListener("pointerup", () => {
    if (!line) return;
    const done = line;
    line = null;
    drawLasso();
    if (!done.long) return void (done.from.dot >= 0 && toggle(done.from.dot));
    const inside = ids.map((_, index) => index).filter((index) => encloses(done, places[index]));
    if (inside.length) send({ do: "mark", images: inside.map((index) => ids[index]) }, inside.flatMap(both));
    else say(note, "There is no image in the lasso.");
  });
  map.addEventListener("pointercancel", () => ((line = null), drawLasso()));

  // --- what is under the grid ---

  const progress = make("p", { class: "summary", role: "status", "aria-live": "polite" });
  const note = make("p", { class: "note", role: "status", "aria-live": "polite" });
  const error = make("p", { class: "error", role: "alert" });
  const words = { fit: ["Fit cluster", "Fitting …"], run: ["Run again", "Running …"] };
  const actions = model.get("actions").map((action) => {
    const button = make("button", { type: "button", class: "action" });
    // aria-disabled, not disabled: that would take the focus from who pressed it
    button.addEventListener("click", () => send({ do: action }));
    return [action, button];
  });

  function draw() {
    const now = state();
    clearTimeout(waiting);
    el.setAttribute("aria-busy", Boolean(now.busy));
    drawChoices(now);
    ids.forEach((id, index) => {
      const cluster = now.clusters.find((item) => item.name === now.labels[id]);
      both(index).forEach((element) => {
        element.classList.remove("waiting");
        element.classList.toggle("marked", Boolean(cluster));
        element.style.setProperty("--cluster", cluster?.colour ?? "transparent");
        element.setAttribute("aria-pressed", Boolean(cluster));
        element.setAttribute("aria-label", `image ${index + 1}${cluster ? `, unappealing: ${cluster.name}` : ""}`);
        say(element.querySelector(".sign, text"), cluster?.sign ?? "");
        element.querySelector(".spot")?.setAttribute("r", cluster ? 9 : 6);
      });
    });
    say(progress, now.progress);
    say(note, now.note);
    say(error, now.error);
    for (const [action, button] of actions) {
      say(button, words[action][now.busy === action ? 1 : 0]);
      button.setAttribute("aria-disabled", Boolean(now.busy));
    }
  }

  el.classList.add("creativelib-labelling");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Labelling of unappealing images");
  el.addEventListener("keydown", (event) => {
    if (event.target.type === "text") return; // there they edit
    const back = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
    if (!back && (event.key !== "u" || event.ctrlKey || event.metaKey || event.altKey)) return;
    event.preventDefault();
    event.stopPropagation();
    send({ do: "undo" });
  });
  el.append(
    make("p", { class: "help" },
      "Mark what you find unappealing: click it, or go there by the arrow keys and press Enter. Again to clear."
      + (dots.length ? " On the map, draw around the images to mark." : "")),
    make("div", { class: "clusters" }, choices, naming, undo),
    make("div", { class: "both" }, grid, ...(dots.length ? [map] : [])),
    progress,
    make("div", { class: "actions" }, ...actions.map(([, button]) => button), note),
    error,
  );
  activate(0);
  draw();
  model.on("change:state", draw);
  return () => {
    model.off("change:state", draw);
    clearTimeout(waiting);
    urls.forEach(URL.revokeObjectURL);
  };
}

export default { render };
