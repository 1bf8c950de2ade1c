// The page: draws what `Visit` holds. Everything shown follows from the selected picture and the
// selected operating point, and is drawn anew whenever either changes.

import { Visit } from "./visit.js";

const BUSY_SECONDS = 120; // a request that finds the server busy is repeated for so long
const find = (selector) => document.querySelector(selector);
const texts = JSON.parse(find("#texts").textContent);
const visit = new Visit((picture, signal) => post("answer", picture, {}, signal), draw);

// -- requests ------------------------------------------------------------------------------------

// Sends a picture's file; returns the response, or throws what to tell the visitor.
async function send(path, picture, query, signal) {
  const until = Date.now() + 1000 * BUSY_SECONDS;
  for (;;) {
    let response;
    try {
      const body = picture.file ?? (await (await fetch(picture.url, { signal })).blob());
      if (body.size > texts.max_bytes) throw new Refused(texts.too_large);
      response = await fetch(`${path}?${new URLSearchParams(query)}`,
        { method: "POST", body, signal });
    } catch (error) {
      if (error instanceof Refused || signal?.aborted) throw error;
      throw new Error("The server did not answer. If it runs, please give the picture again.");
    }
    if (response.ok) return response;
    const retry = Number(response.headers.get("Retry-After"));
    const message = await response.text();
    if (response.status !== 503 || Date.now() > until) throw new Error(
      response.status === 401 ? "Your login has ended. Reload the page to log in." : message);
    tell("The page is busy: your picture waits for its turn.");
    await new Promise((resolve) => setTimeout(resolve, 1000 * (retry || 2)));
    signal?.throwIfAborted();
  }
}

class Refused extends Error {}

const post = async (...request) => (await send(...request)).json();

// -- drawing -------------------------------------------------------------------------------------

let arriving = null; // the picture whose answer the visitor waits for

const point = () => find("[name=operating-point]:checked").value;

function draw() {
  const picture = visit.selected;
  const answer = picture?.state === "answered" ? picture.answer : null;
  const waits = picture && !answer && picture.state !== "failed";
  // Not aria-busy: it would keep a screen reader from saying that a picture is read.
  find("#answer").classList.toggle("waiting", Boolean(waits));
  tell(waits ? `Reading ${picture.name} …` : "");
  find("#empty").hidden = Boolean(picture);
  set("#error", picture?.state === "failed" ? warning(picture) : "");
  set("#verdict", answer ? answer.points[point()].verdict : "");
  find("#shown").hidden = !answer;
  drawStrip();
  if (answer) drawAnswer(picture, answer);
  if (picture && arriving === picture && !waits) bringIntoView();
}

function drawAnswer(picture, answer) {
  const shown = answer.points[point()];
  const details = find("#details");
  details.classList.toggle("meaningless", answer.out_of_distribution);
  if (details.picture !== picture) {
    details.picture = picture;
    details.open = !answer.out_of_distribution;
  }
  setSource("#picture", answer.picture, `the picture ${picture.name}`);
  const select = find("#heat-class");
  select.value = picture.code;
  const heat = picture.heats[picture.code];
  find("#heat").hidden = !heat || !details.open;
  if (heat) setSource("#heat", heat,
    `where the evidence for ${select.selectedOptions[0].textContent} lies`);
  set("#score-axis", shown.axis);
  set("#probabilities", answer.probabilities);
  drawQuestions(picture, shown);
  drawOthers(picture);
}

// The answers given stay with the picture, whichever operating point is shown.
function drawQuestions(picture, shown) {
  const { replies } = picture;
  find("#questions").hidden = !shown.asks;
  const lines = [["", "The probability is near the threshold: the model is not sure. Three " +
    "questions about what it cannot see. Your answers change neither the probability nor the " +
    "decision."]];
  replies.forEach((reply, number) => {
    const { question, comments } = texts.questions[number];
    lines.push(["question", question], ["reply", `You: ${reply}`], ["", comments[reply]]);
  });
  const next = texts.questions[replies.length];
  const signs = replies.filter((reply) => reply === "yes").length;
  lines.push(next ? ["question", next.question] : ["summary", shown.summaries[signs]]);
  set("#talk", lines.map(([kind, text]) => element("p", { className: kind, textContent: text })));
  find("#answers").hidden = !next;
}

function drawOthers(picture) {
  const { others } = picture;
  const own = { name: texts.models[0].name, answer: picture.answer };
  const rows = (others ? [own, ...others] : []).map(({ name, answer, error }) => {
    const shown = answer?.points[point()];
    const cells = [answer?.most_probable || "–", shown?.short ?? error ?? "…"];
    const head = element("th", { scope: "row", textContent: name });
    return element("tr", {}, [head, ...cells.map((text) => element("td", { textContent: text }))]);
  });
  find("#others table").hidden = !rows.length;
  find("#ask-others").hidden = Boolean(rows.length);
  set("#others tbody", rows);
}

function drawStrip() {
  find("#visit").hidden = !visit.pictures.length;
  set("#strip", visit.pictures.map((picture) => {
    const image = picture.answer
      ? element("img", { src: picture.answer.picture, alt: "" })
      : element("span", { textContent: picture.state === "failed" ? "?" : "…" });
    const state = { waiting: "waits", asking: "is read", failed: "cannot be read" }[picture.state];
    const button = element("button", { type: "button", title: picture.name }, [image]);
    button.ariaLabel = picture.name + (state ? `, ${state}` : "");
    button.className = picture.state;
    button.ariaCurrent = String(picture === visit.selected);
    button.onclick = () => show(picture);
    return element("li", {}, [button]);
  }));
}

function warning(picture) {
  const message = `${picture.name}: ${picture.error}`;
  return [element("p", { className: "warning", textContent: message })];
}

function element(tag, properties, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Changes a part of the page only where it differs: a screen reader says again what is replaced,
// and a button that is replaced loses the focus.
function set(selector, content) {
  const part = find(selector);
  if (typeof content === "string") {
    if (part.written !== content) part.innerHTML = content;
    part.written = content;
    return;
  }
  part.written = undefined;
  content.forEach((made, index) => {
    const old = part.children[index];
    if (!old) part.append(made);
    else if (old.outerHTML !== made.outerHTML) replace(old, made);
  });
  while (part.children.length > content.length) part.lastElementChild.remove();
}

function replace(old, made) {
  const focused = old.contains(document.activeElement);
  old.replaceWith(made);
  if (focused) (made.querySelector("button") ?? made).focus();
}

function setSource(selector, source, name) {
  const image = find(selector);
  if (image.src !== source) image.src = source;
  image.alt = name;
}

function tell(text) {
  const progress = find("#progress");
  if (progress.textContent !== text) progress.textContent = text;
}

// -- what the visitor does -----------------------------------------------------------------------

function show(picture) {
  arriving = picture;
  visit.select(picture);
}

function give(files) {
  const pictures = [...files].map((file) => ({ name: file.name || "the pasted picture", file }));
  if (pictures.length) add(...pictures);
}

function add(...pictures) {
  visit.add(...pictures);
  arriving = visit.selected;
  bringIntoView(); // once now, and once when the answer has made the page longer
}

// On a phone the answer lies below the pictures to choose from.
function bringIntoView() {
  if (visit.selected.state === "answered" || visit.selected.state === "failed") arriving = null;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const narrow = matchMedia("(max-width: 767px)").matches;
  find("#answer").scrollIntoView(
    { block: narrow ? "start" : "nearest", behavior: calm ? "auto" : "smooth" });
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    give(input.files);
    input.value = ""; // so that the same file can be given again
  });
}
for (const button of document.querySelectorAll(".example")) {
  const { code } = button.dataset;
  button.addEventListener("click", () => {
    const before = visit.pictures.find((picture) => picture.example === code);
    if (before) return show(before);
    add({ name: button.ariaLabel, url: `examples/${code}`, example: code });
  });
}
document.addEventListener("paste", (event) => give(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("#drop").classList.add("over");
});
document.addEventListener("dragleave", () => find("#drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("#drop").classList.remove("over");
  give(event.dataTransfer.files);
});
for (const radio of document.querySelectorAll("[name=operating-point]")) {
  radio.addEventListener("change", draw);
}
find("#details").addEventListener("toggle", draw);
find("#opacity").addEventListener("input", fade);
fade();

function fade() {
  find("#heat").style.opacity = find("#opacity").value / 100;
}

find("#heat-class").addEventListener("change", async (event) => {
  const picture = visit.selected;
  const code = (picture.code = event.target.value);
  draw();
  if (picture.heats[code]) return;
  try {
    const input = { url: picture.answer.input };
    picture.heats[code] = (await post("heat-map", input, { class: code })).heat;
  } catch (error) {
    picture.code = picture.answer.code;
    draw();
    return tell(error.message);
  }
  draw();
});

for (const reply of texts.answers) {
  const button = element("button", { type: "button", textContent: reply });
  button.addEventListener("click", () => {
    const { replies } = visit.selected;
    if (replies.length < texts.questions.length) replies.push(reply);
    draw();
    if (find("#answers").hidden) find("#talk").focus(); // the button that had the focus has gone
  });
  find("#answers").append(button);
}

find("#ask-others").addEventListener("click", async () => {
  const picture = visit.selected;
  picture.others = texts.models.slice(1).map(({ id, name }) => ({ id, name }));
  draw();
  find("#others table").focus(); // the button has gone
  for (const other of picture.others) {
    try {
      other.answer = await post("answer", picture, { model: other.id });
    } catch (error) {
      other.error = error.message;
    }
    draw();
  }
});

for (const button of document.querySelectorAll(".report")) {
  button.addEventListener("click", async () => {
    const picture = visit.selected;
    const query = { format: button.dataset.format, point: point(), class: picture.code,
      name: picture.name };
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true"; // a button that is disabled loses the focus
    try {
      const file = await (await send("report", picture, query)).blob();
      const link = element("a", { href: URL.createObjectURL(file) });
      link.download = `report.${button.dataset.format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read it late
    } catch (error) {
      tell(error.message);
    }
    button.ariaDisabled = "false";
  });
}

draw();
