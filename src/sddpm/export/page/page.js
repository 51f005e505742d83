// The page: controls, the network by onnxruntime-web, the picture and its spikes.
"use strict";

const byId = (id) => document.getElementById(id);
const percent = (x) => `${(100 * x).toFixed(1)} %`;
let model, session, running = null;

async function load() {
  ort.env.wasm.numThreads = 1; // more threads need a server that isolates the page
  ort.env.wasm.wasmPaths = new URL(".", location.href).href;
  model = await (await fetch("model.json")).json();
  const spiking = model.firing_rates !== null;
  byId("title").textContent = `${model.name}, drawn ${spiking ? "by" : "without"} spikes`;
  if (!spiking) byId("about").textContent = byId("about").textContent.replace("of spiking neurons", "without spikes");
  const [channels, height, width] = model.shape;
  Object.assign(byId("picture"), { width, height });
  if (model.num_classes !== null) {
    const names = Array.from({ length: model.num_classes }, (_, i) => model.class_names?.[i] ?? String(i));
    byId("class").append(...[...names, "none"].map((name, i) => new Option(name, i)));
    byId("class-field").hidden = false;
  }
  byId("solver").value = model.start.solver;
  setSteps(model.start.steps);
  if (model.distilled) {
    byId("steps").disabled = byId("solver").disabled = true;
    byId("about").textContent += ` It was distilled to ${model.timesteps.length} evaluations and supports no other number.`;
  }
  byId("facts").textContent =
    `${model.parameters.toLocaleString("en")} parameters, ${channels === 1 ? "grey" : "colour"} pictures of ` +
    `${width} x ${height} pixels` + (spiking ? `, T = ${model.T} SNN time steps per evaluation.` : ".");
  showCommand();
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  say("Ready");
  for (const id of ["draw", "next"]) byId(id).disabled = false;
}

function setSteps(steps) {
  byId("steps").min = Math.min(steps, byId("steps").min);
  byId("steps").max = Math.max(steps, byId("steps").max);
  byId("steps").value = steps;
  byId("steps-shown").textContent = byId("steps").value;
}

// The seed, solver and steps of the controls, and the class, null without classes.
function controlValues() {
  const label = model.num_classes === null ? null : Number(byId("class").value);
  return { seed: Number(byId("seed").value), steps: Number(byId("steps").value), solver: byId("solver").value, label };
}

function showCommand() {
  const { seed, steps, solver, label } = controlValues();
  byId("command").textContent = command(model, solver, steps, label, seed);
  byId("same").hidden = !model.repeatable; // thresholds that were given to the export are not in the command
}

const say = (text) => { byId("status").textContent = text; };

async function predict(x, t, label) {
  const feed = {
    x_t: new ort.Tensor("float32", Float32Array.from(x), [1, ...model.shape]),
    t: new ort.Tensor("int64", BigInt64Array.of(BigInt(t)), [1]),
  };
  if (label !== null) feed["class"] = new ort.Tensor("int64", BigInt64Array.of(BigInt(label)), [1]);
  const found = await session.run(feed);
  return { prediction: found.prediction.data, rates: found.firing_rates?.data };
}

function show(x) {
  const [channels, height, width] = model.shape;
  const pixels = new ImageData(width, height), size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      pixels.data[4 * i + c] = Math.round((Math.min(1, Math.max(-1, x[(c % channels) * size + i])) + 1) * 127.5);
    }
    pixels.data[4 * i + 3] = 255;
  }
  byId("picture").getContext("2d").putImageData(pixels, 0, 0);
}

function showRates(sums, count) {
  if (sums === null) return;
  const rates = sums.map((sum) => sum / count);
  byId("spikes").hidden = false;
  byId("rate").textContent = percent(rates.reduce((a, b, i) => a + b * model.neurons[i], 0) /
    model.neurons.reduce((a, b) => a + b, 0));
  byId("layers").replaceChildren(...rates.map((rate, i) => {
    const row = document.createElement("li");
    for (const kind of ["name", "bar", "value"]) row.append(Object.assign(document.createElement("span"), { className: kind }));
    row.children[0].textContent = model.firing_rates[i];
    row.children[1].style.width = `${100 * rate}%`;
    row.children[2].textContent = percent(rate);
    return row;
  }));
}

async function draw() {
  const run = (running = {});
  const { seed, steps, solver, label } = controlValues();
  byId("draw").disabled = byId("next").disabled = true;
  byId("stop").disabled = false;
  byId("save").hidden = true;
  const start = performance.now();
  let sums = null;
  try {
    const noise = Array.from(randn(seed, model.shape.reduce((a, b) => a * b)));
    show(noise);
    const predictClass = (x, t) => predict(x, t, label);
    for await (const { index, x, x0, rates } of sample(model, predictClass, noise, steps, solver)) {
      const last = index + 1 === steps;
      show(last ? x : x0);
      if (rates) sums = Array.from(rates, (rate, i) => rate + (sums?.[i] ?? 0));
      byId("progress").value = (index + 1) / steps;
      say(`Evaluation ${index + 1} of ${steps}`);
      if (last || index % 4 === 0) showRates(sums, index + 1);
      await new Promise((paint) => setTimeout(paint));
      if (running !== run) return say(`Stopped after ${index + 1} of ${steps} evaluations`);
    }
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    say(`Seed ${seed}, ${steps} evaluations, ${seconds} s`);
    byId("picture").setAttribute("aria-label", `Picture of seed ${seed}`);
    Object.assign(byId("save"), { href: byId("picture").toDataURL("image/png"), download: `${seed}.png`, hidden: false });
  } catch (error) {
    say(`The network failed: ${error.message}`);
  } finally {
    byId("draw").disabled = byId("next").disabled = false;
    byId("stop").disabled = true;
  }
}

byId("steps").addEventListener("input", () => { byId("steps-shown").textContent = byId("steps").value; });
byId("controls").addEventListener("input", showCommand);
byId("controls").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
byId("next").addEventListener("click", () => {
  byId("seed").value = (Number(byId("seed").value) + 1) % 2 ** 32;
  showCommand();
  if (byId("controls").reportValidity()) draw();
});
byId("stop").addEventListener("click", () => { running = null; });
load().catch((error) => say(`The page cannot be loaded: ${error.message}. It needs a server: python -m http.server`));
