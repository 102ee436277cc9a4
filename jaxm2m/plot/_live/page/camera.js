// A parallel projection, turned about the head's middle with the z axis upright.

function makeCamera(towards, centre, span) {
  const camera = {
    azimuth: Math.atan2(towards[1], towards[0]),
    elevation: Math.asin(towards[2] / Math.hypot(...towards)),
    centre: [...centre],
    span, // mm from top to bottom
    width: 1,
    height: 1,
  };
  camera.axes = () => {
    const [a, e] = [camera.azimuth, camera.elevation];
    return {
      right: [-Math.sin(a), Math.cos(a), 0],
      up: [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)],
      towards: [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)],
    };
  };
  camera.scale = () => camera.height / camera.span; // pixels a mm
  camera.project = (p) => {
    const { right, up, towards } = camera.axes();
    const d = [p[0] - camera.centre[0], p[1] - camera.centre[1], p[2] - camera.centre[2]];
    const s = camera.scale();
    return [camera.width / 2 + s * dot(d, right), camera.height / 2 - s * dot(d, up), dot(d, towards)];
  };
  camera.turn = (dx, dy) => {
    camera.azimuth -= 0.008 * dx;
    camera.elevation = clamp(camera.elevation + 0.008 * dy, -1.55, 1.55);
  };
  camera.pan = (dx, dy) => {
    const { right, up } = camera.axes();
    const s = 1 / camera.scale();
    for (let i = 0; i < 3; i++) camera.centre[i] += s * (dy * up[i] - dx * right[i]);
  };
  camera.zoom = (factor) => (camera.span = clamp(camera.span * factor, 40, 600));
  camera.matrix = () => {
    // columns of the world's axes in clip space
    const { right, up, towards } = camera.axes();
    const sy = 2 / camera.span;
    const sx = (sy * camera.height) / camera.width;
    const sz = -1 / 500;
    const rows = [right.map((v) => sx * v), up.map((v) => sy * v), towards.map((v) => sz * v)];
    const m = new Float32Array(16);
    rows.forEach((row, r) => {
      for (let c = 0; c < 3; c++) m[4 * c + r] = row[c];
      m[12 + r] = -dot(row, camera.centre);
    });
    m[15] = 1;
    return m;
  };
  return camera;
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

// a pose is stored by rows; its columns are the coil's axes and centre
const poseColumn = (pose, c) => [pose[c], pose[4 + c], pose[8 + c]];
const poseTransform = (pose, p) => [0, 1, 2].map((r) => dot([pose[4 * r], pose[4 * r + 1], pose[4 * r + 2]], p) + pose[4 * r + 3]);
