// Differences with their 95 % intervals, as Python computes them, and round numbers for an axis.

const variance = (values) => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
};
const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** `compare` of lab_utils.sweep, for paired runs: `rows` are differences, one row per seed, one number per set of messages. */
function judge(rows, students) {
  const runs = rows.length, sets = rows[0].length, mean = average(rows.flat());
  const ofSeeds = rows.map(average), ofSets = rows[0].map((_, set) => average(rows.map((row) => row[set])));
  const bySeed = variance(ofSeeds) / runs;
  let bySet = 0;
  if (sets > 1) {
    const rest = rows.flatMap((row, run) => row.map((value, set) => (value - ofSeeds[run] - ofSets[set] + mean) ** 2));
    const left = rest.reduce((sum, value) => sum + value, 0) / ((runs - 1) * (sets - 1)) / (runs * sets);
    bySet = Math.max(variance(ofSets) / sets - left, 0);
  }
  const reach = Math.sqrt(students[runs - 1] ** 2 * bySeed + (sets > 1 ? students[sets - 1] ** 2 * bySet : 0));
  return { mean, low: mean - reach, high: mean + reach, clear: Math.abs(mean) > reach };
}

/** About four round numbers from low to high. */
function roundTicks(low, high) {
  const rough = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * 0.999);
  const from = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - from + 1 }, (_, index) => Number(((from + index) * step).toPrecision(6)));
}
