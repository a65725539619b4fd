"use strict";
// Samples as pictures: the waveform, and the spectrogram of a short-time Fourier transform.

const WINDOW = 512; // samples, 32 ms at 16 kHz
const MOST = 8192; // pixels across that every browser draws
const RANGE = 75; // decibels below the loudest that are told apart
// Colours from quiet to loud: dark violet to light yellow, of equal steps in lightness.
const STOPS = [[12, 7, 35], [60, 15, 112], [127, 36, 129], [194, 59, 117], [245, 105, 92], [254, 170, 117], [252, 235, 180]];
const HANN = Float32Array.from({ length: WINDOW }, (_, at) => 0.5 - 0.5 * Math.cos(2 * Math.PI * at / WINDOW));

// The discrete Fourier transform in place, of 2^n numbers (Cooley and Tukey 1965).
const transform = (real, imaginary) => {
  const size = real.length;
  for (let at = 1, other = 0; at < size; at++) {
    let bit = size >> 1;
    for (; other & bit; bit >>= 1) other ^= bit;
    other ^= bit;
    if (at < other) {
      [real[at], real[other]] = [real[other], real[at]];
      [imaginary[at], imaginary[other]] = [imaginary[other], imaginary[at]];
    }
  }
  for (let width = 2; width <= size; width <<= 1) {
    const half = width >> 1;
    for (let turn = 0; turn < half; turn++) {
      const angle = -2 * Math.PI * turn / width, cos = Math.cos(angle), sin = Math.sin(angle);
      for (let low = turn; low < size; low += width) {
        const high = low + half;
        const x = real[high] * cos - imaginary[high] * sin, y = real[high] * sin + imaginary[high] * cos;
        real[high] = real[low] - x; imaginary[high] = imaginary[low] - y;
        real[low] += x; imaginary[low] += y;
      }
    }
  }
};

// Decibels of each frequency at `columns` moments: columns * WINDOW / 2 numbers, the lowest frequency first.
const decibels = (samples, columns) => {
  const bins = WINDOW / 2, found = new Float32Array(columns * bins);
  const real = new Float32Array(WINDOW), imaginary = new Float32Array(WINDOW);
  for (let column = 0; column < columns; column++) {
    const start = Math.round((column + 0.5) / columns * samples.length) - WINDOW / 2;
    for (let at = 0; at < WINDOW; at++) real[at] = (samples[start + at] || 0) * HANN[at];
    imaginary.fill(0);
    transform(real, imaginary);
    for (let bin = 0; bin < bins; bin++)
      found[column * bins + bin] = 10 * Math.log10(real[bin] ** 2 + imaginary[bin] ** 2 + 1e-12);
  }
  return found;
};

const across = canvas => Math.min(MOST, Math.round(canvas.clientWidth * devicePixelRatio));
const shade = level => {
  const place = level * (STOPS.length - 1), low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((value, at) => value + (STOPS[low + 1][at] - value) * (place - low));
};

const drawSpectrogram = (canvas, samples) => {
  const columns = Math.max(1, Math.min(across(canvas), Math.ceil(samples.length / 80)));
  const bins = WINDOW / 2, levels = decibels(samples, columns);
  const loudest = levels.reduce((most, value) => Math.max(most, value), -Infinity);
  canvas.width = columns; canvas.height = bins;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, bins);
  for (let column = 0; column < columns; column++)
    for (let bin = 0; bin < bins; bin++) {
      const level = Math.max(0, Math.min(1, 1 + (levels[column * bins + bin] - loudest) / RANGE));
      const at = 4 * ((bins - 1 - bin) * columns + column);
      [image.data[at], image.data[at + 1], image.data[at + 2]] = shade(level);
      image.data[at + 3] = 255;
    }
  context.putImageData(image, 0, 0);
};

const drawWave = (canvas, samples) => {
  const width = canvas.width = Math.max(1, across(canvas));
  const height = canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
  const loudest = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-4);
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--wave");
  for (let column = 0; column < width; column++) {
    const start = Math.floor(column / width * samples.length);
    const stop = Math.max(start + 1, Math.floor((column + 1) / width * samples.length));
    let low = 0, high = 0;
    for (let at = start; at < stop; at++) { low = Math.min(low, samples[at]); high = Math.max(high, samples[at]); }
    const scale = height / 2 / loudest;
    context.fillRect(column, height / 2 - high * scale, 1, Math.max(1, (high - low) * scale));
  }
};
