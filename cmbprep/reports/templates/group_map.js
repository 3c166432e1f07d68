"use strict";
// Frequency map in three planes: people with a microbleed at each voxel, over those of whom it was seen.
(function (cmb) {
  const GREYS = 128;
  const HEAT = ["#7a0c2e", "#d1495b", "#f79d5c", "#ffe66d"];
  const RING = "#4cc9f0";

  const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

  /* Colour of a part from 0 to 1. */
  function heat(part) {
    const place = Math.min(part, 0.99999) * (HEAT.length - 1);
    const [low, high] = [channels(HEAT[Math.floor(place)]), channels(HEAT[Math.floor(place) + 1])];
    return low.map((value, at) => Math.round(value + (high[at] - value) * (place % 1)));
  }

  function table() {
    const colours = new Uint32Array(256);
    for (let level = 0; level < 256; level++) {
      const grey = Math.round((level * 200) / GREYS);
      const [r, g, b] = level < GREYS ? [grey, grey, grey] : heat((level - GREYS) / (255 - GREYS));
      colours[level] = 0xff000000 | (b << 16) | (g << 8) | r;
    }
    return colours;
  }

  class FrequencyMap {
    constructor(box, scans, content) {
      Object.assign(this, { box, scans }, content);
      this.people = box.querySelector(".map-people");
      this.what = box.querySelector(".map-what");
      this.status = box.querySelector(".status");
      this.ramp = box.querySelector(".ramp");
      this.counts = new Map();
      this.fillChoices();
      this.view = new cmb.View();
      this.viewer = new cmb.Viewer(box.querySelector(".planes"), this.view);
      this.viewer.wheelNeedsFocus = true;
      this.viewer.colours = table();
      this.view.setGrid(this.ground.shape, this.ground.spacing);
      this.view.set({ convention: "neurological" });
      this.view.addEventListener("change", () => this.describe());
      box.addEventListener("keydown", (event) => this.key(event));
      for (const select of [this.people, this.what]) select.addEventListener("change", () => this.show());
      scans.addEventListener("change", () => this.follow());
    }

    fillChoices() {
      const groups = new Map();
      this.choices.forEach((choice, at) => {
        const option = cmb.element("option", { value: at }, `${choice.label} (${choice.people})`);
        if (!choice.kind) return this.people.append(option);
        const name = `${choice.kind} ${choice.rating}`;
        if (!groups.has(name)) {
          groups.set(name, cmb.element("optgroup", { label: `by ${choice.kind}`, "data-only": choice.rating }));
          this.people.append(groups.get(name));
        }
        groups.get(name).append(option);
      });
    }

    /* Offer the patterns of the microbleeds that are shown; keep the same pattern where it is there. */
    offer() {
      const { rating } = this.scans;
      for (const group of this.people.querySelectorAll("optgroup")) {
        const only = group.dataset.only;
        group.hidden = group.disabled = Boolean(only) && only !== rating;
      }
      const chosen = this.choices[Number(this.people.value)];
      if (!chosen.rating || chosen.rating === rating) return;
      const same = this.choices.findIndex(
        (choice) => choice.kind === chosen.kind && choice.label === chosen.label && choice.rating === rating,
      );
      this.people.value = Math.max(0, same);
    }

    /* Numbers of people at each voxel, unpacked when they are first wanted. */
    async read(key, name) {
      const id = `${key}-${name}`;
      if (!this.counts.has(id)) {
        const node = document.getElementById(id);
        this.counts.set(id, node && node.textContent.trim() ? new Uint16Array(await cmb.unpackBytes(id)) : null);
      }
      return this.counts.get(id);
    }

    async show() {
      this.offer();
      const choice = this.choices[Number(this.people.value)];
      const { rating } = this.scans;
      const [counted, part] = await Promise.all([this.read(choice.key, rating), this.read(choice.key, "seen")]);
      const seen = (at) => (part ? part[at] : choice.whole);
      Object.assign(this, { choice, counted, seen, rated: rating });
      const shares = this.what.value === "share";
      const levels = Uint8Array.from(this.ground.data);
      const value = shares ? (at) => (counted[at] ? counted[at] / Math.max(1, seen(at)) : 0) : seen;
      let top = 0;
      let peak = 0;
      for (let at = 0; at < levels.length; at++) {
        const now = shares || this.ground.data[at] > 8 ? value(at) : 0;
        if (now > top) [top, peak] = [now, at];
      }
      this.top = top;
      for (let at = 0; at < levels.length; at++) {
        const now = shares || this.ground.data[at] > 8 ? value(at) : 0;
        if (now > 0) levels[at] = GREYS + Math.round((255 - GREYS) * (shares ? Math.sqrt(now / top) : now / top));
      }
      const volume = new cmb.Volume({ ...this.ground.header, window: [0, 255] }, levels);
      this.viewer.setVolume(volume);
      if (!this.placed && top) {
        const [nx, ny] = volume.shape;
        this.view.goTo([peak % nx, Math.floor(peak / nx) % ny, Math.floor(peak / (nx * ny))]);
        this.placed = true;
      }
      this.describe();
      this.drawRamp(shares);
    }

    drawRamp(shares) {
      const end = shares ? `${(100 * this.top).toPrecision(3)} %` : `${this.top} people`;
      const steps = Array.from({ length: 12 }, (_, at) => `rgb(${heat(shares ? Math.sqrt(at / 11) : at / 11)})`);
      const bar = cmb.element("span", { style: `background: linear-gradient(to right, ${steps.join(", ")})` });
      this.ramp.replaceChildren(shares ? "0 %" : "0", bar, this.top ? end : "nobody");
    }

    describe() {
      if (!this.counted) return;
      const at = this.viewer.volume.index(this.view.cursor);
      const [x, y, z] = this.ground.toWorld(this.view.cursor).map((mm) => Math.round(mm));
      const [people, seen] = [this.counted[at], this.seen(at)];
      const part = seen ? ` (${((100 * people) / seen).toPrecision(3)} %)` : "";
      const word = this.rated === "definite" ? "a definite" : "a definite or possible";
      this.status.textContent = `x ${x}, y ${y}, z ${z} mm: ${people} of ${seen} people with ${word} microbleed${people ? part : ""}`;
    }

    /* Rings at the lesions of the one person who was found. */
    follow() {
      const marks = [];
      if (this.scans.person !== null) {
        for (const row of this.scans.rows) {
          for (const [i, j, k, radiusMm, definite] of this.lesions[this.scans.data.scan[row]] ?? []) {
            marks.push({ ijk: [i, j, k], radiusMm, colour: RING, dashed: !definite, current: true });
          }
        }
      }
      this.view.set({ marks });
      if (marks.length) this.view.goTo(marks[0].ijk);
      if (this.rated && this.rated !== this.scans.rating) this.show();
    }

    key(event) {
      if (event.target.tagName !== "CANVAS" || event.ctrlKey || event.altKey || event.metaKey) return;
      const { axis } = cmb.PLANES[this.view.active];
      const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 };
      if (!steps[event.key]) return;
      event.preventDefault();
      this.view.step(axis, steps[event.key]);
    }
  }

  /* A map is unpacked when it is about to be seen. */
  async function start() {
    const scans = await cmb.groupReady;
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (!isIntersecting) continue;
          observer.unobserve(target);
          open(target, scans).catch((error) => {
            target.querySelector(".status").textContent = `The map cannot be shown: ${error.message}`;
            console.error(error);
          });
        }
      },
      { rootMargin: "400px" },
    );
    document.querySelectorAll("[data-map]").forEach((box) => observer.observe(box));
  }

  async function open(box, scans) {
    const name = box.dataset.map;
    const [voxels, lesions] = await Promise.all([
      cmb.unpackBytes(`map-${name}-voxels`),
      cmb.unpackJson(`map-${name}-lesions`),
    ]);
    const choices = JSON.parse(document.getElementById(`map-${name}-choices`).textContent);
    const map = new FrequencyMap(box, scans, { ground: cmb.parseVolume(voxels), lesions, choices });
    cmb.maps = { ...cmb.maps, [name]: map };
    await map.show();
    map.follow();
    box.dataset.ready = "";
  }

  start();
})((window.cmb = window.cmb || {}));
