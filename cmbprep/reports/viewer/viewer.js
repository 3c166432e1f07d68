"use strict";
/* Planes of one volume on 2D canvases, without WebGL. Needs volume.js, geometry.js and view.js;
   outlines of lesions need contours.js too.

   const view = new cmb.View();
   const viewer = new cmb.Viewer(element, view, ["axial"]);
   viewer.setVolume(cmb.parseVolume(buffer));

   Viewers that share a view are linked. Lesions are drawn from view.marks, a list of
   {ijk, region, radiusMm, colour, label, dashed, current}: `region` (contours.js) is outlined,
   without one a ring of the radius is drawn; the other fields may be left out. */
(function (cmb) {
  const FONT = "600 13px system-ui, sans-serif";
  const WHEEL_STEP = 50;

  class Viewer {
    constructor(container, view, planes = ["axial", "coronal", "sagittal"]) {
      this.container = container;
      this.view = view;
      this.volume = null;
      this.window = [0, 1];
      // Pixel (ABGR) of each value, in place of grey levels.
      this.colours = null;
      this.onPick = null;
      this.onWindow = null;
      // On a long page the wheel scrolls the page until a plane is clicked.
      this.wheelNeedsFocus = false;
      this.panes = planes.map((plane) => new Pane(this, plane));
      container.append(...this.panes.map((pane) => pane.box));
      this.redraw = () => this.schedule();
      view.addEventListener("change", this.redraw);
      this.observer = new ResizeObserver(this.redraw);
      for (const pane of this.panes) this.observer.observe(pane.box);
    }

    close() {
      this.view.removeEventListener("change", this.redraw);
      this.observer.disconnect();
      this.container.replaceChildren();
    }

    setVolume(volume, window = volume.window) {
      this.volume = volume;
      for (const pane of this.panes) pane.forget();
      this.setWindow(window);
    }

    /* Draw again after the volume's voxels have changed. */
    voxelsChanged() {
      for (const pane of this.panes) pane.forget();
      this.schedule();
    }

    /* Show nothing, for instance while another volume is loaded. */
    clear() {
      this.volume = null;
      this.schedule();
    }

    setWindow([low, high]) {
      this.window = [Math.round(low), Math.round(Math.max(low + 1, high))];
      this.grey = cmb.greyTable(this.window);
      if (this.onWindow) this.onWindow(this.window);
      this.schedule();
    }

    /* Shift and stretch the window by parts of the image's own window. */
    changeWindow(level, width) {
      const [first, last] = this.volume.window;
      const [low, high] = this.window;
      const middle = (low + high) / 2 + level * (last - first);
      const half = Math.max(1, ((high - low) / 2) * (1 + width));
      this.setWindow([middle - half, middle + half]);
    }

    schedule() {
      if (this.frame) return;
      this.frame = requestAnimationFrame(() => {
        this.frame = null;
        this.draw();
      });
    }

    draw() {
      for (const pane of this.panes) {
        if (this.volume) pane.draw();
        else pane.blank();
      }
    }
  }

  /* One plane: its canvas, the slice drawn there, and the pointer. */
  class Pane {
    constructor(viewer, plane) {
      this.viewer = viewer;
      this.plane = plane;
      Object.assign(this, cmb.PLANES[plane]);
      this.box = document.createElement("div");
      this.box.className = `pane pane-${plane}`;
      this.canvas = document.createElement("canvas");
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.box.append(this.canvas);
      this.slice = document.createElement("canvas");
      this.wheel = 0;
      this.forget();
      this.listen();
    }

    get view() {
      return this.viewer.view;
    }

    forget() {
      this.shown = "";
      this.coloured = "";
    }

    range() {
      const { view } = this;
      const index = view.cursor[this.axis];
      return view.slabOn ? this.viewer.volume.slab(this.axis, index, view.slabMm) : [index, 1];
    }

    frame() {
      const { view } = this;
      const [width, height] = [this.canvas.width, this.canvas.height];
      const scale = cmb.fitScale(this.plane, view.shape, view.spacing, width, height) * view.zoom;
      return new cmb.Frame(
        this.plane,
        view.convention,
        view.spacing,
        width,
        height,
        scale,
        view.centre,
      );
    }

    /* Fit the canvas to its box and paint it black. */
    blank() {
      const ratio = window.devicePixelRatio || 1;
      const width = Math.max(1, Math.round(this.box.clientWidth * ratio));
      const height = Math.max(1, Math.round(this.box.clientHeight * ratio));
      if (this.canvas.width !== width) this.canvas.width = width;
      if (this.canvas.height !== height) this.canvas.height = height;
      const context = this.canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, height);
      return { context, ratio };
    }

    draw() {
      const { context, ratio } = this.blank();
      const [first, count] = this.range();
      const frame = this.frame();
      this.colour(first, count);
      this.drawSlice(context, frame);
      if (this.view.showOutlines) this.drawMarks(context, frame, first, count, ratio);
      if (this.view.showCrosshair) this.drawCrosshair(context, frame, ratio);
      this.drawTexts(context, frame, count, ratio);
      this.describe(count);
    }

    /* Bring the slice's grey values up to date; both steps are skipped where nothing changed. */
    colour(first, count) {
      const { volume, window: range, grey, colours } = this.viewer;
      const shown = `${first} ${count}`;
      if (shown !== this.shown) this.values = volume.plane(this.axis, first, count);
      const coloured = `${shown} ${range}`;
      if (coloured === this.coloured) return;
      [this.shown, this.coloured] = [shown, coloured];
      const { values, width, height } = this.values;
      const context = this.slice.getContext("2d");
      if (this.image?.width !== width || this.image.height !== height) {
        Object.assign(this.slice, { width, height });
        this.image = context.createImageData(width, height);
      }
      const pixels = new Uint32Array(this.image.data.buffer);
      for (let at = 0; at < pixels.length; at++)
        pixels[at] = colours ? colours[values[at]] : 0xff000000 | (grey[values[at]] * 0x10101);
      context.putImageData(this.image, 0, 0);
    }

    drawSlice(context, frame) {
      context.imageSmoothingEnabled = this.view.smooth;
      context.imageSmoothingQuality = "high";
      const [x, y] = frame.toScreen(-0.5, -0.5);
      context.setTransform(frame.scaleX, 0, 0, frame.scaleY, x, y);
      context.drawImage(this.slice, 0, 0);
      context.setTransform(1, 0, 0, 1, 0, 0);
    }

    drawMarks(context, frame, first, count, ratio) {
      for (const mark of this.view.marks) {
        const path = mark.region
          ? outline(mark.region.edges(this.axis, first, count), frame)
          : this.ring(mark, frame, first, count, ratio);
        if (!path) continue;
        // A thin line on small voxels, so that it does not cover the lesion.
        const voxel = Math.min(Math.abs(frame.scaleX), Math.abs(frame.scaleY));
        const width = Math.min((mark.current ? 2.5 : 1.5) * ratio, Math.max(ratio, voxel / 2.5));
        // A dark line below keeps the outline visible on bright voxels.
        context.setLineDash([]);
        context.lineCap = "round";
        context.strokeStyle = "rgba(0, 0, 0, 0.6)";
        context.lineWidth = width + 1.5 * ratio;
        context.stroke(path);
        context.setLineDash(mark.dashed ? [4 * ratio, 3 * ratio] : []);
        context.lineCap = "butt";
        context.strokeStyle = mark.colour;
        context.lineWidth = width;
        context.stroke(path);
        context.setLineDash([]);
        if (mark.label) this.drawLabel(context, frame, mark, ratio);
      }
    }

    /* Ring around a place without voxels of its own; on neighbouring slices too. */
    ring(mark, frame, first, count, ratio) {
      const radius = mark.radiusMm || 2;
      const spacing = this.view.spacing;
      const from = first - radius / spacing[this.axis];
      const to = first + count - 1 + radius / spacing[this.axis];
      if (mark.ijk[this.axis] < from || mark.ijk[this.axis] > to) return null;
      const [x, y] = frame.toScreen(mark.ijk[this.across], mark.ijk[this.up]);
      const size = Math.max(6 * ratio, (1.6 * radius * Math.abs(frame.scaleY)) / spacing[this.up]);
      const path = new Path2D();
      path.arc(x, y, size, 0, 2 * Math.PI);
      return path;
    }

    drawLabel(context, frame, mark, ratio) {
      const [x, y] = frame.toScreen(mark.ijk[this.across], mark.ijk[this.up]);
      const far = ((mark.radiusMm || 2) * Math.abs(frame.scaleY)) / this.view.spacing[this.up];
      context.textAlign = "left";
      this.write(context, mark.label, x + far + 5 * ratio, y - far - 5 * ratio, mark.colour, ratio);
    }

    /* The crosshair leaves its middle free, so that it covers no lesion. */
    drawCrosshair(context, frame, ratio) {
      const { cursor } = this.view;
      const [x, y] = frame.toScreen(cursor[this.across], cursor[this.up]);
      const gap = Math.max(12 * ratio, (4 * Math.abs(frame.scaleY)) / this.view.spacing[this.up]);
      const [width, height] = [frame.width, frame.height];
      context.strokeStyle = "rgba(120, 200, 255, 0.75)";
      context.lineWidth = ratio;
      context.beginPath();
      for (const [from, to] of [
        [0, x - gap],
        [x + gap, width],
      ]) {
        if (to > from) {
          context.moveTo(from, y);
          context.lineTo(to, y);
        }
      }
      for (const [from, to] of [
        [0, y - gap],
        [y + gap, height],
      ]) {
        if (to > from) {
          context.moveTo(x, from);
          context.lineTo(x, to);
        }
      }
      context.stroke();
    }

    drawTexts(context, frame, count, ratio) {
      const { view } = this;
      const [width, height] = [frame.width, frame.height];
      const letters = cmb.edgeLetters(this.plane, view.convention);
      const edge = 11 * ratio;
      context.textAlign = "center";
      this.write(context, letters.left, edge, height / 2, "#ffd866", ratio);
      this.write(context, letters.right, width - edge, height / 2, "#ffd866", ratio);
      this.write(context, letters.top, width / 2, edge, "#ffd866", ratio);
      this.write(context, letters.bottom, width / 2, height - edge, "#ffd866", ratio);
      context.textAlign = "left";
      const position = `${view.cursor[this.axis] + 1}/${view.shape[this.axis]}`;
      const active = view.active === this.plane ? "▸ " : "";
      // A narrow plane has room for the first letters only, beside the letter in the middle.
      const texts = [this.title, this.title.slice(0, 3)].map(
        (title) => `${active}${title} ${position}`,
      );
      const room = width / 2 - 16 * ratio;
      const text = context.measureText(texts[0]).width < room ? texts[0] : texts[1];
      this.write(context, text, 6 * ratio, edge, "#fff", ratio);
      if (view.slabOn) {
        const thickness = `minimum of ${(count * view.spacing[this.axis]).toFixed(1)} mm`;
        this.write(context, thickness, 6 * ratio, edge + 18 * ratio, "#fff", ratio);
      }
      this.drawScaleBar(context, frame, ratio);
    }

    /* A bar of 10 mm, to judge the size of a lesion. */
    drawScaleBar(context, frame, ratio) {
      const length = (10 * Math.abs(frame.scaleY)) / this.view.spacing[this.up];
      const [x, y] = [8 * ratio, frame.height - 8 * ratio];
      if (length > frame.width / 2 || frame.width < 150 * ratio) return;
      context.fillStyle = "#000";
      context.fillRect(x - ratio, y - ratio, length + 2 * ratio, 4 * ratio);
      context.fillStyle = "#fff";
      context.fillRect(x, y, length, 2 * ratio);
      context.textAlign = "left";
      this.write(context, "10 mm", x, y - 9 * ratio, "#fff", ratio);
    }

    write(context, text, x, y, colour, ratio) {
      context.font = FONT.replace("13px", `${13 * ratio}px`);
      context.textBaseline = "middle";
      context.lineJoin = "round";
      context.lineWidth = 3 * ratio;
      context.strokeStyle = "rgba(0, 0, 0, 0.85)";
      context.strokeText(text, x, y);
      context.fillStyle = colour;
      context.fillText(text, x, y);
    }

    describe(count) {
      const { view } = this;
      const letters = cmb.edgeLetters(this.plane, view.convention);
      const slab = view.slabOn ? `, lowest of ${count} slices` : "";
      const text =
        `${this.title} plane, slice ${view.cursor[this.axis] + 1} of ` +
        `${view.shape[this.axis]}${slab}; left edge ${letters.left}, right edge ${letters.right}`;
      if (text !== this.text) this.canvas.setAttribute("aria-label", text);
      this.text = text;
      this.box.classList.toggle("active", view.active === this.plane);
    }

    /* Voxel under the pointer, on the slice shown; null outside the image. */
    voxelAt(event) {
      const box = this.canvas.getBoundingClientRect();
      const ratio = this.canvas.width / box.width;
      const [u, v] = this.frame().toVoxel(
        (event.clientX - box.left) * ratio,
        (event.clientY - box.top) * ratio,
      );
      const ijk = [...this.view.cursor];
      ijk[this.across] = Math.round(u);
      ijk[this.up] = Math.round(v);
      return ijk;
    }

    listen() {
      const { canvas } = this;
      canvas.addEventListener("focus", () => this.view.set({ active: this.plane }));
      canvas.addEventListener("contextmenu", (event) => event.preventDefault());
      canvas.addEventListener("pointerdown", (event) => this.press(event));
      canvas.addEventListener("pointermove", (event) => this.drag(event));
      canvas.addEventListener("pointerup", () => {
        this.held = null;
      });
      canvas.addEventListener("pointercancel", () => {
        this.held = null;
      });
      canvas.addEventListener("wheel", (event) => this.turn(event), { passive: false });
    }

    press(event) {
      if (!this.viewer.volume) return;
      event.preventDefault();
      canvasFocus(this.canvas);
      const ijk = this.voxelAt(event);
      if (event.button === 0 && this.view.tool && this.viewer.onPick) {
        if (this.viewer.volume.contains(ijk)) this.viewer.onPick(ijk);
        return;
      }
      this.canvas.setPointerCapture(event.pointerId);
      const action =
        event.button === 2 || event.ctrlKey
          ? "window"
          : event.button === 1 || event.shiftKey
            ? "pan"
            : "cursor";
      this.held = { action, x: event.clientX, y: event.clientY };
      if (action === "cursor") this.view.goTo(ijk);
    }

    drag(event) {
      if (!this.held || !this.viewer.volume) return;
      const [dx, dy] = [event.clientX - this.held.x, event.clientY - this.held.y];
      Object.assign(this.held, { x: event.clientX, y: event.clientY });
      if (this.held.action === "cursor") this.view.goTo(this.voxelAt(event));
      // Dragging up makes the image brighter, dragging to the right lowers the contrast.
      if (this.held.action === "window") this.viewer.changeWindow(dy / 400, dx / 200);
      if (this.held.action === "pan") this.pan(dx, dy);
    }

    pan(dx, dy) {
      const frame = this.frame();
      const ratio = window.devicePixelRatio || 1;
      const centre = [...this.view.centre];
      centre[this.across] -= (dx * ratio) / frame.scaleX;
      centre[this.up] -= (dy * ratio) / frame.scaleY;
      this.view.set({ centre });
    }

    turn(event) {
      if (!this.viewer.volume) return;
      if (this.viewer.wheelNeedsFocus && document.activeElement !== this.canvas) return;
      event.preventDefault();
      if (event.ctrlKey) {
        this.view.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, this.voxelAt(event));
        return;
      }
      // A mouse turns in large steps, a touch pad in many small ones.
      this.wheel += event.deltaY;
      if (Math.abs(event.deltaY) < WHEEL_STEP && Math.abs(this.wheel) < WHEEL_STEP) return;
      this.view.step(this.axis, this.wheel < 0 ? 1 : -1);
      this.wheel = 0;
    }
  }

  function canvasFocus(canvas) {
    canvas.focus({ preventScroll: true });
  }

  function outline(edges, frame) {
    if (!edges.length) return null;
    const path = new Path2D();
    for (const [u0, v0, u1, v1] of edges) {
      path.moveTo(...frame.toScreen(u0, v0));
      path.lineTo(...frame.toScreen(u1, v1));
    }
    return path;
  }

  Object.assign(cmb, { Viewer });
})((window.cmb = window.cmb || {}));
