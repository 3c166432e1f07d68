"use strict";
// Strip plots by Bokeh: each is built when it is about to be seen. All share the source of all rows;
// what is highlighted is a source per plot, which is filled while the plot is in view.
(function (cmb) {
  const JITTER = 0.34;
  const MANY = 200;
  /* Pause in typing, ms, after which many points are marked. */
  const PAUSE = 80;
  const look = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /* A number from 0 to 1 that depends on the row alone, so that points keep their places. */
  const spread = (row) => ((row * 0.6180339887498949) % 1 + 1) % 1;
  const scaled = (count) => (count === null ? NaN : Math.log2(1 + count));

  class Strips {
    constructor(scans, json, boxes) {
      this.scans = scans;
      this.boxes = boxes;
      this.document = Bokeh.require("document").Document.from_json(json);
      this.roots = new Map(this.document.roots().map((root) => [root.name, root]));
      const model = (name) => this.document.get_model_by_name(name);
      Object.assign(this, { rows: model("rows"), across: model("across"), places: model("places") });
      this.views = new Map();
      // Rows that are highlighted; plots in view; plots that show other rows than these.
      this.marked = [];
      this.inView = new Set();
      this.outdated = new Set();
    }

    async start() {
      // Bokeh's own embedding builds all plots at once: here each is built when it is wanted.
      this.manager = new (Bokeh.require("core/view_manager").ViewManager)([], Bokeh.index);
      this.document.views_manager = this.manager;
      this.fill();
      this.paintColours();
      this.rows.selected.properties.indices.change.connect(() => this.brushed());
      // The table answers at once; many points are marked when typing has paused.
      this.scans.addEventListener("change", () => {
        clearTimeout(this.waiting);
        this.waiting = setTimeout(() => this.update(), this.scans.rows.length > MANY ? PAUSE : 0);
      });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paintColours());
      const observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.seen(entry)), {
        rootMargin: "300px",
      });
      // Plots near the window are built; only those inside it are marked at once.
      const inside = new IntersectionObserver((entries) => entries.forEach((entry) => this.inside(entry)));
      for (const box of this.boxes) {
        observer.observe(box);
        inside.observe(box);
      }
    }

    /* Groups of the present grouping, in the order of the tables. */
    labels() {
      const { scans } = this;
      const known = scans.groupOrder[scans.grouping];
      return { known, at: new Map(known.map((label, index) => [label, index])) };
    }

    columns() {
      const { scans } = this;
      const { at } = this.labels();
      const groups = scans.groups[scans.grouping];
      const made = { scan: scans.data.scan, group: groups };
      made.x = Float64Array.from(groups, (label, row) => at.get(label) + (spread(row) - 0.5) * 2 * JITTER);
      for (const box of this.boxes) {
        const name = box.dataset.strip;
        const values = scans.values({ name: box.dataset.column ?? name });
        const counted = box.dataset.scale === "count";
        made[name] = Float64Array.from(values, counted ? scaled : (value) => value ?? NaN);
        if (counted) made[`shown_${name}`] = values.map((value) => value ?? "n/a");
      }
      return made;
    }

    fill() {
      this.all = this.columns();
      this.shown = [this.scans.grouping, this.scans.rating].join();
      const { known } = this.labels();
      for (const box of this.boxes) this.scale(box.dataset.strip);
      this.across.setv({ start: -0.5, end: known.length - 0.5 });
      const labels = new Map(known.map((label, index) => [index, label]));
      this.places.ticks = known.map((_, index) => index);
      for (const root of this.roots.values()) {
        const [axis] = root.below;
        axis.major_label_overrides = labels;
        axis.major_label_orientation = known.length > 4 || known.some((label) => label.length > 14) ? 0.5 : "horizontal";
      }
      this.rows.data = this.all;
      this.mark();
    }

    scale(name) {
      let [low, high] = [Infinity, -Infinity];
      for (const value of this.all[name]) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
      const room = high > low ? 0.06 * (high - low) : Math.max(1e-6, 0.1 * Math.abs(high) || 1);
      if (high >= low) this.roots.get(`strip-${name}`).y_range.setv({ start: low - room, end: high + room });
    }

    mark() {
      this.marked = this.scans.filtered ? this.scans.rows : [];
      for (const box of this.boxes) {
        const name = box.dataset.strip;
        if (this.inView.has(name)) this.markPlot(name);
        else this.outdated.add(name);
      }
    }

    markPlot(name) {
      const [, highlight] = this.roots.get(`strip-${name}`).renderers;
      const many = this.marked.length > MANY;
      const size = many ? 5 : 8;
      if (highlight.glyph.size.value !== size) highlight.glyph.setv({ size: { value: size }, line_color: { value: many ? null : "#ffffff" } });
      const at = (values) => Float64Array.from(this.marked, (row) => values[row]);
      highlight.data_source.data = { x: at(this.all.x), [name]: at(this.all[name]) };
      this.outdated.delete(name);
    }

    update() {
      if (this.shown !== [this.scans.grouping, this.scans.rating].join()) this.fill();
      else this.mark();
    }

    brushed() {
      if (this.quiet) return;
      const found = this.rows.selected.indices;
      this.scans.setBrush(found.length ? Array.from(found) : null);
    }

    clearBrush() {
      this.quiet = true;
      this.rows.selected.indices = [];
      this.quiet = false;
    }

    paintColours() {
      const [text, quiet, line] = [look("--text"), look("--quiet"), look("--line")];
      for (const root of this.roots.values()) {
        for (const axis of [...root.below, ...root.left]) {
          axis.setv({ axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null,
            major_label_text_color: text, axis_label_text_color: quiet });
        }
        for (const grid of root.center) grid.grid_line_color = grid.dimension === 1 ? line : null;
        root.outline_line_color = line;
        for (const part of root.center) if (part.type === "Span") part.line_color = look("--warn");
      }
    }

    inside({ target, isIntersecting }) {
      const name = target.dataset.strip;
      if (isIntersecting) this.inView.add(name);
      else this.inView.delete(name);
      if (isIntersecting && this.outdated.has(name)) this.markPlot(name);
    }

    async seen({ target, isIntersecting }) {
      const name = target.dataset.strip;
      const root = this.roots.get(`strip-${name}`);
      // A plot that is out of sight is not painted until it is seen again.
      if (this.views.has(name)) {
        const view = await this.views.get(name);
        root.hold_render = !isIntersecting;
        if (isIntersecting) view.request_repaint?.();
        return;
      }
      if (!isIntersecting) return;
      this.views.set(name, this.manager.build_view(root));
      const view = await this.views.get(name);
      view.build(target);
      target.dataset.built = "";
    }
  }

  cmb.startStrips = async function () {
    const scans = await cmb.groupReady;
    const boxes = [...document.querySelectorAll("[data-strip]")];
    if (!boxes.length) return;
    const strips = new Strips(scans, JSON.parse(document.getElementById("strips").textContent), boxes);
    cmb.strips = strips;
    cmb.clearBrush = () => strips.clearBrush();
    await strips.start();
    document.body.dataset.ready = "plots";
  };
  cmb.stripsReady = cmb.startStrips().catch((error) => {
    console.error(error);
    for (const box of document.querySelectorAll("[data-strip]")) {
      box.replaceChildren(cmb.element("p", { class: "stop" }, `The plot cannot be drawn: ${error.message}`));
    }
  });
})((window.cmb = window.cmb || {}));
