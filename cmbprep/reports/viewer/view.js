"use strict";
/* What several viewers share: cursor, zoom, slab, display convention. A change sends "change". */
(function (cmb) {
  const MAX_ZOOM = 24;
  const SLAB_STEPS = [2, 4, 6, 8, 10, 15, 20, 30];

  class View extends EventTarget {
    constructor() {
      super();
      this.shape = [1, 1, 1];
      this.spacing = [1, 1, 1];
      this.cursor = [0, 0, 0];
      this.centre = [0, 0, 0];
      this.zoom = 1;
      this.slabMm = 10;
      this.slabOn = false;
      this.convention = "radiological";
      this.showCrosshair = true;
      this.showOutlines = true;
      this.smooth = false;
      this.active = "axial";
      this.tool = null;
      this.marks = [];
    }

    /* Take a grid over, with the cursor in its middle. */
    setGrid(shape, spacing) {
      this.shape = shape;
      this.spacing = spacing;
      this.cursor = shape.map((size) => Math.floor(size / 2));
      this.fit();
    }

    set(changes) {
      Object.assign(this, changes);
      this.dispatchEvent(new Event("change"));
    }

    clamp(ijk) {
      return ijk.map((value, axis) =>
        Math.min(this.shape[axis] - 1, Math.max(0, Math.round(value))),
      );
    }

    /* Move the crosshair; a zoomed view follows where `recentre` is set. */
    goTo(ijk, recentre = false) {
      const cursor = this.clamp(ijk);
      this.set(recentre && this.zoom > 1 ? { cursor, centre: [...cursor] } : { cursor });
    }

    step(axis, slices) {
      const cursor = [...this.cursor];
      cursor[axis] += slices;
      this.goTo(cursor);
    }

    fit() {
      this.set({ zoom: 1, centre: this.shape.map((size) => (size - 1) / 2) });
    }

    /* Zoom so that the voxel `at` keeps its place on the screen. */
    zoomBy(factor, at = this.cursor) {
      const zoom = Math.min(MAX_ZOOM, Math.max(1, this.zoom * factor));
      if (zoom === 1) return this.fit();
      const ratio = this.zoom / zoom;
      const centre = this.centre.map((value, axis) => at[axis] + (value - at[axis]) * ratio);
      this.set({ zoom, centre });
    }

    /* Next thinner (-1) or thicker (+1) slab of the list. */
    changeSlab(direction) {
      const thicker = SLAB_STEPS.find((mm) => mm > this.slabMm);
      const thinner = SLAB_STEPS.findLast((mm) => mm < this.slabMm);
      this.set({ slabOn: true, slabMm: (direction > 0 ? thicker : thinner) ?? this.slabMm });
    }
  }

  Object.assign(cmb, { View, SLAB_STEPS });
})((window.cmb = window.cmb || {}));
