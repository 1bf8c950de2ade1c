// What test_app.py asserts about visit.js, executed by node: each line printed is one finding.
import { MAX_PICTURES, Visit } from "VISIT";

// A visit whose answers are given by hand: finish(name), fail(name, message).
function visit() {
  const open = new Map();
  const asked = [];
  const ask = (picture, signal) => {
    asked.push(picture.name);
    return new Promise((resolve, reject) => {
      open.set(picture.name, { resolve, reject });
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  };
  const made = new Visit(ask, () => {});
  const tick = () => new Promise((resolve) => setTimeout(resolve, 5));
  return Object.assign(made, {
    asked,
    async finish(name) {
      open.get(name).resolve({ code: "mel", heat: `heat of ${name}`, of: name });
      await tick();
    },
    async fail(name) {
      open.get(name).reject(new Error(`${name} is bad`));
      await tick();
    },
    shown() { return [this.selected.name, this.selected.state, this.selected.answer?.of ?? null]; },
  });
}

const found = {};
const a = { name: "a" }, b = { name: "b" }, c = { name: "c" };

let one = visit(); // a slow upload, then an example
one.add(a);
one.add(b);
found.whileWaiting = one.shown();
await new Promise((resolve) => setTimeout(resolve, 5));
await one.finish("b");
found.lastWins = one.shown();
await one.finish("a");
found.lateAnswer = one.shown();
found.bothAnswered = one.pictures.map((picture) => picture.answer.of);

one = visit(); // seven clicks
for (const name of "1234567") one.add({ name });
await new Promise((resolve) => setTimeout(resolve, 5));
await one.finish("7");
found.seventh = one.shown();

one = visit(); // two files dropped at once
one.add(a, b);
await one.finish("b");
await one.finish("a");
found.twoDropped = [one.pictures.map((picture) => picture.state), one.shown()];
one.select(one.pictures[0]);
found.backToTheFirst = one.shown();

one = visit(); // a failure after an answer, and again an answer
one.add(a);
await one.finish("a");
one.add(b);
await one.fail("b");
found.failed = [...one.shown(), one.selected.error];
one.add(c);
await one.finish("c");
found.after = one.shown();
one.select(one.pictures[1]); // tried again
found.again = one.asked;

one = visit();
for (let number = 0; number < MAX_PICTURES + 9; number++) one.add({ name: `${number}` });
found.bounded = one.pictures.length <= MAX_PICTURES && one.pictures.at(-1) === one.selected;

console.log(JSON.stringify(found));
