// The pictures of one visit: which one is shown, and what is asked about it. Nothing here knows a
// document, so that its tests need no browser.
//
// Every answer is kept with its own picture, and the page shows the picture that was selected last:
// a late answer cannot stand below another picture.

export const MAX_PICTURES = 24; // kept of a visit; the oldest ones are forgotten

export class Visit {
  // ask(picture, signal): a promise of the answer; changed(): draws the page again.
  constructor(ask, changed) {
    this.ask = ask;
    this.changed = changed;
    this.pictures = [];
    this.selected = null;
    this.working = null; // the picture that is being asked about
  }

  // Adds pictures, each {name, file, ...}, and selects the last of them.
  add(...given) {
    const added = given.map((picture) => ({ state: "waiting", replies: [], heats: {}, ...picture }));
    this.pictures.push(...added);
    this.select(added.at(-1));
    return added;
  }

  // Shows a picture. What is being asked about another one is broken off, and asked again later.
  select(picture) {
    this.selected = picture;
    this.pictures = this.pictures.filter(
      (each, index, all) => each === picture || index >= all.length - MAX_PICTURES);
    if (picture.state === "failed") picture.state = "waiting"; // selected again: tried again
    if (picture.state === "waiting" && this.working) this.working.controller.abort();
    this.changed();
    this.#work();
  }

  async #work() {
    if (this.working) return;
    let next;
    while ((next = this.#next())) {
      const controller = new AbortController();
      this.working = Object.assign(next, { state: "asking", controller });
      this.changed();
      try {
        const answer = await this.ask(next, controller.signal);
        controller.signal.throwIfAborted();
        Object.assign(next, { answer, state: "answered", code: answer.code });
        next.heats[answer.code] = answer.heat;
      } catch (error) {
        if (controller.signal.aborted) next.state = "waiting";
        else Object.assign(next, { state: "failed", error: error.message });
      }
      this.working = null;
      this.changed();
    }
  }

  #next() {
    if (this.selected.state === "waiting") return this.selected;
    return this.pictures.find((picture) => picture.state === "waiting");
  }
}
