import { describeClocks } from '../support/clock-specs.js';
import { postgresWorld } from '../support/postgres-world.js';

describeClocks(postgresWorld);
