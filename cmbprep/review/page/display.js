"use strict";
/* The images of a scan: one row of planes or two linked ones, with their tool bar. */
(function (cmb) {
  const { h } = cmb;
  const KEPT_VOLUMES = 4;
  const STORED = "cmbprep-review-display";
  const REMEMBERED = ["slabMm", "convention", "showCrosshair", "showOutlines", "smooth"];

  class Display {
    /* `loadImage(id, first, seen)` resolves to a volume, and calls `seen(volume)` before, with the
       slices near `first` and no others; `onPick(ijk)` is called for a click with a tool. */
    constructor(root, scan, { loadImage, onPick }) {
      Object.assign(this, { scan, loadImage, onPick });
      this.view = new cmb.View();
      Object.assign(this.view, stored());
      this.view.setGrid(scan.shape, scan.spacing);
      this.volumes = new Map();
      this.windows = new Map();
      this.regions = new Map();
      this.drawn = new Map();
      this.seen = new Set();
      this.build(root);
      this.view.addEventListener("change", () => this.refresh());
    }

    build(root) {
      const images = this.scan.images.map((image) => [image.id, image.title]);
      this.main = this.row("Image", images, (id) => this.show(this.main, id));
      this.other = this.row("Beside it", [["", "nothing"], ...images], (id) =>
        this.show(this.other, id),
      );
      this.other.box.hidden = true;
      this.stage = h("div", { class: "stage" }, this.main.box, this.other.box);
      this.where = h("p", { class: "where" });
      this.side = h("p", { class: "side" });
      this.seenText = h("p", { class: "seen" });
      root.replaceChildren(
        this.toolbar(),
        this.stage,
        h("div", { class: "under" }, this.where, this.seenText, this.side),
      );
      this.refresh();
    }

    row(label, images, change) {
      const field = cmb.select(label, images, "", change, { class: "image-choice" });
      const planes = h("div", { class: "planes" });
      const title = h("p", { class: "image-title" });
      const box = h("section", { class: "image-row", "aria-label": label }, title, planes);
      const viewer = new cmb.Viewer(planes, this.view);
      viewer.onPick = this.onPick;
      const row = {
        field,
        choice: field.querySelector("select"),
        box,
        title,
        planes,
        viewer,
        id: "",
      };
      viewer.onWindow = (window) => {
        if (row.id) this.windows.set(row.id, window);
        this.refresh();
      };
      return row;
    }

    toolbar() {
      const toggle = (action, text) => {
        const button = cmb.actionButton(action, text);
        (this.toggles ||= {})[action] = button;
        return button;
      };
      this.thickness = cmb.select(
        "Slab",
        cmb.SLAB_STEPS.map((mm) => [String(mm), `${mm} mm`]),
        String(this.view.slabMm),
        (mm) => this.view.set({ slabMm: Number(mm), slabOn: true }),
      );
      this.slabBox = this.thickness.querySelector("select");
      return h(
        "div",
        { class: "toolbar", role: "toolbar", "aria-label": "Display" },
        this.main.field,
        cmb.actionButton("image", "Next"),
        this.other.field,
        cmb.actionButton("beside", "Next"),
        this.thickness,
        toggle("slab", "Minimum slab"),
        toggle("outlines", "Outlines"),
        toggle("crosshair", "Crosshair"),
        toggle("smooth", "Interpolate"),
        toggle("enlarge", "Enlarge"),
        cmb.actionButton("fit", "Fit"),
        cmb.actionButton("resetWindow", "Window"),
        cmb.actionButton("convention", "Left ⇄ right"),
      );
    }

    close() {
      this.main.viewer.close();
      this.other.viewer.close();
    }

    /* Show an image in a row; an empty id closes the second row. */
    async show(row, id) {
      row.wanted = id;
      row.choice.value = id;
      if (!id) {
        row.id = "";
        row.box.hidden = true;
        this.stage.classList.remove("two");
        return;
      }
      const image = this.scan.images.find((one) => one.id === id);
      row.title.textContent = `${image.title} (loading)`;
      // No image under the title of another one.
      row.id = "";
      row.viewer.clear();
      row.box.hidden = false;
      this.stage.classList.toggle("two", !this.other.box.hidden);
      try {
        const volume = await this.volume(id, (part) => {
          if (row.wanted !== id) return;
          if (row.viewer.volume === part) row.viewer.voxelsChanged();
          else row.viewer.setVolume(part, this.windows.get(id) || part.window);
        });
        if (row.wanted !== id) return;
        row.id = id;
        row.title.textContent = image.title;
        if (row.viewer.volume === volume) row.viewer.voxelsChanged();
        else row.viewer.setVolume(volume, this.windows.get(id) || volume.window);
        this.refresh();
      } catch (error) {
        if (row.wanted !== id) return;
        row.viewer.clear();
        row.title.textContent = `${image.title}: ${error.message}`;
      }
    }

    volume(id, seen) {
      if (!this.volumes.has(id)) {
        const loading = this.loadImage(id, this.view.cursor[2], seen).then((volume) => {
          if (volume.shape.some((size, axis) => size !== this.scan.shape[axis])) {
            throw new Error("the image lies on another grid and cannot be linked");
          }
          return volume;
        });
        loading.catch(() => this.volumes.delete(id));
        this.volumes.set(id, loading);
        this.forgetOldVolumes();
      }
      return this.volumes.get(id);
    }

    /* A large scan has 50 MB per image: keep what is shown and what was shown last. */
    forgetOldVolumes() {
      for (const id of this.volumes.keys()) {
        if (this.volumes.size <= KEPT_VOLUMES) return;
        if (id !== this.main.wanted && id !== this.other.wanted) this.volumes.delete(id);
      }
    }

    /* Voxels of the listed lesions: key -> runs. */
    setRegions(runs) {
      for (const [key, own] of Object.entries(runs))
        this.regions.set(key, cmb.Region.fromRuns(own, this.scan.shape));
    }

    /* Draw the lesions; `current` is the key of the one that is judged. */
    setItems(items, current) {
      const marks = items.map((item) => ({
        key: item.key,
        ijk: item.centre_ijk,
        region: this.regionOf(item),
        radiusMm: item.diameter_mm ? item.diameter_mm / 2 : 2,
        colour: cmb.VERDICTS[item.verdict].colour,
        dashed: item.verdict === "rejected" || item.kind === "candidate",
        current: item.key === current,
        label: item.key === current ? `${item.key} ${cmb.VERDICTS[item.verdict].sign}` : "",
      }));
      for (const item of cmb.addedByOthers(this.scan.others)) {
        const { name, centre_ijk: ijk } = item;
        marks.push({ key: name, ijk, radiusMm: 2, colour: "#f0f0f0", dashed: true, label: name });
      }
      for (const { name, centre_ijk: ijk } of cmb.onlyElsewhere(this.scan.followup)) {
        marks.push({ key: name, ijk, radiusMm: 2, colour: "#b8c4d0", dashed: true, label: name });
      }
      // The current lesion is drawn last, over its neighbours.
      marks.sort((one, other) => Boolean(one.current) - Boolean(other.current));
      this.view.set({ marks });
    }

    regionOf(item) {
      if (!item.runs) return this.regions.get(item.key) || null;
      if (!item.runs.length) return null;
      const known = this.drawn.get(item.key);
      const text = JSON.stringify(item.runs);
      if (known?.text === text) return known.region;
      const region = cmb.Region.fromRuns(item.runs, this.scan.shape);
      this.drawn.set(item.key, { text, region });
      return region;
    }

    refresh() {
      const { view } = this;
      const pressed = {
        slab: view.slabOn,
        outlines: view.showOutlines,
        crosshair: view.showCrosshair,
        smooth: view.smooth,
        enlarge: Boolean(this.enlarged),
      };
      for (const [action, on] of Object.entries(pressed)) {
        this.toggles?.[action].setAttribute("aria-pressed", String(on));
      }
      if (this.slabBox) this.slabBox.value = String(view.slabMm);
      if (this.where) this.where.textContent = this.position();
      if (this.side) this.side.textContent = this.sides();
      for (const row of [this.main, this.other])
        row?.planes.setAttribute("data-enlarged", this.enlarged || "");
      this.stage?.classList.toggle("picking", Boolean(view.tool));
      this.stage?.classList.toggle("enlarged", Boolean(this.enlarged));
      this.noteSeen();
      remember(view);
    }

    /* Remember the axial slices that were on the screen. */
    noteSeen() {
      // Slices of an image that is still arriving may be empty.
      if (!this.main?.id || (this.enlarged && this.enlarged !== "axial")) return;
      this.seen.add(this.view.cursor[2]);
      if (this.seenText) {
        this.seenText.textContent = `${this.seen.size} of ${this.scan.shape[2]} axial slices seen`;
      }
    }

    position() {
      const volume = this.main.viewer.volume;
      if (!volume) return "Loading the image …";
      const ijk = this.view.cursor;
      const mm = volume
        .toWorld(ijk)
        .map((value) => value.toFixed(1))
        .join(", ");
      const values = [this.main, this.other]
        .filter((row) => row.id && row.viewer.volume)
        .map((row) => `${format(row.viewer.volume.value(ijk))} ${row.viewer.volume.unit}`.trim());
      const [low, high] = this.main.viewer.window.map((value) =>
        format(value * volume.scale + volume.offset),
      );
      return `x, y, z: ${mm} mm · voxel ${ijk.join(", ")} · value ${values.join(" | ")} · window ${low} to ${high}`;
    }

    sides() {
      const angle = new cmb.Volume({ ...this.scan, window: [0, 1] }, []).obliquity();
      const oblique =
        angle > 5
          ? ` The slices are oblique by ${Math.round(angle)}°: letters name the nearest direction.`
          : "";
      return `${cmb.CONVENTIONS[this.view.convention]}.${oblique}`;
    }

    toggleEnlarged() {
      this.enlarged = this.enlarged ? null : this.view.active;
      this.refresh();
    }

    nextPlane() {
      const planes = Object.keys(cmb.PLANES);
      const active = planes[(planes.indexOf(this.view.active) + 1) % planes.length];
      if (this.enlarged) this.enlarged = active;
      this.view.set({ active });
    }

    nextImage() {
      this.show(
        this.main,
        this.after(
          this.scan.images.map((image) => image.id),
          this.main.wanted,
        ),
      );
    }

    nextBeside() {
      const ids = [
        "",
        ...this.scan.images.map((image) => image.id).filter((id) => id !== this.main.wanted),
      ];
      this.show(this.other, this.after(ids, this.other.wanted || ""));
    }

    after(ids, id) {
      return ids[(ids.indexOf(id) + 1) % ids.length];
    }

    window(level, width) {
      for (const row of [this.main, this.other]) {
        if (row.id) row.viewer.changeWindow(level, width);
      }
    }

    resetWindow() {
      for (const row of [this.main, this.other]) {
        if (row.id) row.viewer.setWindow(row.viewer.volume.window);
      }
    }

    /* Move the crosshair on the active plane, in the direction seen on the screen. */
    moveCross(right, up) {
      const cursor = [...this.view.cursor];
      const plane = cmb.PLANES[this.view.active];
      cursor[plane.across] += cmb.isMirrored(this.view.active, this.view.convention)
        ? -right
        : right;
      cursor[plane.up] += up;
      this.view.goTo(cursor);
    }

    pan(right, up) {
      const pane = this.main.viewer.panes.find((one) => one.plane === this.view.active);
      pane.pan(right * 40, -up * 40);
    }

    step(slices) {
      this.view.step(cmb.PLANES[this.view.active].axis, slices);
    }

    /* Actions of the display by name. */
    actions() {
      const { view } = this;
      const turn = (name) => () => view.set({ [name]: !view[name] });
      return {
        sliceUp: () => this.step(1),
        sliceDown: () => this.step(-1),
        slicesUp: () => this.step(5),
        slicesDown: () => this.step(-5),
        plane: () => this.nextPlane(),
        enlarge: () => this.toggleEnlarged(),
        crossLeft: () => this.moveCross(-1, 0),
        crossRight: () => this.moveCross(1, 0),
        crossUp: () => this.moveCross(0, 1),
        crossDown: () => this.moveCross(0, -1),
        panLeft: () => this.pan(-1, 0),
        panRight: () => this.pan(1, 0),
        panUp: () => this.pan(0, 1),
        panDown: () => this.pan(0, -1),
        zoomIn: () => view.zoomBy(1.4),
        zoomOut: () => view.zoomBy(1 / 1.4),
        fit: () => view.fit(),
        darker: () => this.window(0.05, 0),
        brighter: () => this.window(-0.05, 0),
        lessContrast: () => this.window(0, 0.15),
        moreContrast: () => this.window(0, -0.13),
        resetWindow: () => this.resetWindow(),
        slab: turn("slabOn"),
        thinner: () => view.changeSlab(-1),
        thicker: () => view.changeSlab(1),
        image: () => this.nextImage(),
        beside: () => this.nextBeside(),
        outlines: turn("showOutlines"),
        crosshair: turn("showCrosshair"),
        smooth: turn("smooth"),
        convention: () =>
          view.set({
            convention: view.convention === "radiological" ? "neurological" : "radiological",
          }),
      };
    }
  }

  function format(value) {
    return Math.abs(value) >= 100 || Number.isInteger(value)
      ? String(Math.round(value))
      : value.toPrecision(3);
  }

  function stored() {
    try {
      const kept = JSON.parse(localStorage.getItem(STORED) || "{}");
      return Object.fromEntries(
        REMEMBERED.filter((name) => name in kept).map((name) => [name, kept[name]]),
      );
    } catch {
      return {};
    }
  }

  let written = "";
  function remember(view) {
    const text = JSON.stringify(Object.fromEntries(REMEMBERED.map((name) => [name, view[name]])));
    if (text === written) return;
    written = text;
    try {
      localStorage.setItem(STORED, text);
    } catch {
      /* the choice holds until the page is closed */
    }
  }

  /* Button of an action, with its key. */
  function actionButton(action, text, attributes = {}) {
    return h(
      "button",
      { type: "button", "data-action": action, title: cmb.ACTIONS[action][1], ...attributes },
      text,
      " ",
      h("kbd", { "data-key": action }),
    );
  }

  Object.assign(cmb, { Display, actionButton });
})((window.cmb = window.cmb || {}));
