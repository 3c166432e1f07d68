"use strict";
// The whole scan, slice by slice: unpacked on the first click, shown with the viewer of the review.
(function (cmb) {
  const KEYS = "Keys on a plane: arrows up and down, page up and down: slices; n, p: next and previous lesion; " +
    "+, −, 0: zoom; o: outlines. Mouse: click to place the cross, then the wheel turns slices; right button: grey levels.";

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function button(text, act, attributes = {}) {
    const made = element("button", { type: "button", ...attributes }, text);
    made.addEventListener("click", act);
    return made;
  }

  async function unpack(id) {
    if (!window.DecompressionStream) throw new Error("this browser is too old: use one from 2023 or later");
    const text = atob(document.getElementById(id).textContent.trim());
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return cmb.parseVolume(await new Response(plain).arrayBuffer());
  }

  class Scroller {
    constructor(box) {
      this.box = box;
      this.scan = box.dataset.scan;
      this.stage = box.querySelector(".stage");
      this.opener = box.querySelector(".open");
      this.lesions = JSON.parse(document.getElementById(`${this.scan}-marks`).textContent);
      this.current = -1;
      box.hidden = false;
      document.getElementById(`${this.scan}-unscripted`).hidden = true;
      this.opener.addEventListener("click", () => this.open().then(() => this.focus()));
    }

    /* Unpack and build once; later calls wait for the same. */
    open() {
      this.opening ??= this.build().catch((error) => {
        const why = `The scan cannot be shown: ${error.message}. The figures on this page show the lesions.`;
        this.stage.replaceChildren(element("p", { class: "stop", role: "alert" }, why));
        this.stage.hidden = false;
      });
      return this.opening;
    }

    async build() {
      this.opener.disabled = true;
      this.opener.textContent = "The scan is being unpacked …";
      const volume = await unpack(`${this.scan}-voxels`);
      this.opener.parentElement.hidden = true;
      this.stage.hidden = false;
      this.view = new cmb.View();
      this.planes = element("div", { class: "planes" });
      this.status = element("p", { class: "status", role: "status" });
      this.slider = element("input", { type: "range", min: 1, max: volume.shape[2], step: 1 });
      this.slider.addEventListener("input", () => {
        const cursor = [...this.view.cursor];
        cursor[2] = Number(this.slider.value) - 1;
        this.view.goTo(cursor);
      });
      this.outlines = element("input", { type: "checkbox" });
      this.outlines.checked = true;
      this.outlines.addEventListener("change", () => this.view.set({ showOutlines: this.outlines.checked }));
      this.stage.append(this.bar(), this.numbers(), this.status, this.planes, element("p", { class: "hint" }, KEYS));
      const viewer = new cmb.Viewer(this.planes, this.view);
      viewer.wheelNeedsFocus = true;
      this.viewer = viewer;
      this.view.addEventListener("change", () => this.follow());
      this.planes.addEventListener("keydown", (event) => this.key(event));
      this.marks = this.lesions.map((lesion) => ({
        ijk: lesion.ijk,
        region: lesion.runs.length ? cmb.Region.fromRuns(lesion.runs, volume.shape) : null,
        radiusMm: lesion.radiusMm,
        colour: lesion.colour,
        label: String(lesion.number),
        dashed: lesion.dashed,
      }));
      this.view.setGrid(volume.shape, volume.spacing);
      // The figures of the page have the patient's left on the left.
      this.view.set({ marks: this.marks, convention: "neurological" });
      viewer.setVolume(volume);
      if (this.lesions.length) this.show(0);
    }

    bar() {
      const slice = element("label", { class: "slice" }, "Axial slice ", this.slider);
      const outlines = element("label", {}, this.outlines, " Outlines");
      const side = element("input", { type: "checkbox" });
      side.addEventListener("change", () =>
        this.view.set({ convention: side.checked ? "radiological" : "neurological" }),
      );
      const radiological = element("label", {}, side, " Patient's right on the left");
      const parts = [slice, outlines, radiological, button("Reset view", () => this.reset())];
      if (this.lesions.length) {
        const steps = [button("‹ Previous lesion", () => this.step(-1)), button("Next lesion ›", () => this.step(1))];
        parts.unshift(...steps);
      }
      return element("div", { class: "bar-of-stage" }, ...parts);
    }

    numbers() {
      this.links = this.lesions.map((lesion, at) =>
        button(String(lesion.number), () => this.show(at), { "aria-label": `Lesion ${lesion.title}`, title: lesion.title }),
      );
      return element("div", { class: "numbers", role: "group", "aria-label": "Lesions" }, ...this.links);
    }

    step(direction) {
      const count = this.lesions.length;
      if (count) this.show((this.current + direction + count) % count);
    }

    show(at) {
      this.current = at;
      this.marks.forEach((mark, other) => (mark.current = other === at));
      this.links.forEach((link, other) => link.setAttribute("aria-pressed", String(other === at)));
      this.view.goTo(this.lesions[at].ijk, true);
      const { title, figure } = this.lesions[at];
      this.status.replaceChildren(`Lesion ${title} · `, element("a", { href: `#${figure}` }, "close-up"));
    }

    showNumber(number) {
      const at = this.lesions.findIndex((lesion) => lesion.number === number);
      if (at >= 0) this.show(at);
    }

    reset() {
      this.viewer.setWindow(this.viewer.volume.window);
      this.view.fit();
    }

    follow() {
      this.slider.value = this.view.cursor[2] + 1;
      this.slider.setAttribute("aria-valuetext", `${this.view.cursor[2] + 1} of ${this.view.shape[2]}`);
    }

    key(event) {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const { axis } = cmb.PLANES[this.view.active];
      const acts = {
        ArrowUp: () => this.view.step(axis, 1),
        ArrowDown: () => this.view.step(axis, -1),
        PageUp: () => this.view.step(axis, 5),
        PageDown: () => this.view.step(axis, -5),
        n: () => this.step(1),
        p: () => this.step(-1),
        "+": () => this.view.zoomBy(1.5),
        "=": () => this.view.zoomBy(1.5),
        "-": () => this.view.zoomBy(1 / 1.5),
        0: () => this.reset(),
        o: () => this.outlines.click(),
      };
      if (!acts[event.key]) return;
      event.preventDefault();
      acts[event.key]();
    }

    focus() {
      this.planes?.querySelector("canvas").focus({ preventScroll: true });
    }
  }

  const scrollers = new Map();
  for (const box of document.querySelectorAll(".scroller")) scrollers.set(box.dataset.scan, new Scroller(box));
  // A lesion's number leads to its slice; without this script, to its figure.
  for (const link of document.querySelectorAll("a[data-lesion]")) {
    const scroller = scrollers.get(link.dataset.scan);
    if (!scroller) continue;
    link.addEventListener("click", async (event) => {
      event.preventDefault();
      await scroller.open();
      if (scroller.viewer) scroller.showNumber(Number(link.dataset.lesion));
      scroller.stage.scrollIntoView({ block: "start" });
      scroller.focus();
    });
  }
})((window.cmb = window.cmb || {}));
