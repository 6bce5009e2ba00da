// The network of `lab_utils.lora.digits` in the browser: the same weights, images, first values and optimizer, in
// float32. Matrices are multiplied by a WebAssembly function of a few hundred bytes, put together below; where a page
// allows none, by JavaScript.

const WIDTH = 64, CLASSES = 10, PADDED = 32, TRAIN = 1200;
const TURNS = { mirrored: (row, column) => 8 * row + 7 - column, turned: (row, column) => 8 * column + 7 - row };

/** The numbers that torch's generator draws from `seed` (MT19937), as torch makes float32 in [0, 1) of them. */
function drawer(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return ((y ^ (y >>> 18)) & 0xffffff) / 16777216;
  };
}

/** A product in WebAssembly, C = A·B: (n, k) times (k, m) with m a multiple of 32; addresses and strides in bytes. */
function assemble() {
  const leb = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)]);
  const [a, si, sk, b, c, n, k, m, j, pa, pb, p, x, splat, sum] = Array.from({ length: 15 }, (_, index) => index);
  const get = (local) => [0x20, local], set = (local) => [0x21, local], number = (value) => [0x41, ...leb(value)];
  const grow = (local, by) => [...get(local), ...by, 0x6a, ...set(local)], simd = (code) => [0xfd, ...leb(code)];
  const lanes = Array.from({ length: 8 }, (_, index) => index), loop = (...body) => [0x03, 0x40, ...body.flat(), 0x0b];
  const code = loop(
    number(0), set(j),
    loop(
      lanes.flatMap((lane) => [...simd(12), ...Array(16).fill(0), ...set(sum + lane)]),
      get(a), set(pa), get(b), get(j), [0x6a], set(pb), get(k), set(p),
      loop(
        get(pa), [0x2a, 2, 0], [0x22, x], [0x43, 0, 0, 0, 0], [0x5c, 0x04, 0x40], // where x is zero nothing is added
        get(x), simd(19), set(splat),
        lanes.flatMap((lane) => [...get(sum + lane), ...get(splat), ...get(pb), ...simd(0), 4, ...leb(16 * lane),
          ...simd(230), ...simd(228), ...set(sum + lane)]),
        [0x0b], grow(pa, get(sk)), grow(pb, get(m)),
        get(p), number(1), [0x6b, 0x22, p, 0x0d, 0],
      ),
      lanes.flatMap((lane) => [...get(c), ...get(j), 0x6a, ...get(sum + lane), ...simd(11), 4, ...leb(16 * lane)]),
      grow(j, [0x41, 0x80, 0x01]), get(j), get(m), [0x49, 0x0d, 0],
    ),
    grow(a, get(si)), grow(c, get(m)), get(n), number(1), [0x6b, 0x22, n, 0x0d, 0],
  );
  const body = [3, 4, 0x7f, 1, 0x7d, 9, 0x7b, ...code, 0x0b];
  const section = (id, bytes) => [id, ...leb(bytes.length), ...bytes];
  return Uint8Array.from([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...section(1, [1, 0x60, 8, ...Array(8).fill(0x7f), 0]),
    ...section(2, [1, 1, 0x65, 1, 0x6d, 2, 0, 1]), ...section(3, [1, 0]), ...section(7, [1, 1, 0x70, 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body]),
  ]);
}

/** { floats, product }: a memory of `pages` × 64 KiB as Float32Array, and a product of matrices in it. */
function arithmetic(pages, wasm = true) {
  if (wasm) {
    try {
      const memory = new WebAssembly.Memory({ initial: pages });
      const { p } = new WebAssembly.Instance(new WebAssembly.Module(assemble()), { e: { m: memory } }).exports;
      return { floats: new Float32Array(memory.buffer),
        product: (a, si, sk, b, c, n, k, m) => p(4 * a, 4 * si, 4 * sk, 4 * b, 4 * c, n, k, 4 * m) };
    } catch { /* no WebAssembly, or a page that forbids it */ }
  }
  const floats = new Float32Array(16384 * pages), sums = new Float64Array(WIDTH);
  const product = (a, si, sk, b, c, n, k, m) => {
    for (let i = 0; i < n; i++) {
      sums.fill(0);
      for (let q = 0; q < k; q++) {
        const x = floats[a + i * si + q * sk], from = b + q * m;
        if (x !== 0) for (let j = 0; j < m; j++) sums[j] += x * floats[from + j];
      }
      for (let j = 0; j < m; j++) floats[c + i * m + j] = sums[j];
    }
  };
  return { floats, product };
}

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** The reader of digits: `fit(settings)` trains an adapter step by step. `network`, `pixels`, `labels` are base64. */
function reader({ network, pixels, labels }, wasm = true) {
  const weights = new Float32Array(bytesOf(network).buffer), ink = bytesOf(pixels), digit = bytesOf(labels);
  const images = digit.length, square = WIDTH * WIDTH, { floats, product } = arithmetic(64, wasm);
  let end = 0;
  const room = (count) => { end += count; return end - count; }; // where a matrix of so many numbers lies
  const X = room(images * WIDTH), H = [room(images * WIDTH), room(images * WIDTH)], Z = room(images * PADDED);
  const D = [room(TRAIN * WIDTH), room(TRAIN * WIDTH)], out = room(PADDED * WIDTH), outT = room(PADDED * WIDTH);
  const change = room(square), turnedGradient = room(square), biases = [square, 2 * square + WIDTH];
  const layers = [0, square + WIDTH].map((from) => ({
    base: weights.subarray(from, from + square), W: room(square), WT: room(square), gradient: room(square),
    A: room(square), B: room(square), gA: room(square), gB: room(square), // B is kept transposed: (rank, out)
  }));
  const last = 2 * (square + WIDTH), bias = weights.subarray(last + CLASSES * WIDTH);
  for (let o = 0; o < CLASSES; o++) {
    for (let i = 0; i < WIDTH; i++) floats[out + o * WIDTH + i] = floats[outT + i * PADDED + o] = weights[last + o * WIDTH + i];
  }
  const transpose = (from, to) => {
    for (let i = 0; i < WIDTH; i++) for (let j = 0; j < WIDTH; j++) floats[to + j * WIDTH + i] = floats[from + i * WIDTH + j];
  };
  const show = (task) => {
    for (let n = 0; n < images; n++) {
      for (let at = 0; at < WIDTH; at++) floats[X + n * WIDTH + at] = ink[n * WIDTH + TURNS[task](at >> 3, at & 7)] / 16;
    }
  };
  /** Activations of images `first` to `first + count`, in the first rows of H and Z. */
  const forward = (first, count) => {
    for (let layer = 0; layer < 2; layer++) {
      product(layer ? H[0] : X + first * WIDTH, WIDTH, 1, layers[layer].WT, H[layer], count, WIDTH, WIDTH);
      for (let i = 0, h = H[layer], b = biases[layer]; i < count * WIDTH; i++) {
        const value = floats[h + i] + weights[b + (i & 63)];
        floats[h + i] = value > 0 ? value : 0;
      }
    }
    product(H[1], WIDTH, 1, outT, Z, count, WIDTH, PADDED);
  };
  const accuracy = () => {
    forward(TRAIN, images - TRAIN);
    let right = 0;
    for (let n = 0; n < images - TRAIN; n++) {
      let best = 0;
      for (let o = 1; o < CLASSES; o++) {
        if (floats[Z + n * PADDED + o] + bias[o] > floats[Z + n * PADDED + best] + bias[best]) best = o;
      }
      if (best === digit[TRAIN + n]) right++;
    }
    return right / (images - TRAIN);
  };
  /** Loss of the training images; their logits in Z become its gradient. */
  const loss = () => {
    let total = 0;
    for (let n = 0; n < TRAIN; n++) {
      const z = Z + n * PADDED, y = digit[n];
      let high = -Infinity, sum = 0;
      for (let o = 0; o < CLASSES; o++) high = Math.max(high, (floats[z + o] += bias[o]));
      for (let o = 0; o < CLASSES; o++) sum += Math.exp(floats[z + o] - high);
      total += Math.log(sum) + high - floats[z + y];
      for (let o = 0; o < CLASSES; o++) floats[z + o] = (Math.exp(floats[z + o] - high) / sum - (o === y)) / TRAIN;
    }
    return total / TRAIN;
  };
  const backward = () => {
    product(Z, PADDED, 1, out, D[1], TRAIN, CLASSES, WIDTH);
    for (let layer = 1; layer >= 0; layer--) {
      for (let i = 0, d = D[layer], h = H[layer]; i < TRAIN * WIDTH; i++) if (floats[h + i] === 0) floats[d + i] = 0;
      product(layer ? H[0] : X, 1, WIDTH, D[layer], turnedGradient, WIDTH, TRAIN, WIDTH); // (in, out)
      transpose(turnedGradient, layers[layer].gradient);
      if (layer) product(D[1], WIDTH, 1, layers[1].W, D[0], TRAIN, WIDTH, WIDTH);
    }
  };
  const merge = ({ base, W, WT, A, B }, rank, scaling) => {
    product(B, 1, WIDTH, A, change, WIDTH, rank, WIDTH);
    for (let i = 0; i < square; i++) floats[W + i] = base[i] + scaling * floats[change + i];
    transpose(W, WT);
  };
  /** Train with Adam; yields each step's loss, and returns the accuracy on the new images. */
  function* fit({ task, rank, scaling, learning_rate: rate, steps, seed = 1 }) {
    const draw = drawer(seed), size = rank * WIDTH;
    show(task);
    for (const { A, B } of layers) {
      for (let i = 0; i < 2 * size; i++) draw(); // torch draws for A and B once before
      for (let i = 0; i < size; i++) {
        floats[A + i] = draw() * 0.25 - 0.125;
        floats[B + i] = 0;
      }
    }
    const places = layers.flatMap(({ A, B, gA, gB }) => [[A, gA], [B, gB]]);
    const moments = places.map(() => [new Float32Array(size), new Float32Array(size)]);
    for (let step = 1; step <= steps; step++) {
      for (const layer of layers) merge(layer, rank, scaling);
      forward(0, TRAIN);
      const now = loss();
      backward();
      for (const { A, B, gA, gB, gradient } of layers) {
        product(B, WIDTH, 1, gradient, gA, rank, WIDTH, WIDTH); // the gradients of A and B, but for the factor `scaling`
        transpose(gradient, change);
        product(A, WIDTH, 1, change, gB, rank, WIDTH, WIDTH);
      }
      const slow = rate / (1 - 0.9 ** step), root = Math.sqrt(1 - 0.999 ** step);
      places.forEach(([at, from], which) => {
        const [mean, square] = moments[which];
        for (let i = 0; i < size; i++) {
          const g = scaling * floats[from + i];
          mean[i] += 0.1 * (g - mean[i]);
          square[i] += 0.001 * (g * g - square[i]);
          floats[at + i] -= (slow * mean[i]) / (Math.sqrt(square[i]) / root + 1e-8);
        }
      });
      yield now;
    }
    for (const layer of layers) merge(layer, rank, scaling);
    return accuracy();
  }
  const untrained = (task) => fit({ task, rank: 1, scaling: 0, learning_rate: 0, steps: 0 }).next().value;
  return { fit, untrained };
}
