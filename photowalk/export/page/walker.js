// Someone who walks: on floors, up steps, along walls and not through them. Metres, y up; yaw turns left, pitch up.
// The numbers are those of a body whose eyes are 1.6 m high; where the photo was taken lower, or the world is smaller than
// it should be, the body shrinks with it.

const EYE = 1.6, RADIUS = 0.2, STEP = 0.4, DROP = 1.0, SPEED = 1.5, RUN = 2.5, CROWN = 0.1;

// A box of cells of which some are solid: bit (x * nz + z) * ny + y of `bits`.
class Grid {
  constructor({ origin, shape, cell }, bits) {
    Object.assign(this, { origin, shape, cell, bits });
  }

  solid(x, y, z) {
    const [nx, ny, nz] = this.shape, [ox, oy, oz] = this.origin;
    const i = Math.floor((x - ox) / this.cell), j = Math.floor((y - oy) / this.cell), k = Math.floor((z - oz) / this.cell);
    if (i < 0 || j < 0 || k < 0 || i >= nx || j >= ny || k >= nz) return false;
    const bit = (i * nz + k) * ny + j;
    return ((this.bits[bit >> 3] >> (bit & 7)) & 1) === 1;
  }

  // Whether anything solid is in an upright cylinder from y `low` to y `high`.
  hits(x, z, low, high, radius) {
    for (let y = low; y <= high; y += this.cell) {
      for (let k = 0; k < 8; k++) {
        const angle = (k * Math.PI) / 4;
        if (this.solid(x + radius * Math.cos(angle), y, z + radius * Math.sin(angle))) return true;
      }
      if (this.solid(x, y, z)) return true;
    }
    return false;
  }

  // Where the floor is between y `high` and y `low`, or null.
  floor(x, z, high, low) {
    for (let y = high; y >= low; y -= this.cell) {
      if (this.solid(x, y, z)) return this.origin[1] + this.cell * (Math.floor((y - this.origin[1]) / this.cell) + 1);
    }
    return null;
  }

  inside(x, z) {
    const [nx, , nz] = this.shape, [ox, , oz] = this.origin;
    return x > ox && z > oz && x < ox + nx * this.cell && z < oz + nz * this.cell;
  }
}

class Walker {
  constructor(grid, eye) {
    this.size = eye / EYE;
    Object.assign(this, { grid, eye, x: 0, y: 0, z: 0, yaw: 0, pitch: 0, flying: false, running: false });
  }

  turn(left, up) {
    this.yaw += left;
    this.pitch = Math.max(-1.5, Math.min(1.5, this.pitch + up));
  }

  // right, ahead, up: what is wished, each from -1 to 1; heading: where ahead is
  step(seconds, right, ahead, up, heading = this.yaw) {
    const length = Math.max(1, Math.hypot(right, ahead)), speed = SPEED * this.size * (this.running ? RUN : 1);
    const far = (seconds * speed) / length, sin = Math.sin(heading), cos = Math.cos(heading);
    const dx = far * (right * cos - ahead * sin), dz = far * (-right * sin - ahead * cos);
    if (this.flying) {
      const climb = ahead * far * Math.sin(this.pitch);
      this.x += dx; this.z += dz; this.y += up * seconds * speed + climb;
      return;
    }
    const parts = Math.max(1, Math.ceil(Math.hypot(dx, dz) / (0.5 * this.grid.cell)));
    for (let k = 0; k < parts; k++) {
      if (!(this.#go(dx / parts, dz / parts) || this.#go(dx / parts, 0) || this.#go(0, dz / parts))) break;
    }
    this.#stand(seconds);
  }

  #free(x, z) {
    const [low, high] = [this.y + STEP * this.size, this.y + (EYE + CROWN) * this.size];
    return this.grid.inside(x, z) && !this.grid.hits(x, z, low, high, RADIUS * this.size);
  }

  // One who is caught in something solid may leave it: only the first step into it is refused.
  #go(dx, dz) {
    if ((dx === 0 && dz === 0) || (!this.#free(this.x + dx, this.z + dz) && this.#free(this.x, this.z))) return false;
    this.x += dx;
    this.z += dz;
    return true;
  }

  // Where no floor is known, the height stays: nobody falls out of the world.
  #stand(seconds) {
    const floor = this.grid.floor(this.x, this.z, this.y + STEP * this.size, this.y - DROP * this.size);
    if (floor !== null) this.y += (floor - this.y) * Math.min(1, 8 * seconds);
  }
}
