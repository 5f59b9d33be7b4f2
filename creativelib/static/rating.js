// The view of creativelib.study.panel.RatingPanel: one picture at a time, the keys 0 to 5 rate it, u takes the last one back.

function render({ model, el }) {
  const subject = model.get("subject");
  const page = new Asking(model, el, "Pictures rated");
  const { look } = page;

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
    const milliseconds = look.time;
    if (page.state.phase === "rate" && milliseconds !== null) page.send({ do: "rate", stimulus: page.drawn, value, milliseconds });
  }

  function undo() {
    page.send({ do: "undo" });
  }

  function show(now) {
    stage.setAttribute("aria-label", `picture ${now.done + 1} of ${now.of}`);
    if (page.drawn === now.stimulus) return;
    page.drawn = now.stimulus;
    look.show([picture], [model.get("picture")]);
  }

  function key(event) {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (plain ? event.key === "u" : event.key.toLowerCase() === "z" && !event.altKey && !event.shiftKey) return undo;
    return plain && /^[0-5]$/.test(event.key) && (() => rate(Number(event.key)));
  }

  function hint() {
    say(keys, el.contains(document.activeElement) ? "Press 0 to 5; u takes the last one back." : "Click the picture, then use the keys 0 to 5.");
  }

  el.addEventListener("focusin", hint);
  el.addEventListener("focusout", () => setTimeout(hint));
  const end = page.start({
    phase: "rate", part: rating, focus: stage, label: `Rating of pictures of the subject ${subject}`, show, key, after: hint,
    extra: [button("Undo", undo, { "aria-keyshortcuts": "U Control+Z Meta+Z", title: "Undo (u)" })],
  });
  return () => {
    end();
    URL.revokeObjectURL(anchor);
  };
}

export default { render };
