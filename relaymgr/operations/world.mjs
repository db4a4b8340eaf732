// Makes static/operations/vendor/world.svg: land and borders in plate carrée, x = longitude, y = -latitude.
//     npm pack world-atlas@2.0.2 topojson-client@3.1.0, each unpacked into a folder of its name; then, beside them,
//     node world.mjs > world.svg
// Antarctica is left out: no relay stands there, and it would take a quarter of the picture.
import { readFileSync } from "node:fs";
import topojson from "./topojson-client/package/dist/topojson-client.js";

const world = JSON.parse(readFileSync("./world-atlas/package/countries-110m.json"));
const countries = world.objects.countries;
countries.geometries = countries.geometries.filter((country) => country.properties.name !== "Antarctica");

const step = (value) => Math.round(value * 10);

// Goes on beyond 180 degrees where a line crosses the date line, so that it does not run back across the picture.
function unrolled(points) {
  let turn = 0;
  return points.map(([longitude, latitude], index) => {
    const before = index ? points[index - 1][0] : longitude;
    if (Math.abs(longitude - before) > 180) turn += longitude < before ? 360 : -360;
    return [longitude + turn, latitude];
  });
}

// What lies beyond an edge is drawn once more from the other side.
function path(points, closed) {
  const line = unrolled(points);
  const longitudes = line.map(([longitude]) => longitude);
  const shifts = [0, ...(Math.max(...longitudes) > 180 ? [-360] : []), ...(Math.min(...longitudes) < -180 ? [360] : [])];
  return shifts.map((shift) => drawn(line.map(([x, y]) => [x + shift, y]), closed)).join("");
}

function drawn(points, closed) {
  let [x, y] = [step(points[0][0]), step(-points[0][1])];
  let path = `M${x / 10} ${y / 10}l`;
  for (const [longitude, latitude] of points.slice(1)) {
    const [nextX, nextY] = [step(longitude), step(-latitude)];
    if (nextX === x && nextY === y) continue;
    path += `${(nextX - x) / 10} ${(nextY - y) / 10} `;
    [x, y] = [nextX, nextY];
  }
  return path.trim() + (closed ? "z" : "");
}

const land = topojson.merge(world, countries.geometries).coordinates.flat().map((ring) => path(ring, true)).join("");
const borders = topojson.mesh(world, countries, (a, b) => a !== b).coordinates.map((line) => path(line)).join("");
console.log(
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-180 -84 360 142">` +
    `<path id="land" d="${land}"/><path id="borders" d="${borders}"/></svg>`,
);
