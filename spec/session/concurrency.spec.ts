/** The same concurrency specs as on PostgreSQL, with statements that overlap in any order. */

import { describeConcurrency } from '../support/concurrency-specs.js';
import { memoryWorld } from '../support/memory-world.js';

describeConcurrency(memoryWorld());
