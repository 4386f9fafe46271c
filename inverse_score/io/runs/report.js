"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);
const state = { slice: 0, left: content.left, right: content.right, split: 0.5 };
const decoded = new Map();
const full = [content.low, content.high];
let window_ = full[1] - full[0], level = (full[0] + full[1]) / 2;

// Two bytes a pixel hold 12 bits: red the high eight, green the low four.
function decode(name, slice) {
  const key = name + "/" + slice;
  if (!decoded.has(key)) {
    if (decoded.size > 24) decoded.delete(decoded.keys().next().value);
    decoded.set(key, new Promise((resolve, reject) => {
      const image = new Image();
      image.onerror = reject;
      image.onload = () => {
        const canvas = document.createElement("canvas");
        canvas.width = image.width; canvas.height = image.height;
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        resolve(context.getImageData(0, 0, image.width, image.height));
      };
      image.src = content.slices[slice].images[name];
    }));
  }
  return decoded.get(key);
}

function paint(canvas, pixels) {
  canvas.width = pixels.width; canvas.height = pixels.height;
  const shown = new ImageData(pixels.width, pixels.height), from = pixels.data, to = shown.data;
  const step = (full[1] - full[0]) / 4095, low = level - window_ / 2, scale = 255 / window_;
  const table = new Uint8ClampedArray(4096);
  for (let v = 0; v < 4096; v++) table[v] = (full[0] + v * step - low) * scale;
  for (let i = 0; i < from.length; i += 4) {
    if (content.colour) { to[i] = from[i]; to[i + 1] = from[i + 1]; to[i + 2] = from[i + 2]; }
    else to[i] = to[i + 1] = to[i + 2] = table[(from[i] << 4) | (from[i + 1] >> 4)];
    to[i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(shown, 0, 0);
}

const digits = (value) => Number(value).toPrecision(4).replace(/\.?0+$/, "");

async function draw() {
  const [a, b] = await Promise.all([decode(state.left, state.slice), decode(state.right, state.slice)]);
  paint(byId("over"), a);
  paint(byId("under"), b);
  byId("slice-number").textContent = content.slices[state.slice].label;
  byId("left-name").textContent = content.names[state.left];
  byId("right-name").textContent = content.names[state.right];
  byId("wl").textContent = content.colour ? "" : "W " + digits(window_) + "  L " + digits(level);
  divide();
  document.body.dataset.ready = "yes";
}

function divide() {
  const percent = state.split * 100;
  byId("over").style.setProperty("clip-path", "inset(0 " + (100 - percent) + "% 0 0)");
  byId("line").style.setProperty("left", percent + "%");
}

function maps() {
  const figures = Object.entries(content.slices[state.slice].maps).map(([name, map]) => {
    const figure = document.createElement("figure"), image = document.createElement("img");
    image.src = map.image; image.alt = content.names[name];
    const caption = document.createElement("figcaption");
    caption.textContent = content.names[name];
    const bar = document.createElement("div"); bar.className = "bar";
    const ends = document.createElement("div"); ends.className = "ends";
    for (const value of [map.low, map.high]) {
      const end = document.createElement("span");
      end.textContent = digits(value) + (value === map.high && map.unit ? " " + map.unit : "");
      ends.append(end);
    }
    figure.append(image, bar, ends, caption);
    return figure;
  });
  byId("maps").replaceChildren(...figures);
}

function windowTo(width, centre) {
  window_ = Math.max(width, (full[1] - full[0]) / 4096); level = centre;
  byId("window").value = 1000 * window_ / (full[1] - full[0]);
  byId("level").value = 1000 * (level - full[0]) / (full[1] - full[0]);
  draw();
}

function goTo(slice) {
  state.slice = Math.min(Math.max(slice, 0), content.slices.length - 1);
  byId("slice").value = state.slice;
  maps(); draw();
}

for (const side of ["left", "right"]) {
  for (const name of Object.keys(content.slices[0].images)) byId(side).append(new Option(content.names[name], name));
  byId(side).value = state[side];
  byId(side).addEventListener("change", (event) => { state[side] = event.target.value; draw(); });
}
byId("slice").max = content.slices.length - 1;
byId("slice").addEventListener("input", (event) => goTo(Number(event.target.value)));
byId("split").addEventListener("input", (event) => { state.split = event.target.value / 1000; divide(); });
byId("window").addEventListener("input", (event) => windowTo(event.target.value / 1000 * (full[1] - full[0]), level));
byId("level").addEventListener("input", (event) => windowTo(window_, full[0] + event.target.value / 1000 * (full[1] - full[0])));
byId("reset").addEventListener("click", () => windowTo(content.window, content.level));
for (const button of document.querySelectorAll("button[data-window]"))
  button.addEventListener("click", () => windowTo(Number(button.dataset.window), Number(button.dataset.level)));
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.target.tagName === "SELECT") return;
  if (event.key === "ArrowRight" || event.key === "ArrowUp") goTo(state.slice + 1);
  if (event.key === "ArrowLeft" || event.key === "ArrowDown") goTo(state.slice - 1);
});

const stage = byId("stage");
let drag = null;
stage.addEventListener("contextmenu", (event) => event.preventDefault());
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  drag = { windowing: event.button === 2 || event.shiftKey, x: event.clientX, y: event.clientY, window_, level };
  move(event);
});
stage.addEventListener("pointerup", () => { drag = null; });
stage.addEventListener("pointermove", move);
function move(event) {
  if (!drag) return;
  const box = stage.getBoundingClientRect();
  if (!drag.windowing) {
    state.split = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    byId("split").value = state.split * 1000;
    return divide();
  }
  const span = full[1] - full[0];
  windowTo(drag.window_ + (event.clientX - drag.x) / box.width * span,
    drag.level - (event.clientY - drag.y) / box.height * span);
}
windowTo(content.window, content.level);
goTo(content.start);
