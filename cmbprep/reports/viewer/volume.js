"use strict";
/* Voxels of one image: reading the binary answer, values, planes and projections.
   Works alone; no DOM. */
(function (cmb) {
  const BYTES = {
    uint8: Uint8Array,
    int16: Int16Array,
    uint16: Uint16Array,
    float32: Float32Array,
  };
  /* A volume that is still arriving is drawn again after so many milliseconds. */
  const REDRAW_MS = 60;

  function parseHeader(bytes) {
    const header = JSON.parse(new TextDecoder().decode(bytes));
    const Values = BYTES[header.dtype || "uint16"];
    if (!Values) throw new Error(`Voxels of type ${header.dtype} cannot be shown`);
    return { header, Values, count: header.shape[0] * header.shape[1] * header.shape[2] };
  }

  /* Split a binary answer: length of the header (4 bytes, little-endian), JSON header, voxels. */
  function parseVolume(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const { header, Values, count } = parseHeader(new Uint8Array(buffer, 4, length));
    const start = 4 + length;
    if (buffer.byteLength - start !== count * Values.BYTES_PER_ELEMENT) {
      throw new Error(`The image is incomplete: ${count} voxels expected`);
    }
    // A typed array must begin at a multiple of its element size.
    const aligned = start % Values.BYTES_PER_ELEMENT === 0;
    const data = aligned ? new Values(buffer, start, count) : new Values(buffer.slice(start));
    return new Volume(header, data);
  }

  /* Read the same from a stream, with slices in the order that the header's `slices` names.
     `seen(volume)` is called with the first slice and, now and then, while others follow. */
  async function readVolume(stream, seen = () => {}) {
    const reader = stream.getReader();
    let head = new Uint8Array(0);
    let [volume, bytes, order, size, at, told] = [null, null, null, 0, 0, 0];

    /* Begin with what has arrived; returns the bytes that follow the header. */
    function begin(chunk) {
      const joined = new Uint8Array(head.length + chunk.length);
      joined.set(head);
      joined.set(chunk, head.length);
      head = joined;
      if (head.length < 4) return null;
      const length = new DataView(head.buffer).getUint32(0, true);
      if (head.length < 4 + length) return null;
      const { header, Values, count } = parseHeader(head.subarray(4, 4 + length));
      const data = new Values(count);
      volume = new Volume(header, data);
      bytes = new Uint8Array(data.buffer);
      size = bytes.length / header.shape[2];
      order = header.slices || Array.from({ length: header.shape[2] }, (_, k) => k);
      return head.subarray(4 + length);
    }

    function take(chunk) {
      if (at + chunk.length > bytes.length) throw new Error("The image is longer than it says");
      for (let from = 0; from < chunk.length; ) {
        const inside = at % size;
        const part = chunk.subarray(from, from + size - inside);
        bytes.set(part, order[Math.floor(at / size)] * size + inside);
        from += part.length;
        at += part.length;
      }
      const now = performance.now();
      if (at >= size && at < bytes.length && (!told || now - told > REDRAW_MS)) {
        told = now;
        seen(volume);
      }
    }

    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const voxels = volume ? value : begin(value);
      if (voxels) take(voxels);
    }
    if (!volume || at !== bytes.length) throw new Error("The image is incomplete");
    return volume;
  }

  /* A volume in the order x (to the right) fastest, then y (to the front), then z (up). */
  class Volume {
    constructor(header, data) {
      this.header = header;
      this.shape = header.shape;
      this.affine = header.affine;
      this.spacing = header.spacing || spacingOf(header.affine);
      this.window = header.window || rangeOf(data);
      this.scale = header.scale ?? 1;
      this.offset = header.offset ?? 0;
      this.unit = header.unit || "";
      this.data = data;
      this.step = [1, this.shape[0], this.shape[0] * this.shape[1]];
    }

    index(ijk) {
      return ijk[0] + ijk[1] * this.step[1] + ijk[2] * this.step[2];
    }

    contains(ijk) {
      return ijk.every((value, axis) => value >= 0 && value < this.shape[axis]);
    }

    /* Value in the unit of the image. */
    value(ijk) {
      return this.data[this.index(ijk)] * this.scale + this.offset;
    }

    /* Nearest voxel inside the volume. */
    clamp(ijk) {
      return ijk.map((value, axis) =>
        Math.min(this.shape[axis] - 1, Math.max(0, Math.round(value))),
      );
    }

    toWorld(ijk) {
      return this.affine
        .slice(0, 3)
        .map((row) => row[0] * ijk[0] + row[1] * ijk[1] + row[2] * ijk[2] + row[3]);
    }

    /* First slice and number of slices of a slab of `mm` thickness around a slice. */
    slab(axis, index, mm) {
      const count = Math.max(1, Math.round(mm / this.spacing[axis]));
      const first = Math.max(0, index - Math.floor((count - 1) / 2));
      const last = Math.min(this.shape[axis] - 1, index + Math.ceil((count - 1) / 2));
      return [first, last - first + 1];
    }

    /* Values of a plane across `axis`: the lowest of `count` slices from `first` on.
       The result is row by row: x of the plane is the lower of the two other axes. */
    plane(axis, first, count = 1) {
      const [across, up] = [0, 1, 2].filter((other) => other !== axis);
      const [width, height] = [this.shape[across], this.shape[up]];
      const [dx, dy, dz] = [this.step[across], this.step[up], this.step[axis]];
      const values = new this.data.constructor(width * height);
      const data = this.data;
      // In the order of memory: a slab of axial slices is read slice by slice, others row by row.
      if (axis === 2) {
        values.set(data.subarray(first * dz, first * dz + values.length));
        for (let slice = first + 1; slice < first + count; slice++) {
          darker(values, 0, data, slice * dz, values.length);
        }
        return { values, width, height, across, up };
      }
      for (let y = 0, at = 0; y < height; y++, at += width) {
        const row = first * dz + y * dy;
        if (axis === 1) {
          values.set(data.subarray(row, row + width), at);
          for (let slice = 1; slice < count; slice++) {
            darker(values, at, data, row + slice * dz, width);
          }
        } else {
          // The slices lie side by side.
          for (let x = 0, from = row; x < width; x++, from += dx) {
            let lowest = data[from];
            for (let next = from + 1; next < from + count; next++) {
              if (data[next] < lowest) lowest = data[next];
            }
            values[at + x] = lowest;
          }
        }
      }
      return { values, width, height, across, up };
    }

    /* Largest angle in degrees between a voxel axis and the axis of the scanner it stands for. */
    obliquity() {
      const angles = [0, 1, 2].map((axis) => {
        const cosine = Math.abs(this.affine[axis][axis]) / spacingOf(this.affine)[axis];
        return (Math.acos(Math.min(1, cosine)) * 180) / Math.PI;
      });
      return Math.max(...angles);
    }
  }

  /* Lower values, from `at` on, to those of `data` from `from` on. */
  function darker(values, at, data, from, count) {
    if (values instanceof Float32Array) {
      for (let x = 0; x < count; x++) values[at + x] = Math.min(values[at + x], data[from + x]);
      return;
    }
    for (let x = 0; x < count; x++) {
      // The difference where it is negative, else 0: noise makes a branch slow.
      const lower = data[from + x] - values[at + x];
      values[at + x] += lower & (lower >> 31);
    }
  }

  function spacingOf(affine) {
    return [0, 1, 2].map((axis) => Math.hypot(affine[0][axis], affine[1][axis], affine[2][axis]));
  }

  function rangeOf(data) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of data) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  /* Grey levels 0 to 255 of values between a window's ends, as one table of all uint16 values. */
  function greyTable([low, high]) {
    const table = new Uint8ClampedArray(65536);
    const factor = 255 / Math.max(1, high - low);
    for (let value = 0; value < 65536; value++) table[value] = (value - low) * factor;
    return table;
  }

  Object.assign(cmb, { parseVolume, readVolume, Volume, greyTable });
})((window.cmb = window.cmb || {}));
