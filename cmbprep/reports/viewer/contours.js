"use strict";
/* Voxels of lesions, and their outlines along voxel edges in a plane. */
(function (cmb) {
  /* A lesion's voxels as flat indices, with the box that holds them. */
  class Region {
    constructor(indices, shape) {
      this.indices = indices;
      this.shape = shape;
      this.low = [Infinity, Infinity, Infinity];
      this.high = [-Infinity, -Infinity, -Infinity];
      for (const index of indices) {
        const ijk = unravel(index, shape);
        for (let axis = 0; axis < 3; axis++) {
          this.low[axis] = Math.min(this.low[axis], ijk[axis]);
          this.high[axis] = Math.max(this.high[axis], ijk[axis]);
        }
      }
    }

    static fromRuns(runs, shape) {
      const indices = [];
      for (const [start, length] of runs) {
        for (let index = start; index < start + length; index++) indices.push(index);
      }
      return new Region(indices, shape);
    }

    /* Whether a voxel belongs to the lesion. */
    has(ijk) {
      return this.indices.includes(ijk[0] + this.shape[0] * (ijk[1] + this.shape[1] * ijk[2]));
    }

    /* Cells of a plane that the lesion covers in `count` slices from `first` on, as "u,v". */
    cells(axis, first, count) {
      const cells = new Map();
      if (this.low[axis] >= first + count || this.high[axis] < first) return cells;
      const [across, up] = [0, 1, 2].filter((other) => other !== axis);
      for (const index of this.indices) {
        const ijk = unravel(index, this.shape);
        if (ijk[axis] >= first && ijk[axis] < first + count) {
          cells.set(ijk[across] + this.shape[across] * ijk[up], [ijk[across], ijk[up]]);
        }
      }
      return cells;
    }

    /* Outline in a plane: [u0, v0, u1, v1] per edge, in voxels; the edges lie between voxels. */
    edges(axis, first, count = 1) {
      const cells = this.cells(axis, first, count);
      const across = axis === 0 ? 1 : 0;
      const width = this.shape[across];
      const edges = [];
      for (const [cell, [u, v]] of cells) {
        const [left, right, below, above] = [u - 0.5, u + 0.5, v - 0.5, v + 0.5];
        if (u === 0 || !cells.has(cell - 1)) edges.push([left, below, left, above]);
        if (u === width - 1 || !cells.has(cell + 1)) edges.push([right, below, right, above]);
        if (!cells.has(cell - width)) edges.push([left, below, right, below]);
        if (!cells.has(cell + width)) edges.push([left, above, right, above]);
      }
      return edges;
    }
  }

  function unravel(index, shape) {
    const i = index % shape[0];
    const rest = (index - i) / shape[0];
    const j = rest % shape[1];
    return [i, j, (rest - j) / shape[1]];
  }

  Object.assign(cmb, { Region });
})((window.cmb = window.cmb || {}));
