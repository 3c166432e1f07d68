"use strict";
/* The three planes on the screen: which voxel axis runs where, and the letters at the edges. */
(function (cmb) {
  /* Voxel axes are stored to the right (0), to the front (1) and up (2). */
  const PLANES = {
    axial: { axis: 2, across: 0, up: 1, title: "Axial" },
    coronal: { axis: 1, across: 0, up: 2, title: "Coronal" },
    sagittal: { axis: 0, across: 1, up: 2, title: "Sagittal" },
  };
  const LETTERS = [
    ["L", "R"],
    ["P", "A"],
    ["I", "S"],
  ];
  const CONVENTIONS = {
    radiological: "Radiological: the patient's right is on the left of the screen",
    neurological: "Neurological: the patient's right is on the right of the screen",
  };

  /* Whether the voxel axis across the screen runs to the left.
     Radiological display shows the patient's right on the left. Sagittal planes face left. */
  function isMirrored(plane, convention) {
    return PLANES[plane].across === 1 || convention === "radiological";
  }

  /* Letters at the left, right, top and bottom edge of a plane. */
  function edgeLetters(plane, convention) {
    const { across, up } = PLANES[plane];
    const [low, high] = LETTERS[across];
    const [left, right] = isMirrored(plane, convention) ? [high, low] : [low, high];
    return { left, right, top: LETTERS[up][1], bottom: LETTERS[up][0] };
  }

  /* A plane's place on its canvas: pixels per millimetre and the voxel point at the middle.
     Voxel v covers [v - 0.5, v + 0.5]. */
  class Frame {
    constructor(plane, convention, spacing, width, height, pixelsPerMm, centre) {
      const { across, up } = PLANES[plane];
      Object.assign(this, { across, up, width, height });
      this.mirrored = isMirrored(plane, convention);
      this.scaleX = spacing[across] * pixelsPerMm * (this.mirrored ? -1 : 1);
      this.scaleY = -spacing[up] * pixelsPerMm;
      this.centre = [centre[across], centre[up]];
    }

    /* Canvas position of a point in voxels of the plane. */
    toScreen(u, v) {
      return [
        this.width / 2 + (u - this.centre[0]) * this.scaleX,
        this.height / 2 + (v - this.centre[1]) * this.scaleY,
      ];
    }

    /* Point in voxels of the plane at a canvas position. */
    toVoxel(x, y) {
      return [
        (x - this.width / 2) / this.scaleX + this.centre[0],
        (y - this.height / 2) / this.scaleY + this.centre[1],
      ];
    }
  }

  /* Pixels per millimetre at which the whole plane fits a canvas. */
  function fitScale(plane, shape, spacing, width, height) {
    const { across, up } = PLANES[plane];
    return Math.min(width / (shape[across] * spacing[across]), height / (shape[up] * spacing[up]));
  }

  Object.assign(cmb, { PLANES, CONVENTIONS, isMirrored, edgeLetters, Frame, fitScale });
})((window.cmb = window.cmb || {}));
