// The page: a picture from a file, the clipboard or the webcam; the net's answer as bars.

import { PictureError, decode, resize } from "./picture.js";

const SHOWN = 10; // bars, of the most probable classes
const CAMERA_PAUSE = 100; // milliseconds from one frame of the webcam to the next
const PREVIEW = 320; // pixels of a side
const NOT_LOADED = "The net could not be loaded";

const element = (id) => document.getElementById(id);
const [answer, bars, problem, time] = ["answer", "bars", "problem", "time"].map(element);
const [preview, pixels, file, camera] = ["preview", "pixels", "file", "camera"].map(element);

let net; // a promise of {run, size}
let loaded = false; // whether the net has been loaded
let broken = null; // the error for which the net could not be loaded
let classes = []; // their names, as soon as they are known
let latest = 0; // counts pictures, and times that the webcam began and stopped: answers to older ones are not shown
let stream = null; // of the webcam, while it is on

async function load() {
  const model = await (await get("model.json")).json();
  classes = model.classes;
  const runtime = element("runtime");
  const wasm = get(runtime.dataset.wasm, runtime.dataset.wasmIntegrity);
  const onnx = get(model.file, model.integrity);
  // The browser compares this module with its hash where index.html names it, and here by its import map.
  const ort = await import(runtime.src);
  ort.env.wasm.numThreads = 1; // a net this small gains nothing from more
  ort.env.wasm.wasmBinary = await (await wasm).arrayBuffer();
  const session = await ort.InferenceSession.create(new Uint8Array(await (await onnx).arrayBuffer()), {
    executionProviders: ["wasm"],
  });
  const run = async (rgb) => {
    const image = new ort.Tensor("uint8", rgb, [1, ...model.size, 3]);
    const { probabilities } = await session.run({ image }, ["probabilities"]);
    return probabilities.data;
  };
  await run(new Uint8Array(model.size[0] * model.size[1] * 3)); // the first run is slower than all others
  return { run, size: model.size };
}

async function get(url, integrity = "") {
  const response = await fetch(url, { integrity });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response;
}

/** Classify a file, or the promise of one. */
async function classifyFile(blob, name) {
  stopCamera();
  const number = latest;
  say("");
  time.textContent = `Reading ${name} …`;
  try {
    const start = performance.now();
    const bitmap = await decode(await blob, name);
    try {
      if (number === latest) await classify(bitmap, bitmap.width, bitmap.height, name, number, start);
      if (number === latest) answer.scrollIntoView({ block: "nearest" }); // on a small screen it may lie below
    } finally {
      bitmap.close();
    }
  } catch (error) {
    if (number !== latest) return;
    if (error === broken) return showBroken();
    clear();
    say(error instanceof PictureError ? error.message : `${name} could not be classified: ${error.message ?? error}`);
  }
}

/** Classify what can be drawn, and show it, what the net sees of it, and the answer. */
async function classify(source, width, height, name, number, start) {
  const asked = performance.now();
  const { run, size } = await net;
  start += performance.now() - asked; // the first picture may have to wait for the net
  const rgb = resize(source, width, height, size);
  const middle = performance.now();
  const probabilities = await run(rgb);
  const end = performance.now();
  if (number !== latest) return;
  showPicture(source, width, height, name);
  showPixels(rgb, size);
  showBars(probabilities);
  time.textContent = `The net took ${milliseconds(end - middle)}, reading and resizing ${milliseconds(middle - start)}.`;
}

function showPicture(source, width, height, name) {
  const scale = Math.min(1, PREVIEW / Math.max(width, height));
  preview.width = Math.max(1, Math.round(width * scale));
  preview.height = Math.max(1, Math.round(height * scale));
  const context = preview.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // under what is transparent, as for the net
  context.fillRect(0, 0, preview.width, preview.height);
  context.drawImage(source, 0, 0, preview.width, preview.height);
  preview.setAttribute("aria-label", `The picture, ${name}, ${width} by ${height} pixels`);
  element("name").textContent = name;
  element("drop").classList.remove("empty");
}

function showPixels(rgb, [height, width]) {
  const image = new ImageData(width, height);
  for (let k = 0; k < width * height; k++) image.data.set([...rgb.subarray(3 * k, 3 * k + 3), 255], 4 * k);
  [pixels.width, pixels.height] = [width, height];
  pixels.getContext("2d").putImageData(image, 0, 0);
  pixels.setAttribute("aria-label", `The same, shrunk to the ${width} by ${height} pixels that the net sees`);
}

function showBars(probabilities) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const best = order[0];
  drawBars(order.slice(0, SHOWN).map((k) => [classes[k], probabilities[k], k === best]));
  answer.replaceChildren(strong(classes[best]), ` ${percent(probabilities[best])}`);
}

/** Rows of (class, probability or null, whether it is the answer). Made once, then changed, so that bars move. */
function drawBars(rows) {
  while (bars.children.length < rows.length) {
    const row = document.createElement("li");
    for (const [tag, kind] of [["span", "class"], ["span", "track"], ["data", "percent"]]) {
      row.append(Object.assign(document.createElement(tag), { className: kind }));
    }
    row.children[1].append(document.createElement("span"));
    bars.append(row);
  }
  rows.forEach(([name, probability, best], k) => {
    const [label, track, value] = bars.children[k].children;
    bars.children[k].classList.toggle("best", best);
    label.textContent = name;
    track.firstChild.style.width = `${100 * (probability ?? 0)}%`;
    value.value = probability === null ? "" : String(probability);
    value.textContent = probability === null ? "–" : percent(probability);
  });
}

/** Back to no picture. */
function clear() {
  drawBars(classes.slice(0, SHOWN).map((name) => [name, null, false]));
  if (loaded || broken) answer.textContent = broken ? NOT_LOADED : "No picture yet";
  time.textContent = "\u00a0";
  for (const canvas of [preview, pixels]) {
    canvas.setAttribute("aria-label", "No picture yet");
  }
  element("name").textContent = "The picture";
  element("drop").classList.add("empty");
}

function showBroken() {
  clear();
  say(`${broken.message ?? broken}. Reload the page; where there is no network, export it with --runtime.`);
}

function say(sentence) {
  problem.textContent = sentence;
}

// --- the webcam ---

async function startCamera() {
  let number = latest; // a picture that is chosen from here on replaces the webcam
  say("");
  try {
    if (!navigator.mediaDevices) throw new PictureError("Browsers give the webcam only to pages from https or from this computer.");
    const opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } } });
    if (number !== latest) return stop(opened);
    number = ++latest;
    stream = opened;
    opened.getVideoTracks()[0].addEventListener("ended", () => {
      if (stream !== opened) return;
      stopCamera();
      say("The webcam has stopped: it was unplugged, or the browser may no longer use it.");
    });
    showCamera(true);
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
    await video.play();
    while (number === latest) {
      await classify(video, video.videoWidth, video.videoHeight, "Webcam", number, performance.now());
      await new Promise((done) => setTimeout(done, CAMERA_PAUSE));
      await new Promise(requestAnimationFrame); // none while the page is not seen
    }
  } catch (error) {
    if (number !== latest) return; // stopped before it had begun
    if (stream) stopCamera();
    if (error === broken) return showBroken();
    say(cameraProblem(error));
  }
}

function stopCamera() {
  latest++;
  if (stream) stop(stream);
  stream = null;
  showCamera(false);
}

function stop(opened) {
  for (const track of opened.getTracks()) track.stop();
}

function showCamera(on) {
  camera.textContent = on ? "Stop the webcam" : "Use the webcam";
  answer.setAttribute("aria-live", on ? "off" : "polite"); // ten answers per second are not read out
}

function cameraProblem(error) {
  if (error instanceof PictureError) return error.message;
  if (error.name === "NotAllowedError") return "The browser may not use the webcam: allow it beside the address, or choose a picture.";
  if (error.name === "NotFoundError") return "There is no webcam: choose a picture.";
  return `The webcam could not be used (${error.message}): choose a picture.`;
}

// --- what the user does ---

function listen() {
  file.addEventListener("change", () => {
    if (file.files.length) classifyFile(file.files[0], file.files[0].name);
    file.value = ""; // the same file can be chosen again
  });
  camera.addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  for (const button of document.querySelectorAll("#examples button")) {
    const source = button.firstElementChild.getAttribute("src");
    const read = async () => (await get(source)).blob();
    button.addEventListener("click", () => classifyFile(read(), source.split("/").pop()));
  }
  document.addEventListener("paste", (event) => take(event.clipboardData, "The clipboard holds no picture."));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) element("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    element("drop").classList.remove("over");
    take(event.dataTransfer, "What was dropped is not a file: save the picture first, then drop the file.");
  });
}

function take(transfer, otherwise) {
  const [first] = transfer.files;
  if (first) classifyFile(first, first.name || "The picture");
  else say(otherwise);
}

function strong(text) {
  return Object.assign(document.createElement("strong"), { textContent: text });
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)} %`;
}

function milliseconds(value) {
  return `${value.toFixed(1)} ms`;
}

net = load();
net.then(
  () => {
    loaded = true;
    clear();
    if (!latest) document.querySelector("#examples button")?.click(); // shows what the page does
  },
  (error) => {
    broken = error;
    showBroken();
  },
);
listen();
