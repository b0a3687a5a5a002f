// What docs/browser.md runs: a recording in, an answer out, without a server.
// The folder browser/ beside this file is made by tools/browser_page.py.

const FILES = new URL("browser/", import.meta.url);
const LONGEST = 600; // seconds; a minute of them takes some seconds, and a browser is no place for hours

const element = (name) => document.getElementById(`try-${name}`);
const [file, record, player, status, answer] = ["file", "record", "player", "status", "answer"].map(element);

let facts; // of the model: model.json
let session; // a promise, once somebody wants an answer
let recorder = null;
let busy = false;

function say(text, kind = "") {
  status.textContent = text;
  status.className = kind;
}

function allow(possible) {
  busy = !possible;
  file.disabled = busy || recorder !== null;
  record.disabled = busy;
}

class Refused extends Error {} // its message is for the reader

async function loadModel() {
  const runtime = await import(new URL("ort.wasm.min.mjs", FILES).href);
  runtime.env.wasm.wasmPaths = FILES.href;
  runtime.env.wasm.numThreads = 1; // more need headers that a plain web server does not send
  runtime.env.wasm.proxy = true; // in a worker, so that the page stays awake
  const response = await fetch(new URL("model.onnx", FILES));
  if (!response.ok) throw new Refused(`The model cannot be loaded (${response.status}).`);
  const model = new Uint8Array(facts.bytes);
  const reader = response.body.getReader();
  let read = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (read + part.value.length > model.length) break; // not the file that model.json is about
    model.set(part.value, read);
    read += part.value.length;
    say(`Loading the model: ${Math.round(read / 1e6)} of ${Math.round(facts.bytes / 1e6)} MB, once.`);
  }
  if (read !== model.length) throw new Refused("The model did not arrive whole. Load the page again.");
  say("Starting the model.");
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
  return { runtime, model: await runtime.InferenceSession.create(model, options) };
}

// Hz in the header of WAV, FLAC, MP3 and Ogg Vorbis. Others are decoded at 48 kHz, which loses nothing that the model uses.
function rateOf(bytes) {
  const view = new DataView(bytes.slice(0, 64), 0);
  const size = view.byteLength;
  const text = (first, end) => String.fromCharCode(...new Uint8Array(view.buffer).subarray(first, end));
  const byte = (place) => (place < size ? view.getUint8(place) : 0);
  let rate = 0;
  if (text(0, 4) === "RIFF" && text(8, 16) === "WAVEfmt " && size >= 28) rate = view.getUint32(24, true);
  else if (text(0, 4) === "fLaC") rate = (byte(18) << 12) | (byte(19) << 4) | (byte(20) >> 4);
  else if (text(0, 4) === "OggS" && text(29, 35) === "vorbis" && size >= 44) rate = view.getUint32(40, true);
  else if (text(0, 3) === "ID3") { // tags before an MP3; their size has seven bits in a byte
    const tags = 10 + [6, 7, 8, 9].reduce((sum, place) => (sum << 7) | byte(place), 0);
    return bytes.byteLength > tags ? rateOf(bytes.slice(tags)) : 48000;
  } else if (byte(0) === 0xff && byte(1) >= 0xe0 && byte(1) & 0x06) { // a frame of MP3: layer 0 would be AAC
    rate = [44100, 48000, 32000, 0][(byte(2) >> 2) & 3] / [4, 1, 2, 1][(byte(1) >> 3) & 3];
  }
  return rate >= 8000 && rate <= 96000 ? rate : 48000;
}

// A windowed sinc that is flat nearly up to the limit, as the package's filter is: the browser's own is not, and
// changes the answers.
function resample(samples, from, to) {
  if (from === to) return samples;
  const divisor = ((a, b) => { while (b) [a, b] = [b, a % b]; return a; })(from, to);
  const [up, down] = [to / divisor, from / divisor];
  const scale = Math.min(1, to / from);
  const reach = Math.ceil(74 / scale); // samples to either side, for 100 dB within the 8.7 % of the band that fade out
  const bessel = (x) => { // I0
    let [sum, term] = [1, 1];
    for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
    return sum;
  };
  const kernels = Array.from({ length: up }, (_, phase) => Float64Array.from({ length: 2 * reach }, (_, k) => {
    const time = k - reach + 1 - phase / up;
    const angle = Math.PI * 0.956 * scale * time;
    const window = bessel(10 * Math.sqrt(Math.max(0, 1 - (time / reach) ** 2))) / bessel(10);
    return 0.956 * scale * (angle ? Math.sin(angle) / angle : 1) * window;
  }));
  const output = new Float32Array(Math.ceil(samples.length * up / down));
  for (let n = 0; n < output.length; n++) {
    const kernel = kernels[(n * down) % up];
    const first = Math.floor((n * down) / up) - reach + 1;
    let sum = 0;
    for (let k = Math.max(0, -first); k < kernel.length && first + k < samples.length; k++) {
      sum += kernel[k] * samples[first + k];
    }
    output[n] = sum;
  }
  return output;
}

async function decode(bytes, name) {
  const rate = rateOf(bytes);
  let audio;
  try {
    audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  } catch {
    throw new Refused(`${name}: this browser cannot read it. Try WAV, MP3, FLAC or OGG.`);
  }
  if (audio.duration > LONGEST) {
    const minutes = Math.round(audio.duration / 60);
    throw new Refused(`${name}: ${minutes} minutes. This page takes up to ${LONGEST / 60}; the package takes hours.`);
  }
  const mono = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    const samples = audio.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / audio.numberOfChannels;
  }
  return resample(mono, rate, facts.sampling_rate);
}

async function predict(waveform) {
  const { runtime, model } = await session;
  const input = new runtime.Tensor("float32", waveform.slice(), [waveform.length]);
  const outputs = await model.run({ waveform: input }, ["probabilities", "speech"]);
  return { probabilities: outputs.probabilities.data, speech: outputs.speech.data[0] };
}

function show(name, { probabilities, speech }, seconds, took) {
  const rows = facts.labels.map((label, i) => [label, probabilities[i]]).sort((a, b) => b[1] - a[1]);
  answer.replaceChildren();
  const title = document.createElement("p");
  title.className = "try-label";
  title.textContent = speech > 0 ? rows[0][0] : "nobody speaks";
  answer.append(title);
  for (const [label, probability] of speech > 0 ? rows : []) {
    const row = document.createElement("div");
    row.className = "try-row";
    const [what, bar, value] = [0, 1, 2].map(() => row.appendChild(document.createElement("span")));
    what.textContent = label;
    bar.className = "try-bar";
    bar.appendChild(document.createElement("span")).style.width = `${100 * probability}%`;
    value.textContent = `${Math.round(100 * probability)} %`;
    answer.append(row);
  }
  say(`${name}: ${speech.toFixed(1)} s of speech in ${seconds.toFixed(1)} s, answered by ${facts.model} in ${took.toFixed(1)} s.`);
  // For tests and the curious: the numbers themselves.
  answer.dataset.answer = JSON.stringify({ probabilities: Array.from(probabilities), labels: facts.labels, speech });
}

async function hear(blob, name) {
  if (busy) return;
  allow(false);
  answer.replaceChildren();
  delete answer.dataset.answer;
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
  say("Reading the recording.");
  try {
    const waveform = await decode(await blob.arrayBuffer(), name);
    if (!waveform.length) throw new Refused(`${name}: there is nothing in it.`);
    session ??= loadModel().catch((error) => {
      session = undefined; // to try again with the next recording
      throw error;
    });
    await session;
    say("Listening.");
    const start = performance.now();
    const found = await predict(waveform);
    show(name, found, waveform.length / facts.sampling_rate, (performance.now() - start) / 1000);
  } catch (error) {
    if (!(error instanceof Refused)) console.error(error);
    say(error instanceof Refused ? error.message : `That did not work: ${error.message ?? error}`, "try-error");
  } finally {
    allow(true);
  }
}

async function startRecording() {
  let microphone;
  try {
    // The raw sound: what a telephone call improves is not what the model learnt from.
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    microphone = await navigator.mediaDevices.getUserMedia({ audio: raw });
  } catch (error) {
    say(`No microphone (${error.message}). Allow it for this page, or choose a file.`, "try-error");
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(microphone);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    for (const track of microphone.getTracks()) track.stop();
    recorder = null;
    record.textContent = "Record";
    hear(new Blob(parts, { type: parts[0]?.type }), "The recording");
  });
  recorder.start();
  file.disabled = true;
  record.textContent = "Stop";
  say("Recording. Speak for a few seconds, then press Stop.");
}

record.addEventListener("click", () => (recorder ? recorder.stop() : startRecording()));
file.addEventListener("change", () => {
  if (file.files.length) hear(file.files[0], file.files[0].name);
  file.value = ""; // the same file may be chosen again
});
const zone = element("zone");
zone.addEventListener("dragover", (event) => event.preventDefault());
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length && !recorder) hear(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
});

try {
  const response = await fetch(new URL("model.json", FILES));
  if (!response.ok) throw new Error();
  facts = await response.json();
  if (!navigator.mediaDevices || !window.MediaRecorder) record.hidden = true; // not over plain http
  allow(true);
  say("Nothing is loaded yet: the model comes with the first recording.");
} catch {
  const remedy = "run python tools/browser_page.py, and build the site again";
  say(`The model is missing: this copy of the site was built without it. To put it in, ${remedy}.`, "try-error");
}
