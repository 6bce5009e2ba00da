// Levels and the weights that are rounded to them in blocks: the arithmetic, without a page. Equal to lab_utils.nf4.levels.

const STILL = 1e-9, MOST_ROUNDS = 500; // of Lloyd-Max

/** A number rounded to a whole one, halves to the even neighbour. */
function even(value) {
  const floor = Math.floor(value), rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

/** A number as float16 keeps it. */
function half(value) {
  if (value === 0) return 0;
  const step = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(value))), -14) - 10);
  return even(value / step) * step;
}

/**
 * Weights in blocks, each divided by the largest of its block: { sorted, sums, total, divided, size, values }. `sums[k]` holds
 * the running sums of absmax² · share^k over the sorted shares, so that any levels are measured with sixteen look-ups.
 */
function prepare(values, size) {
  const count = values.length, divided = new Float64Array(count), weighs = new Float64Array(count), keys = new Float64Array(count);
  const room = 2 ** Math.ceil(Math.log2(count + 1));
  for (let from = 0; from < count; from += size) {
    const end = Math.min(from + size, count);
    let absmax = 0;
    for (let i = from; i < end; i++) absmax = Math.max(absmax, Math.abs(values[i]));
    for (let i = from; i < end; i++) {
      divided[i] = absmax ? values[i] / absmax : 0;
      weighs[i] = absmax * absmax;
      keys[i] = Math.round(divided[i] * 2 ** 30) * room + i; // the place in the list rides along: numbers sort quickly
    }
  }
  keys.sort();
  const sorted = new Float64Array(count), sums = [0, 1, 2].map(() => new Float64Array(count + 1));
  for (let at = 0; at < count; at++) {
    const from = keys[at] - Math.floor(keys[at] / room) * room, share = divided[from], weigh = weighs[from];
    sorted[at] = share;
    sums[0][at + 1] = sums[0][at] + weigh;
    sums[1][at + 1] = sums[1][at] + weigh * share;
    sums[2][at + 1] = sums[2][at] + weigh * share * share;
  }
  return { sorted, sums, total: sums[2][count], divided, size, values };
}

/** Where the cells of ascending levels begin in the sorted shares, and where the last one ends; a tie goes to the lower level. */
function cutsOf({ sorted }, levels) {
  const cuts = [0];
  for (let index = 1; index < levels.length; index++) {
    const middle = (levels[index] + levels[index - 1]) / 2;
    let low = cuts[index - 1], high = sorted.length;
    while (low < high) {
      const at = (low + high) >> 1;
      if (sorted[at] <= middle) low = at + 1;
      else high = at;
    }
    cuts.push(low);
  }
  return [...cuts, sorted.length];
}

/** Levels measured: relative error (root mean square), and of each level the share of the weights and of the squared error. */
function measure(blocks, levels) {
  const { sorted, sums, total } = blocks, cuts = cutsOf(blocks, levels);
  const missed = levels.map((level, index) => {
    const [count, moment, square] = sums.map((sum) => sum[cuts[index + 1]] - sum[cuts[index]]);
    return Math.max(0, square - 2 * level * moment + level * level * count);
  });
  const all = missed.reduce((sum, one) => sum + one, 0);
  return {
    error: total ? Math.sqrt(all / total) : 0,
    used: levels.map((_, index) => (cuts[index + 1] - cuts[index]) / sorted.length),
    missed: missed.map((one) => (all ? one / all : 0)),
  };
}

/** Sixteen even levels from each block's smallest weight to its largest, both kept in float16: { error, low, high }, the means. */
function zeroPoint({ values, size, divided }) {
  let missed = 0, total = 0, low = 0, high = 0, blocks = 0;
  for (let from = 0; from < values.length; from += size, blocks++) {
    const end = Math.min(from + size, values.length);
    let least = Infinity, most = -Infinity, lowest = Infinity, highest = -Infinity;
    for (let i = from; i < end; i++) {
      least = Math.min(least, values[i]);
      most = Math.max(most, values[i]);
      lowest = Math.min(lowest, divided[i]);
      highest = Math.max(highest, divided[i]);
    }
    const start = half(least), step = half(Math.fround(Math.fround(most - start) / 15));
    for (let i = from; i < end; i++) {
      const index = Math.max(0, Math.min(15, even(Math.fround(Math.fround(values[i] - start) / (step || 1)))));
      missed += (values[i] - (start + index * step)) ** 2;
      total += values[i] ** 2;
    }
    low += lowest;
    high += highest;
  }
  return { error: total ? Math.sqrt(missed / total) : 0, low: low / blocks, high: high / blocks };
}

/** Levels moved to the means of their weights, until they stay. */
function arrive(blocks, levels) {
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const cuts = cutsOf(blocks, levels);
    let far = 0;
    const moved = levels.map((level, index) => {
      const [count, moment] = blocks.sums.map((sum) => sum[cuts[index + 1]] - sum[cuts[index]]);
      const mean = cuts[index + 1] > cuts[index] && count > 0 ? moment / count : level;
      far = Math.max(far, Math.abs(mean - level));
      return mean;
    });
    if (far < STILL) break;
    levels = moved;
  }
  return levels;
}

/** Lloyd-Max from several starts: of the ends, the one with the smallest error. */
function lloydMax(blocks, starts) {
  const ends = starts.map((start) => arrive(blocks, start)), errors = ends.map((levels) => measure(blocks, levels).error);
  return ends[errors.indexOf(Math.min(...errors))];
}
