// Samples and their packings: 16 bits in base64 on the wire, RIFF in a file.

/** Samples per second, on the wire and in everything that is kept. */
export const RATE = 24000;

/**
 * @param {Float32Array} samples
 * @returns {Int16Array}
 */
export function toInt16(samples) {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) out[i] = Math.round(32767 * Math.max(-1, Math.min(1, samples[i])));
  return out;
}

/**
 * @param {Int16Array} samples
 * @returns {Float32Array}
 */
export function toFloat(samples) {
  const out = new Float32Array(samples.length);
  for (let i = 0; i < samples.length; i++) out[i] = samples[i] / 32768;
  return out;
}

/**
 * Every machine that runs a browser is little-endian, as the wire is.
 *
 * @param {Int16Array} samples
 * @returns {string}
 */
export function toBase64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  // In pieces: a call takes a limited number of arguments.
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

/**
 * @param {string} text
 * @returns {Int16Array}
 */
export function fromBase64(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length - (raw.length % 2));
  for (let i = 0; i < bytes.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Int16Array(bytes.buffer);
}

/**
 * What stands before the samples of a WAV file of 16 bits.
 *
 * @param {number} frames samples of each channel
 * @param {number} channels
 * @param {number} rate
 * @returns {ArrayBuffer}
 */
export function wavHeader(frames, channels, rate) {
  const bytes = 2 * channels * frames;
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * channels * rate, true);
  view.setUint16(32, 2 * channels, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return view.buffer;
}
