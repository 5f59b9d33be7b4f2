// The view of creativelib.study.paired_panel.PairedPanel: two sets of pictures, the keys left and right choose one.

const SIDES = ["left", "right"];

function render({ model, el }) {
  const page = new Asking(model, el, "Pairs done");
  const { look } = page;

  const pictures = SIDES.map(() => make("img", { alt: "", draggable: false }));
  const choices = SIDES.map((side, number) =>
    button("", () => choose(side), { class: "choice", "aria-keyshortcuts": number ? "ArrowRight" : "ArrowLeft" }));
  choices.forEach((element, number) => element.append(make("b", {}, number ? "right →" : "← left"), pictures[number]));
  const question = make("p", { class: "question" });
  const keys = make("p", { class: "keys" }, "Click one, or press the left or right arrow key.");
  const choosing = make("div", { class: "choosing", tabindex: -1, ...LEAVE_KEYS },
    question, make("div", { class: "choices", role: "group", "aria-label": "Your choice" }, ...choices), keys);

  function choose(side) {
    if (page.state.phase === "choose" && look.time !== null) page.send({ do: "choose", side, left: page.drawn });
  }

  function show(now) {
    say(question, `Which is more creative? The subject is: ${now.subject}.`);
    choices.forEach((element, number) => element.setAttribute("aria-label", `${SIDES[number]}: three pictures of ${now.subject}, pair ${now.done + 1} of ${now.of}`));
    if (page.drawn === now.left) return;
    page.drawn = now.left;
    look.show(pictures, SIDES.map((side) => model.get(side)));
  }

  function key(event) {
    const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
    return side && plain && page.state.phase === "choose" && (() => choose(side));
  }

  el.classList.add("creativelib-paired");
  return page.start({ phase: "choose", part: choosing, focus: choosing, label: "Choosing between two sets of pictures", show, key });
}

export default { render };
