// The memory model of lab_utils.memory in JavaScript: the same bytes, by test. All of them are whole numbers below 2 ** 53.

const DTYPE_BYTES = { float32: 4, bfloat16: 2, float16: 2 };
const BLOCK = 64, NESTED_BLOCK = 256, SMALLEST_8BIT = 4096, SHORTEST = 128, OPTIMIZER_SHARE = 0.25;
const sum = (values) => values.reduce((total, one) => total + one, 0);

/** Bytes of one matrix in NF4 with blocks of 64. */
function nf4Bytes(numbers, doubleQuant) {
  const packed = Math.ceil(numbers / 2), blocks = Math.ceil(numbers / BLOCK);
  const nested = blocks + 4 * Math.ceil(blocks / NESTED_BLOCK) + 4 + 4 * 256;
  return packed + 4 * 16 + (doubleQuant ? nested : 4 * blocks);
}

/** Bytes of AdamW's two moments of one tensor. */
function momentsBytes(numbers, moments) {
  if (moments !== "8bit") return 2 * DTYPE_BYTES[moments] * numbers;
  return numbers < SMALLEST_8BIT ? 8 * numbers : 2 * (numbers + 4 * Math.ceil(numbers / 256));
}

/** [numbers, times] of every kind of trained tensor. */
function trainedTensors(record, targets, rank) {
  if (rank !== null) return targets.flatMap((one) => [[rank * one.in, one.count], [rank * one.out, one.count]]);
  const found = Object.values(record.modules).map((one) => [one.out * one.in, one.count]);
  found.push([record.vocabulary * record.hidden, record.tied ? 1 : 2], [record.positions * record.hidden, 1]);
  const rest = record.total - sum(found.map(([numbers, count]) => numbers * count));
  return [...found, [record.hidden, Math.floor(rest / record.hidden)], [rest % record.hidden, 1]];
}

/** [bytes of the base, bytes of the absmax that the lab's own layers keep unpacked]. */
function weightsBytes(record, targets, size, qlora, doubleQuant, lab) {
  if (!qlora) return [size * record.total, 0];
  const matrices = Object.values(record.modules).filter((one) => one.group !== "head");
  const rest = record.total - sum(matrices.map((one) => one.count * one.out * one.in));
  const packed = sum(matrices.map((one) => one.count * nf4Bytes(one.out * one.in, doubleQuant)));
  const copies = sum(targets.filter((one) => one.group !== "head")
    .map((one) => one.count * 4 * Math.ceil((one.out * one.in) / BLOCK)));
  return [size * rest + packed, lab && doubleQuant ? copies : 0];
}

/** [bytes that one layer keeps, bytes that computing it takes on top]. */
function layerBytes(record, targets, { tokens, length, size, adapterSize, method, rank, lab, innerSize }) {
  const { hidden, intermediate, width, heads } = record, inner = targets.filter((one) => one.group !== "head");
  const own = method === "qlora" && lab, copied = method !== "full" && size < adapterSize && !own;
  let inputs;
  if (own && size !== innerSize) inputs = innerSize * sum(inner.map((one) => one.in));
  else if (copied) inputs = adapterSize * sum(inner.map((one) => one.in));
  else inputs = size * sum(Object.values(Object.fromEntries(inner.map((one) => [one.source, one.in]))));
  inputs += method === "full" ? 2 * size * hidden : rank * (own ? innerSize : adapterSize) * inner.length;
  const attention = (lab ? length : 0) * heads * (size === 4 ? 4 : 4 + size);
  const kept = tokens * (2 * 4 * hidden + 3 * size * width + (record.gated ? 3 : 1) * size * intermediate + attention + inputs);
  let work = tokens * (copied ? 12 * intermediate + 8 * hidden : 2 * size * intermediate);
  if (method === "qlora") work += innerSize * Math.max(...Object.values(record.modules).map((one) => one.out * one.in));
  if (lab) work = Math.max(work, tokens * ((size === 4 ? 8 : 4) * length * heads - 3 * size * intermediate));
  return [kept, work];
}

/**
 * The bytes of a step, as `memory.estimate` gives them. `settings` has its arguments by their names in Python; what is
 * left out has Python's default. `record` is `as_record` of the architecture, its "targets" the modules with an adapter.
 */
function estimate(record, settings) {
  const { method, rank = 8, batch_size: batch = 1, sequence_length: length = 512, supervised_tokens = null,
    dtype = "bfloat16", adapter_dtype: adapterDtype = "float32", moments = "float32", double_quant: doubleQuant = true,
    gradient_checkpointing: checkpointing = false, rest_dtype: restDtype = null, device = "cpu", foreach = false } = settings;
  const full = method === "full", lab = device === "cpu", qlora = method === "qlora", tokens = batch * length;
  const innerSize = DTYPE_BYTES[dtype], size = qlora && restDtype !== null ? DTYPE_BYTES[restDtype] : innerSize;
  const trainedSize = full ? size : DTYPE_BYTES[adapterDtype], supervised = supervised_tokens ?? tokens;
  const targets = (full ? record.plain : record.targets).map((name) => record.modules[name]);
  const tensors = trainedTensors(record, targets, full ? null : rank);
  const [weights, unpacked] = weightsBytes(record, targets, size, qlora, doubleQuant, lab);
  const [kept, work] = layerBytes(record, targets, { tokens, length, size, adapterSize: trainedSize, method, rank, lab, innerSize });
  const trained = sum(tensors.map(([numbers, count]) => numbers * count)), gradients = trainedSize * trained;
  const given = tokens * record.hidden * size, final = tokens * record.hidden * (4 + (full ? size : 0));
  const logits = size * supervised * record.vocabulary, head = full ? size * record.vocabulary * record.hidden : 0;
  const again = checkpointing ? kept + work : work, left = checkpointing ? given : kept;
  const optimizer = sum(tensors.map(([numbers, count]) => count * momentsBytes(numbers, moments)));
  const update = foreach && moments !== "8bit" ? Math.floor(optimizer / 2) : 0;
  return {
    weights_bytes: weights, unpacked_bytes: unpacked, adapter_bytes: full ? 0 : gradients,
    optimizer_bytes: optimizer,
    gradients_bytes: gradients,
    activations_bytes: record.layers * left + final,
    begin_bytes: Math.max(12 * supervised * record.vocabulary, full ? head + logits : 0, head + again - final),
    end_bytes: Math.max(record.tied ? 2 * head : 0, again),
    layers: record.layers, kept_bytes: left, work_bytes: again, head_bytes: head,
    gradient_bytes: Math.floor(Math.max(gradients - head * (record.tied ? 1 : 2), 0) / record.layers),
    update_bytes: update,
  };
}

/** Parts at the two moments that decide the peak. */
function bothMoments(one) {
  const always = { weights: one.weights_bytes + one.unpacked_bytes, adapter: one.adapter_bytes, optimizer: one.optimizer_bytes };
  return [
    { ...always, gradients: 0, activations: one.activations_bytes, transients: one.begin_bytes },
    { ...always, gradients: one.gradients_bytes, activations: 0, transients: Math.max(one.end_bytes, one.update_bytes) },
  ];
}
const together = (parts) => sum(Object.values(parts));
const peakParts = (one) => {
  const [begins, ends] = bothMoments(one);
  return together(begins) > together(ends) ? begins : ends;
};
const totalBytes = (one) => together(peakParts(one));

/** The moments of a step: [{ at, phase, parts }], as `memory.timeline` gives them. */
function timeline(one, method, checkpointing) {
  const [begins, ends] = bothMoments(one), layers = one.layers, found = [];
  const add = (at, phase, gradients, activations, transients) =>
    found.push({ at, phase, parts: { ...begins, gradients, activations, transients } });
  for (let layer = 0; layer <= layers; layer++) add(layer, "forward", 0, layer * one.kept_bytes, 0);
  found.push({ at: layers + 1, phase: "backward", parts: begins });
  const width = (method === "full" ? 2 : 1) + (checkpointing ? 1 : 0);
  for (let done = 0; done < layers; done++) {
    const left = (layers - done) * one.kept_bytes;
    add(layers + 2 + width * done, "backward", one.head_bytes + done * one.gradient_bytes, left, one.work_bytes);
  }
  const end = layers + 2 + width * layers;
  found.push({ at: end, phase: "backward", parts: { ...ends, transients: one.end_bytes } });
  add(end + 1, "optimizer", one.gradients_bytes, 0, one.update_bytes);
  add(end + 1 + OPTIMIZER_SHARE * layers, "optimizer", one.gradients_bytes, 0, one.update_bytes);
  add(end + 2 + OPTIMIZER_SHARE * layers, "optimizer", 0, 0, 0);
  return found;
}

const PRICES = ["gradient_checkpointing", "batch_size", "method", "moments", "sequence_length"];

/** The values to try for an argument that is `value` now. */
function lower(argument, value) {
  if (argument === "gradient_checkpointing") return value ? [] : [true];
  if (argument === "method") return { full: ["lora", "qlora"], lora: ["qlora"] }[value] ?? [];
  if (argument === "moments") return value === "8bit" ? [] : ["8bit"];
  const found = [], least = argument === "batch_size" ? 1 : SHORTEST;
  for (let half = Math.floor(value / 2); half >= least; half = Math.floor(half / 2)) found.push(half);
  return found;
}

/** What to change until the step fits into `room` bytes: [{ argument, old, new, total }], as `memory.advice`. */
function advice(record, settings, room) {
  const peak = (changed) => totalBytes(estimate(record, { ...settings, ...changed }));
  let chosen = {}, now = peak({});
  for (const argument of PRICES) {
    for (const value of lower(argument, settings[argument])) {
      const after = peak({ ...chosen, [argument]: value });
      if (now <= room || after >= now) break;
      chosen[argument] = value;
      now = after;
    }
  }
  if (now <= room) {
    for (const argument of Object.keys(chosen).reverse()) {
      const others = { ...chosen };
      delete others[argument];
      if (peak(others) <= room) chosen = others;
    }
  }
  const sofar = {};
  return Object.entries(chosen).map(([argument, value]) => {
    sofar[argument] = value;
    return { argument, old: settings[argument], new: value, total: peak(sofar) };
  });
}
