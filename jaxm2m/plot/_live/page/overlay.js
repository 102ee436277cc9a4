// What lies over the picture: target, arrow of the gradient, scale of the colours, letters, 50 mm.

const INK = "#222222";
const BLUE = "#2456a6";

function drawOverlay(canvas, camera, scene) {
  const ratio = canvas.width / camera.width;
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, camera.width, camera.height);
  const { answer, target, letters, limits, label, table, above, hidden } = scene;
  if (!hidden) drawHandle(c, camera, answer.pose);
  if (target) drawCross(c, camera.project(target));
  if (answer.gradient && answer.mean > 0) drawGradient(c, camera, answer);
  drawScaleBar(c, camera);
  drawColours(c, camera, table, limits, label, above);
  if (letters) drawLetters(c, camera);
}

function stroke(c, path, colour, width) {
  for (const [style, w] of [["white", width + 3], [colour, width]]) {
    c.strokeStyle = style;
    c.lineWidth = w;
    c.lineCap = c.lineJoin = "round";
    c.beginPath();
    path();
    c.stroke();
  }
}

function drawCross(c, [x, y]) {
  stroke(c, () => {
    c.moveTo(x - 8, y); c.lineTo(x + 8, y);
    c.moveTo(x, y - 8); c.lineTo(x, y + 8);
  }, BLUE, 2);
}

function drawHandle(c, camera, pose) {
  const [a, b] = [-46, -86].map((y) => camera.project(poseTransform(pose, [0, y, -8])));
  c.lineCap = "round";
  c.strokeStyle = "rgba(120, 135, 150, 0.45)";
  c.lineWidth = clamp(9 * camera.scale(), 3, 40);
  c.beginPath();
  c.moveTo(a[0], a[1]);
  c.lineTo(b[0], b[1]);
  c.stroke();
}

function drawArrow(c, from, to) {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const length = Math.hypot(dx, dy);
  if (length < 4) return;
  const [ux, uy] = [dx / length, dy / length];
  const tip = Math.min(10, 0.6 * length);
  stroke(c, () => {
    c.moveTo(from[0], from[1]);
    c.lineTo(to[0], to[1]);
    c.moveTo(to[0] - tip * (ux - 0.6 * uy), to[1] - tip * (uy + 0.6 * ux));
    c.lineTo(to[0], to[1]);
    c.lineTo(to[0] - tip * (ux + 0.6 * uy), to[1] - tip * (uy - 0.6 * ux));
  }, INK, 2.6);
}

// the arrow lies on the scalp, and is longer where a mm brings more
function drawGradient(c, camera, answer) {
  const [gx, gy, gt] = answer.gradient;
  const size = Math.hypot(gx, gy) / answer.mean;
  const origin = poseColumn(answer.frame, 3);
  const [ax, ay] = [poseColumn(answer.turned, 0), poseColumn(answer.turned, 1)];
  const at = (u, v) => camera.project([0, 1, 2].map((i) => origin[i] + u * ax[i] + v * ay[i]));
  const centre = at(0, 0);
  if (size > 2e-4) {
    const length = clamp(8 + 900 * size, 10, 38) / Math.hypot(gx, gy);
    drawArrow(c, centre, at(length * gx, length * gy));
  } else {
    stroke(c, () => c.arc(centre[0], centre[1], 6, 0, 2 * Math.PI), INK, 2);
  }
  const turn = gt / answer.mean;
  if (Math.abs(turn) > 2e-4) {
    // from -y, where the handle is, round to where it should go
    const span = Math.sign(turn) * clamp(10 + 6000 * Math.abs(turn), 12, 60) * (Math.PI / 180);
    const points = Array.from({ length: 13 }, (_, i) => {
      const angle = -Math.PI / 2 + (span * i) / 12;
      return at(60 * Math.cos(angle), 60 * Math.sin(angle));
    });
    stroke(c, () => points.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y))), INK, 2);
    drawArrow(c, points[11], points[12].map((v, i) => v + 1.2 * (v - points[11][i])));
  }
}

function drawScaleBar(c, camera) {
  const length = 50 * camera.scale();
  const [x, y] = [camera.width - length - 18, camera.height - 14];
  c.strokeStyle = c.fillStyle = INK;
  c.lineWidth = 3;
  c.lineCap = "butt";
  c.beginPath();
  c.moveTo(x, y);
  c.lineTo(x + length, y);
  c.stroke();
  c.font = "12px system-ui, sans-serif";
  c.textAlign = "center";
  c.fillText("50 mm", x + length / 2, y - 6);
}

function drawColours(c, camera, table, [low, high], label, above) {
  const tall = Math.min(190, 0.4 * camera.height);
  const [x, bottom] = [18, camera.height - 16];
  for (let i = 0; i < 64; i++) {
    const at = 3 * Math.round((i * 255) / 63);
    c.fillStyle = `rgb(${table[at]}, ${table[at + 1]}, ${table[at + 2]})`;
    c.fillRect(x, bottom - ((i + 1) * tall) / 64, 13, tall / 64 + 0.7);
  }
  c.strokeStyle = c.fillStyle = INK;
  c.lineWidth = 0.6;
  c.strokeRect(x, bottom - tall, 13, tall);
  c.font = "12px system-ui, sans-serif";
  c.textAlign = "left";
  c.textBaseline = "middle";
  for (const value of ticks(low, high)) {
    const y = bottom - (tall * (value - low)) / (high - low);
    c.beginPath();
    c.moveTo(x + 13, y);
    c.lineTo(x + 17, y);
    c.stroke();
    c.fillText(minus(+value.toPrecision(6)), x + 20, y);
  }
  c.textBaseline = "alphabetic";
  c.fillText(label, x - 4, bottom - tall - (above ? 15 : 9));
  if (above) {
    c.beginPath();
    c.moveTo(x, bottom - tall);
    c.lineTo(x + 6.5, bottom - tall - 9);
    c.lineTo(x + 13, bottom - tall);
    c.fillStyle = `rgb(${table[765]}, ${table[766]}, ${table[767]})`;
    c.fill();
    c.stroke();
  }
}

function ticks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high * (1 + 1e-9); v += step) out.push(v);
  return out;
}

const minus = (value) => String(value).replace("-", "\u2212");

function drawLetters(c, camera) {
  const { right, up } = camera.axes();
  const names = [["L", "R"], ["P", "A"], ["I", "S"]];
  c.fillStyle = "#555555";
  c.font = "14px system-ui, sans-serif";
  c.textAlign = "center";
  [right, up].forEach((axis, page) => {
    const i = axis.map(Math.abs).reduce((best, v, k, all) => (v > all[best] ? k : best), 0);
    if (Math.abs(axis[i]) < 0.75) return;
    const pair = axis[i] > 0 ? names[i] : [...names[i]].reverse();
    pair.forEach((letter, side) => {
      const x = page ? camera.width / 2 : side ? camera.width - 12 : 70;
      const y = page ? (side ? 18 : camera.height - 36) : camera.height / 2;
      c.fillText(letter, x, y);
    });
  });
}
