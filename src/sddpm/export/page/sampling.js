// Sampling in plain JavaScript: noise by seed, drawn like PyTorch on a CPU, time steps, DDIM and DPM-Solver++(2M).
"use strict";

// 32-bit numbers of the Mersenne Twister mt19937 (Matsumoto & Nishimura, 1998).
function* twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (;;) {
    for (let i = 0; i < 624; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    for (let i = 0; i < 624; i++) {
      let y = state[i];
      y ^= y >>> 11;
      y ^= (y << 7) & 0x9d2c5680;
      y ^= (y << 15) & 0xefc60000;
      yield (y ^ (y >>> 18)) >>> 0;
    }
  }
}

// Standard normal float32 numbers, at least 16: Box-Muller on blocks of 16, the last block is drawn again if it overlaps.
function randn(seed, count) {
  const draws = twister(seed);
  const uniform = () => (draws.next().value & 0xffffff) / 16777216;
  const out = Float32Array.from({ length: count }, uniform);
  const block = (start) => {
    for (let i = start; i < start + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - out[i]));
      const angle = 2 * Math.PI * out[i + 8];
      out[i] = radius * Math.cos(angle);
      out[i + 8] = radius * Math.sin(angle);
    }
  };
  for (let start = 0; start + 16 <= count; start += 16) block(start);
  if (count % 16) {
    for (let i = count - 16; i < count; i++) out[i] = uniform();
    block(count - 16);
  }
  return out;
}

// n time steps from N - 1 down to the clean image, in equal strides.
function evenTimesteps(n, N) {
  return Array.from({ length: n }, (_, i) => Math.floor((2 * N * (n - i) + n) / (2 * n)) - 1);
}

// The time steps stored for this solver and number of steps, or null for even ones, the x0_scale, and the limit
// of the initial noise or null. Those of the default sampler are for its own solver alone; those of the scheduler are for every solver.
function settings(model, solver, steps) {
  const start = model.start?.solver === solver && model.start.steps === steps ? model.start : null;
  const kept = model.timesteps?.length === steps ? model.timesteps : null;
  const x0Scale = start?.x0_scale ?? model.x0_scale;
  return { stored: start?.timesteps ?? kept, x0Scale, noiseClip: start?.noise_clip ?? null };
}

// The command that draws the same picture. label: the number of the class, null without classes.
function command(model, solver, steps, label, seed) {
  const { stored, x0Scale, noiseClip } = settings(model, solver, steps);
  const quoted = (word) => (/^[\w@%+=:,.\/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);
  const words = ["sddpm", "sample", model.name, "--solver", solver];
  words.push(...(stored ? ["--timesteps", stored.join(",")] : ["--steps", String(steps)]), "--x0-scale", String(x0Scale));
  if (noiseClip !== null) words.push("--noise-clip", String(noiseClip));
  if (label !== null) {
    const numbered = model.class_names?.includes(String(label)) ? model.class_names[label] : String(label);
    words.push("--class", label === model.num_classes ? "none" : numbered);
  }
  return [...words, "--seeds", String(seed)].map(quoted).join(" ");
}

// The clean image implied by a prediction, scaled and clamped with the model's settings.
function cleanImage(model, alpha, x, predicted, x0Scale) {
  const signal = Math.sqrt(alpha), noise = Math.sqrt(1 - alpha);
  return x.map((value, i) => {
    const ofV = model.prediction_type === "v_prediction";
    const x0 = (ofV ? signal * value - noise * predicted[i] : (value - noise * predicted[i]) / signal) * x0Scale;
    return model.clip_sample ? Math.min(1, Math.max(-1, x0)) : x0;
  });
}

// One step from x at noise level `from` to noise level `to` (shares of the signal's variance; 1 is the clean image).
const SOLVERS = {
  // DDIM (Song et al., 2021, equation 12) with the noise that the clean image implies.
  ddim: () => (x, x0, from, to) =>
    x.map((value, i) => {
      const epsilon = (value - Math.sqrt(from) * x0[i]) / Math.sqrt(1 - from);
      return Math.sqrt(to) * x0[i] + Math.sqrt(1 - to) * epsilon;
    }),
  // DPM-Solver++(2M) (Lu et al., 2022, algorithm 2): the first and the last step are of first order.
  "dpm++": () => {
    const level = (alpha) => 0.5 * Math.log(alpha / (1 - alpha)); // half the log of signal to noise
    let before = null;
    return (x, x0, from, to) => {
      const h = level(to) - level(from);
      const decay = to === 1 ? -1 : Math.expm1(-h);
      const ratio = Math.sqrt((1 - to) / (1 - from));
      const second = before !== null && to !== 1 ? (0.5 * h) / (level(from) - level(before.from)) : 0;
      const next = x.map((value, i) => {
        const slope = second ? x0[i] + second * (x0[i] - before.x0[i]) : x0[i];
        return ratio * value - Math.sqrt(to) * decay * slope;
      });
      before = { x0, from };
      return next;
    };
  },
};

// Denoise: yields { index, t, x, x0, rates } after every evaluation. `predict(x, t)` resolves to { prediction, rates }.
async function* sample(model, predict, noise, steps, solver) {
  const alphas = model.alphas_cumprod;
  const step = SOLVERS[solver]();
  const { stored, x0Scale, noiseClip } = settings(model, solver, steps);
  let x = noiseClip === null ? noise : noise.map((value) => Math.min(Math.max(value, -noiseClip), noiseClip));
  const chosen = stored ?? evenTimesteps(steps, alphas.length);
  for (let index = 0; index < steps; index++) {
    const t = chosen[index];
    const { prediction, rates } = await predict(x, t);
    const x0 = cleanImage(model, alphas[t], x, prediction, x0Scale);
    x = step(x, x0, alphas[t], index + 1 < steps ? alphas[chosen[index + 1]] : 1);
    yield { index, t, x, x0, rates };
  }
}
